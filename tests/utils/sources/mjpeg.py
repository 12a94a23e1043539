"""A server of MJPEG streams that break off, stall, change their size or send garbage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import cv2
import numpy as np

FRAMES = 6  # before a fault
_GARBAGE = np.random.default_rng(0).integers(0, 256, 20_000, np.uint8).tobytes()


def _jpeg(width: int, height: int) -> bytes:
    return cv2.imencode(".jpg", np.full((height, width, 3), 200, np.uint8))[1].tobytes()


class _Handler(BaseHTTPRequestHandler):
    server: MjpegServer

    def do_GET(self) -> None:  # noqa: N802
        self.server.connections += 1
        kind = self.path.strip("/")
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=f")
        self.end_headers()
        try:
            if kind == "garbage":
                self.wfile.write(_GARBAGE)
            else:
                self._stream(kind)
        except OSError:
            pass  # the reader has closed the connection

    def _stream(self, kind: str) -> None:
        number = 0
        while True:
            number += 1
            if kind == "drops" and number > FRAMES:
                return
            if kind == "stalls" and number > FRAMES:
                self.server.wait()
                return
            larger = kind == "changes" and number > FRAMES
            damaged = kind == "damaged" and number % FRAMES == 0
            self._part(_GARBAGE[:3000] if damaged else _jpeg(*((128, 96) if larger else (64, 48))))
            time.sleep(self.server.pause)

    def _part(self, data: bytes) -> None:
        head = f"--f\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
        self.wfile.write(head.encode() + data + b"\r\n")

    def log_message(self, *_: object) -> None:
        pass


class MjpegServer(ThreadingHTTPServer):
    """Streams by path: drops, stalls, changes (its size), damaged, garbage, and any other: steady."""

    daemon_threads = True
    connections = 0
    pause = 0.005  # seconds between frames
    closed = False

    def url(self, kind: str) -> str:
        """Return the URL of a stream, with a password."""
        return f"http://admin:secret@127.0.0.1:{self.server_port}/{kind}"

    def wait(self) -> None:
        """Wait until the server is closed."""
        while not self.closed:
            time.sleep(0.02)


@contextmanager
def mjpeg_server() -> Iterator[MjpegServer]:
    """Run the server in a thread."""
    server = MjpegServer(("127.0.0.1", 0), _Handler)
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closed = True
        server.shutdown()
        server.server_close()
        thread.join()
