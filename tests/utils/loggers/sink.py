"""A network that leads nowhere."""

from __future__ import annotations

import socket
import threading


class Sink:
    """A proxy that answers nobody, and remembers who asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:  # closed
                return
            with connection:
                self.asked.append(connection.recv(200).decode(errors="replace").partition("\r\n")[0])
