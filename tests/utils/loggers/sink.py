"""A proxy that records requests and forwards none."""

from __future__ import annotations

import socket
import threading


class Sink:
    """A proxy that closes every connection and records its requests."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:  # closed
                return
            with connection:
                self.requests.append(connection.recv(200).decode(errors="replace").partition("\r\n")[0])
