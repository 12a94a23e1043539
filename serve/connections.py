"""Connections of the server, with limits of time and number that uvicorn does not have."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0  # for the headers of a request, from the connection or its first byte on
SEND_SECONDS = 30.0  # in which a client must read what waits to be sent
MAX_CONNECTIONS = 100  # of one client


class Connection(H11Protocol):
    """A connection that is closed if its client is slow, or has too many."""

    clients: Counter[str] = Counter()

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._deadline: asyncio.TimerHandle | None = None  # of headers
        self._sending: asyncio.TimerHandle | None = None
        self._host = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._host = self.client[0] if self.client else ""
        self.clients[self._host] += 1
        self._await_headers()
        if self.clients[self._host] > MAX_CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline = _stop(self._deadline)
        self._sending = _stop(self._sending)
        self.clients[self._host] -= 1
        if not self.clients[self._host]:
            del self.clients[self._host]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived; the deadline of the headers ends with them."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._deadline = _stop(self._deadline)
        elif self._deadline is None and (before is None or before.response_complete):
            self._await_headers()  # of the next request

    def pause_writing(self) -> None:
        """Start the time in which the client must read."""
        super().pause_writing()
        self._sending = self.loop.call_later(SEND_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        self._sending = _stop(self._sending)
        super().resume_writing()

    def _await_headers(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.abort)


def _stop(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    """Cancel a timer, and return what replaces it."""
    if timer is not None:
        timer.cancel()
    return None


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
