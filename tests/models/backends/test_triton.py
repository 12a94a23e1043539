"""The Triton runtime, with a stand-in for the server that speaks version 2 of the KServe protocol."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from models.backends import load_backend
from tests.models.backends.files import CPU, NAMES, example, exported
from utils.base.errors import DataError

LENGTH = "Inference-Header-Content-Length"


class _Server(BaseHTTPRequestHandler):
    """Server of one model, `cells`, run by ONNX Runtime."""

    def do_GET(self) -> None:
        shape = [-1, 3, 64, 64]
        inputs = [{"name": "images", "datatype": "FP32", "shape": shape}]
        outputs = [{"name": "output0", "datatype": "FP32", "shape": [-1, 252, 7]}]
        self._respond({"name": "cells", "inputs": inputs, "outputs": outputs})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/index"):
            self._respond([{"name": "cells", "state": "READY"}])
            return
        cut = int(self.headers[LENGTH])
        given = json.loads(body[:cut])["inputs"][0]
        images = torch.from_numpy(np.frombuffer(body[cut:], np.float32).reshape(given["shape"]).copy())
        found = load_backend(exported("onnx", dynamic=True), CPU)(images).numpy()
        described = {"name": "output0", "datatype": "FP32", "shape": list(found.shape)}
        described["parameters"] = {"binary_data_size": found.nbytes}
        self._respond({"model_name": "cells", "outputs": [described]}, found.tobytes())

    def log_message(self, *words: object) -> None:
        """Log nothing."""

    def _respond(self, content: object, binary: bytes = b"") -> None:
        head = json.dumps(content).encode()
        self.send_response(200)
        if binary:
            self.send_header(LENGTH, str(len(head)))
        self.send_header("Content-Length", str(len(head) + len(binary)))
        self.end_headers()
        self.wfile.write(head + binary)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_the_first_model_of_a_server_is_used(url: str) -> None:
    backend = load_backend(url, CPU, names=NAMES)

    assert (backend.names, backend.imgsz, backend.batch) == (NAMES, (64, 64), None)
    expected = load_backend(exported("onnx", dynamic=True), CPU)(example(2))
    torch.testing.assert_close(backend(example(2)), expected)


def test_an_unreachable_server_is_a_one_line_error() -> None:
    pytest.importorskip("tritonclient.http", reason="pip install 'tritonclient[http]'")
    with pytest.raises(DataError, match="--weights http://127.0.0.1:9: the server does not answer"):
        load_backend("http://127.0.0.1:9", CPU)
