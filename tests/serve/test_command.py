"""The command line of the server: fast help, errors on one line, graceful shutdown."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from typing import Any

import pytest

import serve.__main__
from serve.serve_options import ServeOptions
from tests.models.backends.files import checkpoint
from tests.serve.process import END, START, command, environment, started
from utils.base.errors import ConfigError
from utils.base.paths import ROOT


def run(*flags: str, **more: Any) -> subprocess.CompletedProcess[str]:
    pipes: dict[str, Any] = {"capture_output": True, "text": True, "timeout": START}
    return subprocess.run(command(*flags), cwd=ROOT, env=environment(), **pipes, **more)


def test_help_imports_neither_torch_nor_web_packages() -> None:
    script = (
        "import sys, serve.__main__ as m; from utils.base.options import build_parser; "
        "build_parser(m.ServeOptions).format_help(); "
        "print(sorted({'torch', 'cv2', 'numpy', 'fastapi', 'uvicorn', 'PIL', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [command()[0], "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=START, check=True
    )

    assert done.stdout.strip() == "[]"
    assert "--max-wait-ms" in run("--help").stdout


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--port", "x"], 2, "--port"),
        (["--conf-thres", "2"], 2, "--conf-thres 2.0: expected a number from 0 to 1"),
        (["--max-queue", "0"], 2, "--max-queue 0"),
        (["--host", "192.0.2.1"], 1, "cannot listen"),
    ],
)
def test_errors_are_one_line(flags: list[str], status: int, message: str) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("prometheus_client")
    pytest.importorskip("python_multipart")
    pytest.importorskip("uvicorn")
    done = run("--weights", "x.pt", *flags)

    assert done.returncode == status
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_a_port_in_use_is_reported_before_models_are_loaded() -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("prometheus_client")
    pytest.importorskip("python_multipart")
    pytest.importorskip("uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("--weights", "missing.pt", "--port", str(taken.getsockname()[1]))

    assert done.returncode == 1 and "Address already in use" in done.stderr


@pytest.mark.parametrize("changes", [{"weights": []}, {"port": 70000}, {"imgsz": 0}, {"max_wait_ms": -1}])
def test_invalid_options_are_rejected(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        ServeOptions(**{"weights": ["a.pt"], **changes})


def test_run_takes_options_as_keywords() -> None:
    with pytest.raises(ConfigError, match=r"serve.run\(\) has no option 'prot'; did you mean port"):
        serve.__main__.run(prot=80)
    with pytest.raises(ConfigError, match="--port 70000: expected an integer from 0 to 65535"):
        serve.__main__.run(port=70000)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_stops_the_server_after_requests_in_progress(number: signal.Signals, status: int) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("prometheus_client")
    pytest.importorskip("python_multipart")
    httpx = pytest.importorskip("httpx")
    from tests.serve.service import encoded, make_image

    statuses: list[int] = []
    with started("--max-wait-ms", "1500", "--max-batch", "2") as server:

        def post() -> None:
            files = {"image": encoded(make_image())}
            statuses.append(
                httpx.post(f"{server.url}/v1/detect/{checkpoint().stem}", files=files).status_code
            )

        client = threading.Thread(target=post)
        client.start()
        while (
            'queue_length{model="tiny"} 1.0' not in httpx.get(f"{server.url}/metrics").text
            and client.is_alive()
        ):
            time.sleep(0.01)
        server.process.send_signal(number)
        _, errors = server.process.communicate(timeout=END)
        client.join()

    assert server.process.returncode == status and statuses == [200]
    assert "Traceback" not in errors


def test_a_signal_ends_uploads_in_progress() -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("prometheus_client")
    pytest.importorskip("python_multipart")
    pytest.importorskip("uvicorn")
    head = (
        "POST /v1/detect/tiny HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n"
        "Content-Type: multipart/form-data; boundary=f\r\n\r\n--f\r\n"
    )
    with started() as server:
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=END) as connection:
            connection.sendall(head.encode())
            with socket.create_connection((host, int(port)), timeout=END) as other:  # is served after it
                other.sendall(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                assert other.recv(4096).startswith(b"HTTP/1.1 200")
            server.process.send_signal(signal.SIGTERM)
            _, errors = server.process.communicate(timeout=END)
            assert connection.recv(4096).startswith(b"HTTP/1.1 503")
    assert server.process.returncode == 0
    assert errors == ""
