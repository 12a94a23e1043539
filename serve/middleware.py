"""Around every request: the key, the headers that keep browsers in their place, the counting."""

from __future__ import annotations

import hmac
import time
from collections.abc import Collection, MutableMapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.service_metrics import Metrics

DETECTION_PATHS = ("/v1/object-detection/", "/v1/detect/")
_LOCKED = ("/v1/", "/metrics")
_HERE = ("127.0.0.1", "localhost", "[::1]")
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


class ServiceMiddleware:
    """Refuse requests for what is locked without the key; count those for detections.

    Args:
        app: what answers.
        metrics: counted into.
        models: known names; others are counted under none, or strangers could fill the memory with names.
        api_key: what the header X-API-Key has to say; empty for no lock, but none for other sites' pages.
        local: whether the server is for this machine alone: asked for by another name, it is not meant.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, models: Collection[str], api_key: str, local: bool = False
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._models = models
        self._key = api_key.encode()
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def send_watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for key, value in _HEADERS.items():
                    headers.setdefault(key, value)
            await send(message)

        try:
            app = _elsewhere if self._is_from_elsewhere(scope) else self._app
            app = app if self._may_enter(scope) else _locked
            await app(scope, receive, send_watched)
        finally:
            self._count(scope, status, time.monotonic() - started)

    def _may_enter(self, scope: MutableMapping[str, Any]) -> bool:
        if not self._key or not scope["path"].startswith(_LOCKED):
            return True
        given = next((value for key, value in scope["headers"] if key == b"x-api-key"), b"")
        return hmac.compare_digest(given, self._key)  # in a time that does not tell how much of it is right

    def _is_from_elsewhere(self, scope: MutableMapping[str, Any]) -> bool:
        """Whether a browser asks on behalf of another site, which must not use a server of this machine."""
        headers = {key: value.decode("latin-1").lower() for key, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin", "")
        if self._local and host.rsplit(":", 1)[0] not in _HERE:
            return True
        asked = (host, headers.get(b"x-forwarded-host", host))  # a page cannot add that one to its requests
        return bool(origin) and not self._key and origin.partition("//")[2] not in asked

    def _count(self, scope: MutableMapping[str, Any], status: int, seconds: float) -> None:
        path: str = scope["path"]
        if not path.startswith(DETECTION_PATHS):
            return
        name = path.rsplit("/", 1)[1]
        model = name if name in self._models else ""
        self._metrics.requests.labels(model, str(status)).inc()
        if status == 200:
            self._metrics.seconds.labels(model).observe(seconds)


_elsewhere = JSONResponse({"detail": "pages of other sites may not use this server"}, 403)
_locked = JSONResponse({"detail": "the header X-API-Key is missing or wrong"}, 401)
