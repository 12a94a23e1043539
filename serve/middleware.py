"""ASGI middleware: API key, security headers, request metrics."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Collection, MutableMapping
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

METRICS_MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_PROTECTED = ("/v1/", "/metrics")
_LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64)
_NONE = 0  # status of a request without a response
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Metrics:
    """Prometheus metrics, in a registry of their own: several servers can run in one process."""

    def __init__(self) -> None:
        disable_created_metrics()  # no `*_created` timestamps beside each metric
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "yolov5_requests_total",
            "Requests by model and HTTP status.",
            ("model", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "yolov5_request_seconds",
            "Seconds from request to response, of successful requests.",
            ("model",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batches = Histogram(
            "yolov5_batch_size", "Images per batch.", ("model",), buckets=_SIZES, registry=self.registry
        )
        self.queue = Gauge(
            "yolov5_queue_length", "Images waiting for their model.", ("model",), registry=self.registry
        )

    def watch_queue(self, model: str, length: Callable[[], int]) -> None:
        """Report `length()` as the queue length of `model` whenever the metrics are read."""
        self.queue.labels(model).set_function(length)

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format 0.0.4."""
        return generate_latest(self.registry)


class ServiceMiddleware:
    """ASGI middleware: checks API key and origin, adds security headers, counts requests of models.

    Args:
        app: the application that handles the other requests.
        metrics: updated after each request of a model.
        models: known names; requests for others are counted without a name, so that clients cannot fill
            the memory with made-up ones.
        counted: starts of the paths of requests to models.
        api_key: required value of the X-API-Key header; empty for none, and then pages of other sites are
            rejected.
        local: whether the server listens on the loopback interface only; requests for other host names are
            then rejected, as they come from DNS rebinding.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        models: Collection[str],
        counted: tuple[str, ...],
        api_key: str,
        local: bool = False,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._models = models
        self._counted = counted
        self._key = api_key.encode()
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), _NONE

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for key, value in _HEADERS.items():
                    headers.setdefault(key, value)
            await send(message)

        try:
            app = _cross_site if self._is_cross_site(scope) else self._app
            app = app if self._is_authorized(scope) else _unauthorized
            await app(scope, receive, send_with_headers)
        except asyncio.CancelledError:  # the server has waited for it long enough, and stops
            if status == _NONE:
                await _stopping(scope, receive, send_with_headers)
        finally:
            self._count(scope, status or 500, time.monotonic() - started)

    def _is_authorized(self, scope: MutableMapping[str, Any]) -> bool:
        if not self._key or not scope["path"].startswith(_PROTECTED):
            return True
        given = next((value for key, value in scope["headers"] if key == b"x-api-key"), b"")
        return hmac.compare_digest(given, self._key)  # in constant time

    def _is_cross_site(self, scope: MutableMapping[str, Any]) -> bool:
        """Return whether a browser sent the request for another site, which may not use a local server."""
        headers = {key: value.decode("latin-1").lower() for key, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin", "")
        if self._local and host.rsplit(":", 1)[0] not in _LOCAL_HOSTS:
            return True
        own = (host, headers.get(b"x-forwarded-host", host))  # pages cannot set that header
        return bool(origin) and not self._key and origin.partition("//")[2] not in own

    def _count(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        path: str = scope["path"]
        if not path.startswith(self._counted):
            return
        name = path.rsplit("/", 1)[1]
        model = name if name in self._models else ""
        self._metrics.requests.labels(model, str(status)).inc()
        if status == 200:
            self._metrics.seconds.labels(model).observe(seconds)


_stopping = JSONResponse({"detail": "the server is stopping"}, 503)
_cross_site = JSONResponse({"detail": "pages of other sites may not use this server"}, 403)
_unauthorized = JSONResponse({"detail": "the X-API-Key header is missing or wrong"}, 401)
