"""One request for detections, from its upload to what was found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from starlette.requests import ClientDisconnect, Request

from serve.errors import RequestError
from serve.images import read_image
from serve.models import Found, InferenceTask, Served
from serve.multipart import Form, read_form
from serve.params import RequestParams, read_params
from serve.responses import annotated
from serve.serve_options import ServeOptions
from serve.service_metrics import Metrics
from utils.base.errors import ConfigError
from utils.base.processes import usable_cores

UPLOAD_SECONDS = 30.0  # a client that sends slower holds a place that others could use
_GONE = 499  # nobody hears it; the number is what web servers log for it
FIELD = "image"


@dataclass(frozen=True)
class Outcome:
    """What became of a request; `jpeg` if the image was asked for; seconds of its stages."""

    served: Served
    task: InferenceTask
    found: Found
    jpeg: bytes | None
    seconds: dict[str, float]


class DetectionService:
    """The models, and a few threads that decode and draw images for them.

    Few, as each may hold an image of the largest size.
    """

    def __init__(self, models: Mapping[str, Served], options: ServeOptions, metrics: Metrics) -> None:
        self.models = models
        self.options = options
        self.metrics = metrics
        self._pool = ThreadPoolExecutor(max(min(usable_cores(), 4), 2), "images")

    @property
    def ready(self) -> bool:
        """Whether every model is working."""
        return all(served.batcher.alive for served in self.models.values())

    def close(self) -> None:
        """Finish what is queued, then end all threads."""
        for served in self.models.values():
            served.batcher.close()
        self._pool.shutdown(cancel_futures=True)

    async def detect(self, request: Request, name: str) -> Outcome:
        """Read a request's image, and look at it.

        Raises:
            RequestError: it cannot be served; the status says whose fault that is.
        """
        started = time.monotonic()
        served = self._model(name)
        with served.batcher.place():
            form = await self._upload(request)
            params = self._params(request, form, served)
            if not form.file:
                raise RequestError(422, f"the form has no image in its field {FIELD!r}")
            loop = asyncio.get_running_loop()
            reading = time.monotonic()
            image, task = await loop.run_in_executor(self._pool, self._prepare, form.file, served, params)
            seconds = {"decode": time.monotonic() - reading}
            with _failures():
                future = served.batcher.submit(task, task.image.shape)
                found, seconds["queue"] = await _unless_gone(request, future)
            jpeg = None
            if image is not None:
                names = served.backend.names
                jpeg = await loop.run_in_executor(self._pool, annotated, image, found, names)
            seconds["total"] = time.monotonic() - started
            return Outcome(served, task, found, jpeg, seconds)

    def _model(self, name: str) -> Served:
        if name not in self.models:
            raise RequestError(404, f"no model is called {name[:80]!r}; there are {', '.join(self.models)}")
        return self.models[name]

    async def _upload(self, request: Request) -> Form:
        kind, length = request.headers.get("content-type", ""), request.headers.get("content-length")
        reading = read_form(kind, length, request.stream(), FIELD, self.options.max_upload)
        try:
            return await asyncio.wait_for(reading, UPLOAD_SECONDS)
        except asyncio.TimeoutError as error:
            raise RequestError(408, f"the upload took more than {UPLOAD_SECONDS:g} seconds") from error
        except ClientDisconnect as error:
            raise RequestError(_GONE, "the client has gone") from error

    def _params(self, request: Request, form: Form, served: Served) -> RequestParams:
        values = {**request.query_params, **form.fields}
        accept = request.headers.get("accept", "")
        names = served.backend.names
        return read_params(values, accept, self.options, served.imgsz, served.fixed, names)

    def _prepare(
        self, content: bytes, served: Served, params: RequestParams
    ) -> tuple[np.ndarray | None, InferenceTask]:
        """Decode and letterbox; the image itself is kept only if it is to be drawn on."""
        image = read_image(content, self.options.max_pixels)
        return image if params.image else None, served.prepare(image, params)


async def _unless_gone(request: Request, future: Future[tuple[Found, float]]) -> tuple[Found, float]:
    """Wait for a result for as long as the client does; then nobody needs it, and it leaves the queue."""
    result = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(_gone(request))
    try:
        either: set[asyncio.Future[Any]] = {result, gone}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise RequestError(_GONE, "the client has gone")
        return result.result()
    finally:
        gone.cancel()
        result.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@contextmanager
def _failures() -> Iterator[None]:
    """Turn what a model could not do into a refusal; the queue has written it to the log."""
    try:
        yield
    except RequestError:
        raise
    except ConfigError as error:  # such as a size that its file does not take
        raise RequestError(422, str(error)) from error
    except Exception as error:
        raise RequestError(500, "the model failed; the server's log says why") from error
