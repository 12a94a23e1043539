"""A service with the tiny model of the format tests, and images to send to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import cv2
import numpy as np

from models.backends import load_backend
from serve.app import make_app
from serve.middleware import Metrics
from serve.models import make_model
from serve.serve_options import ServeOptions
from serve.service import InferenceService
from tests.known import pattern_image
from tests.models.backends.files import CPU, SIDE, checkpoint

LOW = {"conf": "0.001"}  # all confidences of the tiny model are low


def options(**changes: Any) -> ServeOptions:
    """Return options for small images, and a wait long enough to fill a batch on a busy machine."""
    return ServeOptions(**{"weights": [str(checkpoint())] * 2, "imgsz": SIDE, "max_wait_ms": 200, **changes})


@contextmanager
def running(**changes: Any) -> Iterator[InferenceService]:
    """Run a service with the models `tiny` and `other`, on the CPU."""
    chosen, metrics = options(**changes), Metrics()
    models = {
        name: make_model(name, load_backend(file, CPU), chosen, metrics, chosen.imgsz_of(index))
        for index, (name, file) in enumerate(zip(("tiny", "other"), chosen.weights, strict=True))
    }
    service = InferenceService(models, chosen, metrics)
    try:
        yield service
    finally:
        service.close()


@contextmanager
def client(api_key: str = "", **changes: Any) -> Iterator[Any]:
    """Return a client of such a service, without a network; `.service` is the service."""
    from fastapi.testclient import TestClient

    with running(**changes) as service, TestClient(make_app(service, api_key)) as opened:
        opened.service = service
        yield opened


def scope_of(path: str, content_type: bytes) -> dict[str, Any]:
    """Return the ASGI scope of a POST request."""
    return {
        "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"content-type", content_type)], "http_version": "1.1", "scheme": "http",
        "server": ("test", 80), "client": ("test", 1), "root_path": "",
    }  # fmt: skip


def make_image(k: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    """Return an image (height, width, 3), different for each `k`."""
    return pattern_image(height, width, 40 * k)


def encoded(image: np.ndarray, suffix: str = ".png") -> bytes:
    """Encode an image with OpenCV as the bytes of a file."""
    return cv2.imencode(suffix, image)[1].tobytes()


def saved(image: np.ndarray, image_format: str, **more: Any) -> bytes:
    """Encode an RGB image with PIL as the bytes of a file."""
    from PIL import Image

    file = BytesIO()
    Image.fromarray(image).save(file, image_format, **more)
    return file.getvalue()
