"""Process one detection request, from its upload to its response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from serve.batching import BusyError
from serve.middleware import Metrics
from serve.models import DetectionResult, InferenceTask, ServedModel
from serve.request import FILE_FIELD, Form, RequestError, RequestParams, read_form, read_image, read_params
from serve.responses import DetectionRow, annotated_jpeg, encode_masks
from serve.serve_options import ServeOptions
from utils.base.errors import ConfigError
from utils.base.processes import usable_cores

UPLOAD_SECONDS = 30.0  # slow clients would occupy a slot that others could use
_CLIENT_CLOSED = 499  # never sent; the status that web servers log in this case


@dataclass
class Detection:
    """A processed request: its result, the seconds of each stage, and what masks add to each row."""

    model: ServedModel
    task: InferenceTask
    result: DetectionResult
    seconds: dict[str, float]
    masks: list[DetectionRow] = field(default_factory=list)


class DetectionService:
    """The served models, and a thread pool that decodes and draws images, and makes masks.

    The pool is small, as each of its threads may hold an image of the maximum size.
    """

    def __init__(self, models: Mapping[str, ServedModel], options: ServeOptions, metrics: Metrics) -> None:
        self.models = models
        self.options = options
        self.metrics = metrics
        self._pool = ThreadPoolExecutor(max(min(usable_cores(), 4), 2), "images")

    @property
    def ready(self) -> bool:
        """Whether every model accepts requests."""
        return all(model.batcher.alive for model in self.models.values())

    def close(self) -> None:
        """Process what is queued, then stop all threads."""
        for model in self.models.values():
            model.batcher.close()
        self._pool.shutdown(cancel_futures=True)

    async def detect(self, request: Request, name: str, content: Callable[[Detection], Any]) -> Response:
        """Read the image of a request and run the model `name` on it.

        Args:
            request: the request.
            name: name of the model.
            content: returns the content of the JSON response.

        Returns:
            The JSON response, or the annotated image.

        Raises:
            RequestError: the request is invalid, or the model failed.
            BusyError: too many requests are in progress.
        """
        started = time.monotonic()
        model = self._model(name)
        with model.batcher.slot():
            form = await self._read_form(request)
            params = self._read_params(request, form, model)
            if not form.file:
                raise RequestError(422, f"the form has no image in its field {FILE_FIELD!r}")
            loop = asyncio.get_running_loop()
            decoding = time.monotonic()
            image, task = await loop.run_in_executor(self._pool, self._prepare, form.file, model, params)
            seconds = {"decode": time.monotonic() - decoding}
            with _as_request_errors():
                future = model.batcher.submit(task, task.image.shape)
                result, seconds["queue"] = await _wait_while_connected(request, future)
            if image is not None:
                names = model.backend.names
                jpeg = await loop.run_in_executor(self._pool, annotated_jpeg, image, result, names)
                return Response(jpeg, media_type="image/jpeg")
            done = Detection(model, task, result, seconds)
            if result.masks is None:
                return _json_response(done, started, content)
            return await loop.run_in_executor(self._pool, _json_response, done, started, content)

    def _model(self, name: str) -> ServedModel:
        if name not in self.models:
            raise RequestError(404, f"no model is named {name[:80]!r}; expected {', '.join(self.models)}")
        return self.models[name]

    async def _read_form(self, request: Request) -> Form:
        headers = request.headers
        form = read_form(
            headers.get("content-type", ""),
            headers.get("content-length"),
            request.stream(),
            self.options.max_upload,
        )
        try:
            return await asyncio.wait_for(form, UPLOAD_SECONDS)
        except asyncio.TimeoutError as error:
            raise RequestError(408, f"the upload took more than {UPLOAD_SECONDS:g} seconds") from error
        except ClientDisconnect as error:
            raise RequestError(_CLIENT_CLOSED, "the client disconnected") from error

    def _read_params(self, request: Request, form: Form, model: ServedModel) -> RequestParams:
        values = {**request.query_params, **form.fields}
        accept = request.headers.get("accept", "")
        return read_params(
            values,
            accept,
            self.options,
            model.imgsz,
            model.fixed,
            model.backend.names,
            model.segments,
        )

    def _prepare(
        self, content: bytes, model: ServedModel, params: RequestParams
    ) -> tuple[np.ndarray | None, InferenceTask]:
        """Decode and letterbox an image; the decoded image is returned only if it will be drawn on."""
        image = read_image(content, self.options.max_pixels)
        return image if params.image else None, model.prepare(image, params)


def _json_response(done: Detection, started: float, content: Callable[[Detection], Any]) -> Response:
    """Encode the masks and make the response; masks would keep other requests waiting in the event loop."""
    encoding = time.monotonic()
    done.masks = encode_masks(done.result, done.task.params.masks)
    now = time.monotonic()
    if done.result.masks is not None:
        done.seconds["masks"] = now - encoding
    done.seconds["total"] = now - started
    return JSONResponse(content(done))


async def _wait_while_connected(
    request: Request, future: Future[tuple[DetectionResult, float]]
) -> tuple[DetectionResult, float]:
    """Wait for a result; cancel it, and so remove it from the queue, when the client disconnects."""
    result = asyncio.wrap_future(future)
    disconnected = asyncio.ensure_future(_disconnected(request))
    try:
        either: set[asyncio.Future[Any]] = {result, disconnected}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise RequestError(_CLIENT_CLOSED, "the client disconnected")
        return result.result()
    finally:
        disconnected.cancel()
        result.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@contextmanager
def _as_request_errors() -> Iterator[None]:
    """Turn errors of a model into request errors; the batcher has logged them."""
    try:
        yield
    except (RequestError, BusyError):
        raise
    except ConfigError as error:  # such as an input size that an exported model does not take
        raise RequestError(422, str(error)) from error
    except Exception as error:
        raise RequestError(500, "the model failed; see the server's log") from error
