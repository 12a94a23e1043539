"""Addresses, and what answers them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response

from serve import openapi
from serve.errors import RequestError
from serve.middleware import ServiceMiddleware
from serve.responses import detailed, offer, rows_of
from serve.service import DetectionService, Outcome
from serve.service_metrics import MEDIA_TYPE

_PAGE = {"": "text/html", "page.js": "text/javascript", "page.css": "text/css"}


def make_app(service: DetectionService, api_key: str = "", local: bool = False) -> FastAPI:
    """The application; it closes `service` when the server stops.

    Args:
        service: models and options.
        api_key: what clients have to send in X-API-Key; empty for open doors.
        local: the server is for this machine alone.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    # The pages that FastAPI makes for /docs and /redoc load their scripts from elsewhere.
    app = FastAPI(title="YOLOv5-LSKA", version="1", docs_url=None, redoc_url=None, lifespan=lifespan)
    app.add_middleware(
        ServiceMiddleware, metrics=service.metrics, models=tuple(service.models), api_key=api_key, local=local
    )
    app.add_exception_handler(RequestError, _refuse)
    _add_detection(app, service)
    _add_state(app, service)
    _add_page(app)
    return app


def _add_detection(app: FastAPI, service: DetectionService) -> None:
    @app.post(
        "/v1/object-detection/{model}", openapi_extra=openapi.upload(openapi.ROWS), summary="Boxes, as rows"
    )
    async def object_detection(model: str, request: Request) -> Response:
        outcome = await service.detect(request, model)
        return _image(outcome) or JSONResponse(rows_of(outcome.found, outcome.served.backend.names))

    @app.post(
        "/v1/detect/{model}", openapi_extra=openapi.upload(openapi.DETAILED), summary="Boxes, sizes and times"
    )
    async def detect(model: str, request: Request) -> Response:
        outcome = await service.detect(request, model)
        return _image(outcome) or JSONResponse(
            detailed(outcome.served, outcome.task, outcome.found, outcome.seconds)
        )

    @app.get("/v1/models", summary="Models, their classes, defaults and limits")
    async def models() -> dict[str, Any]:
        return offer(service.models, service.options)


def _add_state(app: FastAPI, service: DetectionService) -> None:
    @app.get("/health", summary="The process answers")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", summary="Every model is loaded and working; 503 if not")
    async def ready() -> Response:
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @app.get("/metrics", response_class=PlainTextResponse, summary="Numbers for Prometheus")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=MEDIA_TYPE)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        return RedirectResponse("openapi.json")


def _add_page(app: FastAPI) -> None:
    """Serve three files by their names, read once: no path of a request ever reaches the disk."""
    for name, media_type in _PAGE.items():
        content = Path(__file__).with_name(name or "page.html").read_bytes()
        headers = {"Cache-Control": "no-cache", "Content-Type": f"{media_type}; charset=utf-8"}
        app.add_api_route(f"/{name}", _always(content, headers), include_in_schema=False)


def _always(content: bytes, headers: dict[str, str]) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return Response(content, headers=headers)

    return answer


def _image(outcome: Outcome) -> Response | None:
    return None if outcome.jpeg is None else Response(outcome.jpeg, media_type="image/jpeg")


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return JSONResponse({"detail": error.message}, error.status, error.headers)
