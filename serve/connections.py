"""Connections of the server, with limits of time and number that uvicorn does not have."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Network
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from serve.uploads import client_of
from utils.base.processes import open_files

HEADER_SECONDS = 10.0  # for the headers of a request, from the connection or its first byte on
SEND_SECONDS = 30.0  # in which a client must read a part of what waits to be sent
MAX_CONNECTIONS = 100  # of one client
_OWN_FILES = 100  # open files that are left for everything but connections


def connection_limit() -> int:
    """Return how many connections the open files allow, after raising their limit as far as it may be."""
    return max(open_files(65536) - _OWN_FILES, 1)


class Connection(H11Protocol):
    """A connection that is closed if its client is slow, or has too many.

    Clients on this machine may have any number: a proxy has those of all its clients.
    """

    clients: Counter[str] = Counter()
    most = 1000  # of all clients

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._headers: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None
        self._host = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._host = client_of(self.client[0] if self.client else "")
        self.clients[self._host] += 1
        self._await_headers()
        too_many = self.clients[self._host] > MAX_CONNECTIONS and not is_local(self._host)
        if too_many or len(self.connections) > self.most:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._headers, self._sending):
            if timer is not None:
                timer.cancel()
        self.clients[self._host] -= 1
        if not self.clients[self._host]:
            del self.clients[self._host]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; the deadline of the headers ends with them."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            if self._headers is not None:
                self._headers.cancel()
            self._headers = None
        elif self._headers is None and (before is None or before.response_complete):
            self._await_headers()  # of the next request

    def pause_writing(self) -> None:
        """Watch whether the client reads what is too much to be sent at once."""
        super().pause_writing()
        self._watch_sending()

    def on_response_complete(self) -> None:
        """Watch whether the client reads the rest."""
        super().on_response_complete()
        self._watch_sending()

    def _watch_sending(self) -> None:
        left = self.transport.get_write_buffer_size()
        if self._sending is None and left:
            self._sending = self.loop.call_later(SEND_SECONDS, self._check_sending, left)

    def _check_sending(self, before: int) -> None:
        self._sending = None
        if self.transport.get_write_buffer_size() >= before:
            self.transport.abort()
        else:
            self._watch_sending()

    def _await_headers(self) -> None:
        self._headers = self.loop.call_later(HEADER_SECONDS, self.transport.abort)


def is_local(host: str) -> bool:
    """Return whether a client is on this machine."""
    return host.startswith("127.") or host == str(IPv6Network((1, 64), strict=False))


class Server(uvicorn.Server):
    """A server that ends uploads when it is stopped.

    Args:
        config: of uvicorn.
        stop: ends uploads in progress, called in the event loop.
    """

    def __init__(self, config: uvicorn.Config, stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._stop = stop
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: Any = None) -> None:
        """Serve until a signal stops the server."""
        self._loop = asyncio.get_running_loop()
        with contextlib.suppress(SystemExit):  # uvicorn raises SIGTERM again, which is no failure
            await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop, on Ctrl-C or SIGTERM."""
        super().handle_exit(sig, frame)
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop)  # also wakes the loop
