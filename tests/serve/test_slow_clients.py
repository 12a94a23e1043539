"""Clients that are slow, or one that sends much, leave the server to others."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

if sys.platform != "linux":
    pytest.skip("needs 127.0.0.2, which is on this machine on Linux only", allow_module_level=True)
pytest.importorskip("fastapi")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")
uvicorn = pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")

from serve import connections, uploads  # noqa: E402
from serve.app import make_app  # noqa: E402
from tests.serve.service import encoded, make_image, running  # noqa: E402

HEAD = (
    b"POST /v1/detect/tiny HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n"
    b"Content-Type: multipart/form-data; boundary=f\r\n\r\n"
)
OTHER = "127.0.0.2"  # the address of another client, on the same machine


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server with short times that accepts 3 requests and 8 connections of a client."""
    with pytest.MonkeyPatch.context() as patch, running(max_per_client=3, max_wait_ms=0) as service:
        for module, name, value in (
            (connections, "HEADER_SECONDS", 0.5),
            (connections, "SEND_SECONDS", 0.5),
            (connections, "MAX_CONNECTIONS", 8),
            (connections, "is_local", lambda _: False),
            (uploads, "READ_SECONDS", 2.0),
            (uploads, "UPLOAD_SECONDS", 4.0),
        ):
            patch.setattr(module, name, value)
        app = make_app(service, local=True)
        config = uvicorn.Config(app, http=connections.Connection, ws="none", log_level="warning")
        server = connections.Server(config, service.uploads.stop)
        listener = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def connect(port: int, content: bytes = b"", client: str = "127.0.0.1") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(client, 0))
    connection.sendall(content)
    return connection


def post(port: int, client: str = "127.0.0.1") -> int:
    with httpx.Client(transport=httpx.HTTPTransport(local_address=client), timeout=20) as opened:
        url = f"http://127.0.0.1:{port}/v1/detect/tiny"
        return int(opened.post(url, files={"image": encoded(make_image())}).status_code)


def wait_until_closed(connection: socket.socket) -> bytes:
    """Return what is received until the server closes the connection."""
    received = b""
    try:
        while part := connection.recv(65536):
            received += part
    except ConnectionResetError:
        pass
    return received


@pytest.mark.parametrize("content", [b"", b"GET /health HTTP/1.1\r\nX-"])
def test_slow_headers_close_the_connection(port: int, content: bytes) -> None:
    with connect(port, content) as connection:
        assert wait_until_closed(connection) == b""


def test_slow_headers_of_a_second_request_close_the_connection(port: int) -> None:
    first = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connect(port, first) as connection:
        received = b""
        while b'"ok"' not in received:  # headers and body may come one after the other
            received += connection.recv(65536)
        connection.sendall(b"GET /hea")
        assert wait_until_closed(connection) == b""


def test_an_upload_that_pauses_ends(port: int) -> None:
    with connect(port, HEAD + b"--f\r\n") as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 408")


def test_an_upload_that_trickles_ends(port: int) -> None:
    started = time.monotonic()
    with connect(port, HEAD + b"--f\r\n") as connection:
        connection.settimeout(0.1)
        while time.monotonic() - started < 20:
            connection.sendall(b"x")
            try:
                assert connection.recv(65536).startswith(b"HTTP/1.1 408")
                return
            except TimeoutError:
                pass
    raise AssertionError("the upload goes on")


def test_a_client_has_a_limit_of_requests_and_others_are_served(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(port, HEAD))
        deadline = time.monotonic() + 20
        while (status := post(port)) != 429 and time.monotonic() < deadline:
            pass
        assert status == 429
        assert post(port, OTHER) == 200
    while (status := post(port)) == 429 and time.monotonic() < deadline:
        pass
    assert status == 200  # the uploads have ended


def test_a_client_has_a_limit_of_connections_and_others_are_served(port: int) -> None:
    with ExitStack() as stack:
        opened = [stack.enter_context(connect(port)) for _ in range(9)]
        assert wait_until_closed(opened[-1]) == b""  # before the headers are late
        assert post(port, OTHER) == 200
    deadline = time.monotonic() + 20
    while connections.Connection.clients and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not connections.Connection.clients


def test_a_client_that_does_not_read_its_responses_is_disconnected(port: int) -> None:
    request = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connect(port, request) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(2)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(20_000):
                connection.sendall(request)
                time.sleep(0.0005)


def test_a_response_of_which_something_is_read_now_and_then_is_sent(port: int) -> None:
    """Closed is what is not read at all for a while, not what takes long."""
    request = b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with connect(port) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.sendall(request * 100)
        received, end = 0, time.monotonic() + 3
        while time.monotonic() < end:  # six times as long as nothing may be read
            part = connection.recv(4096)
            assert part
            received += len(part)
            time.sleep(0.02)
        assert received > 4096


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8::1:2:3:4", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_network_of_ipv6_is_one_client(host: str, client: str) -> None:
    assert uploads.client_of(host) == client


def test_all_connections_together_have_a_limit(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections.Connection, "most", 4)
    with ExitStack() as stack:
        opened = [stack.enter_context(connect(port)) for _ in range(5)]
        assert wait_until_closed(opened[-1]) == b""
    assert connections.connection_limit() >= 100


@pytest.mark.slow
def test_memory_stays_flat_under_mixed_load() -> None:
    from tests.serve.load import run_load

    outcome = run_load(180)
    assert max(outcome.memory[10:]) - outcome.memory[4] < 30e6, outcome.memory
    assert "Traceback" not in outcome.errors
    expected = {
        "image": {200}, "drawn": {200}, "metrics": {200}, "garbage": {415}, "damaged": {415}, "cut off": {0},
        "parameter": {422}, "unknown model": {404}, "no headers": {0}, "too large": {413},
    }  # fmt: skip
    seen: dict[str, set[int]] = {}
    for kind, status in outcome.counts:
        seen.setdefault(kind, set()).add(status)
    assert seen == expected
