"""Read the bodies of requests so that slow clients, and one client alone, cannot take all places."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, IPv6Network, ip_address

from starlette.requests import Request

from serve.request import Form, RequestError, read_form

UPLOAD_SECONDS = 30.0  # for a whole body
READ_SECONDS = 5.0  # between two parts of it
_CLIENT_CLOSED = 499  # never sent; the status that web servers log in this case


def disconnected() -> RequestError:
    """Return the error of a request whose client has gone."""
    return RequestError(_CLIENT_CLOSED, "the client disconnected")


def client_of(host: str) -> str:
    """Return what counts as one client: an IPv4, or a network of IPv6, of which one client may have many."""
    try:
        ip = ip_address(host.partition("%")[0])
    except ValueError:  # of a Unix socket
        return host
    return str(IPv6Network((int(ip), 64), strict=False)) if isinstance(ip, IPv6Address) else host


class Uploads:
    """The uploads of a server.

    Args:
        max_file: maximum size of an image file in bytes.
        per_client: maximum number of requests in progress of one client; 0 for no limit.
    """

    def __init__(self, max_file: int, per_client: int) -> None:
        self._max_file = max_file
        self._per_client = per_client
        self._active: Counter[str] = Counter()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """End uploads in progress; called in the thread of the event loop."""
        self._stopping.set()

    @contextmanager
    def slot(self, request: Request) -> Iterator[None]:
        """Count a request of its client as in progress.

        Raises:
            RequestError: 429, the client has as many in progress as it may.
        """
        client = client_of(request.client.host if request.client else "")
        if self._per_client and self._active[client] >= self._per_client:
            raise RequestError(
                429, f"{self._per_client} of your requests are in progress; wait for their results"
            )
        self._active[client] += 1
        try:
            yield
        finally:
            self._active[client] -= 1
            if not self._active[client]:
                del self._active[client]  # or the clients of a day would fill the memory

    async def read(self, request: Request) -> Form:
        """Read the form of a request.

        Raises:
            RequestError: it is invalid, see `read_form`; 408 it is sent too slowly, 503 the server stops.
        """
        headers = request.headers
        length = headers.get("content-length")
        return await read_form(headers.get("content-type", ""), length, self._body(request), self._max_file)

    async def _body(self, request: Request) -> AsyncIterator[bytes]:
        end = time.monotonic() + UPLOAD_SECONDS
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            more = True
            while more:
                part = asyncio.ensure_future(request.receive())
                left = min(READ_SECONDS, end - time.monotonic())
                await asyncio.wait({part, stopping}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if not part.done():
                    part.cancel()
                    raise self._late()
                message = part.result()
                if message["type"] == "http.disconnect":
                    raise disconnected()
                yield message.get("body", b"")
                more = message.get("more_body", False)
        finally:
            stopping.cancel()

    def _late(self) -> RequestError:
        if self._stopping.is_set():
            return RequestError(503, "the server is stopping")
        return RequestError(
            408, f"the upload took more than {UPLOAD_SECONDS:g} seconds, or {READ_SECONDS:g} without data"
        )
