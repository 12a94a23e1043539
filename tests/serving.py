"""A web server on 127.0.0.1 for tests, with a response per path."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(frozen=True)
class Answer:
    """The response of a path; `promised` is a Content-Length, possibly a wrong one, or -1 for none."""

    body: bytes = b""
    status: int = 200
    promised: int | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Site:
    """A running server: its URL, its responses, which may be changed, and the paths requested so far."""

    url: str
    answers: dict[str, Answer]
    asked: list[str] = field(default_factory=list)


@contextmanager
def serve(answers: dict[str, Answer]) -> Iterator[Site]:
    """Serve GET and HEAD requests on a free port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, with_body: bool) -> None:
            if with_body:
                site.asked.append(self.path)
            answer = site.answers.get(self.path, Answer(status=404))
            self.send_response(answer.status)
            for key, value in answer.headers.items():
                self.send_header(key, value)
            promised = len(answer.body) if answer.promised is None else answer.promised
            if promised >= 0:
                self.send_header("Content-Length", str(promised))
            self.end_headers()
            if with_body:
                self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site = Site(f"http://127.0.0.1:{server.server_port}", answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
