"""Process one request, from its upload to its response."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serve.batching import BusyError
from serve.middleware import Metrics
from serve.params import RequestParams
from serve.request import FILE_FIELD, RequestError, read_image
from serve.responses import jpeg
from serve.serve_options import ServeOptions
from serve.served_model import InferenceTask, Result, Row, ServedModel
from serve.uploads import Uploads, disconnected
from utils.base.errors import ConfigError
from utils.base.processes import usable_cores

T = TypeVar("T")


@dataclass
class Finished:
    """A processed request: its result, the seconds of each stage, and the rows of the response."""

    model: ServedModel[Any]
    task: InferenceTask[Any]
    result: Result
    seconds: dict[str, float]
    rows: list[Row] = field(default_factory=list)


class InferenceService:
    """The served models, and a thread pool that decodes and draws images, and makes masks.

    The pool is small, as each of its threads may hold an image of the maximum size.
    """

    def __init__(
        self, models: Mapping[str, ServedModel[Any]], options: ServeOptions, metrics: Metrics
    ) -> None:
        self.models = models
        self.options = options
        self.metrics = metrics
        self.uploads = Uploads(options.max_upload, options.max_per_client)
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

    async def infer(
        self,
        request: Request,
        name: str,
        family: type[ServedModel[Any]],
        route: int,
        content: Callable[[Finished], Any],
    ) -> Response:
        """Read the image of a request and run the model `name` on it.

        Args:
            request: the request.
            name: name of the model.
            family: the kind of model that the route is for.
            route: which of `family.routes` it is.
            content: returns the content of the JSON response.

        Returns:
            The JSON response, or an image.

        Raises:
            RequestError: the request is invalid, or the model failed.
            BusyError: too many requests are in progress.
        """
        started = time.monotonic()
        model = self._model(name, family, route)
        with self.uploads.slot(request), model.batcher.slot():
            form = await self.uploads.read(request)
            values = {**request.query_params, **form.fields}
            params: RequestParams = model.read_params(values, request.headers.get("accept", ""))
            if not form.file:
                raise RequestError(422, f"the form has no image in its field {FILE_FIELD!r}")
            decoding = time.monotonic()
            if params.format == "plain":
                return await self._in_pool(_plain_response, form.file, self.options.max_pixels)
            image, task = await self._in_pool(self._prepare, form.file, model, params)
            seconds = {"decode": time.monotonic() - decoding}
            with _as_request_errors():
                future = model.batcher.submit(task, task.image.shape)
                result, seconds["queue"] = await _wait_while_connected(request, future)
            if image is not None:
                return await self._in_pool(_image_response, image, result, model)
            done = Finished(model, task, result, seconds)
            if not result.row_stage:
                return _json_response(done, started, content)
            return await self._in_pool(_json_response, done, started, content)

    def _in_pool(self, function: Callable[..., T], *args: Any) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    def _model(self, name: str, family: type[ServedModel[Any]], route: int) -> ServedModel[Any]:
        if name not in self.models:
            raise RequestError(404, f"no model is named {name[:80]!r}; expected {', '.join(self.models)}")
        model = self.models[name]
        if not isinstance(model, family):
            raise RequestError(404, f"{name} is a {model.task.noun}: use /v1/{model.routes[route]}/{name}")
        return model

    def _prepare(
        self, content: bytes, model: ServedModel[Any], params: RequestParams
    ) -> tuple[np.ndarray | None, InferenceTask[Any]]:
        """Decode an image and make the input; the decoded image is returned only if it will be drawn on."""
        image = read_image(content, self.options.max_pixels)
        return image if params.format == "image" else None, model.prepare(image, params)


def _plain_response(content: bytes, max_pixels: int) -> Response:
    """Return the image without a result, for clients that cannot decode its format."""
    return Response(jpeg(read_image(content, max_pixels)), media_type="image/jpeg")


def _image_response(image: np.ndarray, result: Result, model: ServedModel[Any]) -> Response:
    """Draw the result on the image, in place."""
    return Response(jpeg(result.draw(image, model.backend.names)), media_type="image/jpeg")


def _json_response(done: Finished, started: float, content: Callable[[Finished], Any]) -> Response:
    """Make the rows and the response; masks would keep other requests waiting in the event loop."""
    encoding = time.monotonic()
    done.rows = done.result.rows(done.model.backend.names)
    now = time.monotonic()
    if done.result.row_stage:
        done.seconds[done.result.row_stage] = now - encoding
    done.seconds["total"] = now - started
    return JSONResponse(content(done))


async def _wait_while_connected(
    request: Request, future: Future[tuple[Result, float]]
) -> tuple[Result, float]:
    """Wait for a result; cancel it, and so remove it from the queue, when the client disconnects."""
    result = asyncio.wrap_future(future)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        either: set[asyncio.Future[Any]] = {result, gone}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not result.done():
            raise disconnected()
        return result.result()
    finally:
        gone.cancel()
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
