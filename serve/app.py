"""The FastAPI application: its routes and error responses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from serve import openapi, responses
from serve.batching import BusyError
from serve.middleware import METRICS_MEDIA_TYPE, ServiceMiddleware
from serve.models import FAMILIES
from serve.request import RequestError
from serve.served_model import Row, ServedModel
from serve.service import Finished, InferenceService

_PAGE = {
    "": "text/html",
    "page.js": "text/javascript",
    "page-camera.js": "text/javascript",
    "page-draw.js": "text/javascript",
    "page.css": "text/css",
}


def make_app(service: InferenceService, api_key: str = "", local: bool = False) -> FastAPI:
    """Build the application; it closes `service` when the server stops.

    Args:
        service: models and options.
        api_key: required value of the X-API-Key header; empty for none.
        local: whether the server listens on the loopback interface only.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    # FastAPI's own pages at /docs and /redoc would load scripts from other sites.
    app = FastAPI(title="YOLOv5-LSKA", version="1", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(
        ServiceMiddleware,
        metrics=service.metrics,
        models=tuple(service.models),
        counted=tuple(f"/v1/{route}/" for family in FAMILIES for route in family.routes),
        api_key=api_key,
        local=local,
    )
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(BusyError, _busy)
    for family in FAMILIES:
        _add_inference_routes(app, service, family)
    _add_status_routes(app, service)
    _add_page(app)
    return app


def _add_inference_routes(app: FastAPI, service: InferenceService, family: type[ServedModel[Any]]) -> None:
    """Add the routes of one kind of model: for rows, and for rows with details."""
    noun = family.rows_key.capitalize()
    rows, with_details = family.routes

    @app.post(
        f"/v1/{rows}/{{model}}",
        name=rows,
        openapi_extra=openapi.rows_operation(family),
        summary=f"{noun} as rows",
    )
    async def infer_rows(model: str, request: Request) -> Response:
        return await service.infer(request, model, family, 0, _rows)

    @app.post(
        f"/v1/{with_details}/{{model}}",
        name=with_details,
        openapi_extra=openapi.details_operation(family),
        summary=f"{noun} with sizes and times",
    )
    async def infer_details(model: str, request: Request) -> Response:
        return await service.infer(request, model, family, 1, _details)


def _add_status_routes(app: FastAPI, service: InferenceService) -> None:
    @app.get("/v1/models", summary="Models with their classes, parameter defaults and limits")
    async def models() -> dict[str, Any]:
        return responses.models_info(service.models, service.options)

    @app.get("/health", summary="200 while the server is running")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", summary="200 if every model accepts requests, else 503")
    async def ready() -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @app.get("/metrics", response_class=PlainTextResponse, summary="Prometheus metrics")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=METRICS_MEDIA_TYPE)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return RedirectResponse("openapi.json")


def _add_page(app: FastAPI) -> None:
    """Serve the files of the page, read once: no path of a request ever reaches the disk."""
    for name, media_type in _PAGE.items():
        content = Path(__file__).with_name(name or "page.html").read_bytes()
        headers = {"Cache-Control": "no-cache", "Content-Type": f"{media_type}; charset=utf-8"}
        app.add_api_route(f"/{name}", _constant(content, headers), include_in_schema=False)


def _constant(content: bytes, headers: dict[str, str]) -> Callable[[], Awaitable[Response]]:
    async def respond() -> Response:
        return Response(content, headers=headers)

    return respond


def _rows(done: Finished) -> list[Row]:
    return done.rows


def _details(done: Finished) -> dict[str, Any]:
    return responses.details(done.model, done.task, done.result, done.rows, done.seconds)


async def _request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    headers = {"Retry-After": "1"} if error.status == 429 else None
    return JSONResponse({"detail": error.message}, error.status, headers)


async def _busy(request: Request, error: Exception) -> Response:
    """Return 503 and suggest to retry in a second: requests in progress are short."""
    return JSONResponse({"detail": f"{error}; try again in a moment"}, 503, {"Retry-After": "1"})
