"""The HTTP interface: responses, limits, errors, metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("fastapi", reason="pip install fastapi httpx prometheus-client python-multipart uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient

from models.backends import load_backend
from serve.app import make_app
from serve.middleware import Metrics
from serve.models import load_models
from serve.service import InferenceService
from tests.models.backends.files import CPU, NAMES, SIDE, checkpoint
from tests.serve.service import LOW, client, encoded, make_image, options, saved, scope_of
from utils.data.letterbox import letterbox, to_tensor
from utils.ops.boxes import scale_boxes
from utils.ops.nms import non_max_suppression

KEYS = ["xmin", "ymin", "xmax", "ymax", "confidence", "class", "name"]
ROWS, DETAILED = "/v1/object-detection/tiny", "/v1/detect/tiny"


@pytest.fixture(scope="module")
def web() -> Iterator[Any]:
    """A client of a service that does not wait for batches to fill."""
    with client(max_wait_ms=0) as opened:
        yield opened


def send(web: Any, path: str = ROWS, content: bytes | None = None, **more: Any) -> Any:
    """Post an image as a browser does."""
    return web.post(
        path, files={"image": ("a.png", encoded(make_image()) if content is None else content)}, **more
    )


def detect_directly(image: np.ndarray, conf: float = 0.001) -> np.ndarray:
    boxed = letterbox(image, SIDE)[0]
    with torch.inference_mode():
        decoded = load_backend(checkpoint(), CPU)(to_tensor([boxed], CPU))
        rows = non_max_suppression(decoded, conf, 0.45, max_det=300)[0].numpy()
    scale_boxes(boxed.shape[:2], rows[:, :4], image.shape[:2])
    return rows


def as_array(rows: list[dict[str, Any]]) -> np.ndarray:
    return np.array([[row[key] for key in KEYS[:6]] for row in rows])


def test_rows_equal_the_detections_of_the_model(web: Any) -> None:
    image = make_image(1, 90, 120)
    response = send(web, content=encoded(image), data=LOW)

    assert response.status_code == 200
    rows = response.json()
    assert rows and all(list(row) == KEYS and row["name"] == NAMES[row["class"]] for row in rows)
    np.testing.assert_allclose(as_array(rows), detect_directly(image), atol=2e-3)


def test_details_contain_sizes_and_times(web: Any) -> None:
    response = send(web, DETAILED, encoded(make_image(1, 90, 120)), params=LOW).json()

    assert response["size"] == {"width": 120, "height": 90} and response["input"] == {
        "width": 64,
        "height": 64,
    }
    assert set(response["times_ms"]) == {"decode", "queue", "inference", "nms", "total"}
    assert response["batch"] == 1 and response["model"] == "tiny" and response["conf"] == 0.001
    assert list(response["detections"][0]) == KEYS


def test_parameters_filter_detections(web: Any) -> None:
    all_rows = send(web, data=LOW).json()
    half = sorted(row["confidence"] for row in all_rows)[len(all_rows) // 2]

    confident = send(web, params={"conf": str(half)}).json()
    cells = send(web, data={**LOW, "classes": "cell"}).json()
    plates = send(web, params={**LOW, "classes": "1"}).json()

    assert 0 < len(confident) < len(all_rows) and min(row["confidence"] for row in confident) >= half - 1e-5
    assert {row["name"] for row in cells} <= {"cell"} and {row["name"] for row in plates} <= {"red plate"}
    assert len(send(web, data={**LOW, "iou": "0.9"}).json()) > len(
        send(web, data={**LOW, "iou": "0.1"}).json()
    )
    assert send(web, DETAILED, data={"imgsz": "96"}).json()["input"] == {"width": 96, "height": 96}


def test_a_higher_confidence_threshold_only_removes_rows(web: Any) -> None:
    """The page relies on it: it sends one request and filters when the slider moves."""
    all_rows = send(web, data=LOW).json()
    scores = sorted({row["confidence"] for row in all_rows})
    between = sum(scores[len(scores) // 2 :][:2]) / 2  # of two rows, as responses are rounded

    assert send(web, data={"conf": str(between)}).json() == [r for r in all_rows if r["confidence"] > between]


@pytest.mark.parametrize("how", [{"params": {"format": "image"}}, {"headers": {"Accept": "image/jpeg"}}])
def test_the_annotated_image_is_returned_on_request(web: Any, how: dict[str, Any]) -> None:
    response = send(web, data=LOW, **how)

    assert response.headers["content-type"] == "image/jpeg"
    drawn = cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_COLOR)
    assert drawn.shape == make_image().shape
    assert np.abs(drawn.astype(int) - make_image()).max() > 60


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_image_formats_are_recognized_by_content(web: Any, image_format: str) -> None:
    response = send(web, DETAILED, saved(make_image(), image_format))

    assert response.status_code == 200 and response.json()["size"] == {"width": 64, "height": 48}


def test_gray_16_bit_and_rotated_images_are_read(web: Any) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    sixteen = (make_image()[..., 0].astype(np.uint16) << 8) + 7

    assert send(web, content=encoded(sixteen)).status_code == 200
    assert send(web, content=encoded(make_image()[..., 0])).status_code == 200
    rotated = send(web, DETAILED, saved(make_image(), "JPEG", exif=exif)).json()
    assert rotated["size"] == {"width": 48, "height": 64}


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"GIF89a but not really", 415, "unknown format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "unknown format"),
        (b"", 422, "no image in its field"),
        (encoded(make_image())[:60], 415, "not an image that can be read"),
        (saved(np.zeros((1100, 1000), np.uint8), "PNG"), 413, "1000x1100 pixels; the limit is 1 megapixels"),
        (bytes(1_200_000), 413, "larger than 1 MB"),
    ],
)
def test_invalid_uploads_are_rejected_with_one_line(content: bytes, status: int, message: str) -> None:
    with client(max_megapixels=1, max_upload_mb=1) as web:
        response = send(web, content=content)

    assert response.status_code == status and message in response.json()["detail"]


def test_the_upload_limit_holds_while_streaming() -> None:
    """A client that sends no Content-Length and never ends is stopped at the limit."""
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        while sent < 50_000_000:
            sent += 100_000
            yield bytes(100_000)

    with client(max_upload_mb=0.5) as web:
        response = stream(web.app, endless())

    assert response == 413 and sent < 1_500_000


def stream(app: Any, chunks: Iterator[bytes]) -> int:
    """Send a body in chunks, as a server passes it on; return the status."""
    import asyncio

    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": next(chunks), "more_body": True}

    async def response(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)

    asyncio.run(app(scope_of(ROWS, b"multipart/form-data; boundary=x"), receive, response))
    return status


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"conf": "2"}, "conf=2: expected a number from 0 to 1"),
        ({"conf": "nan"}, "conf=nan"),
        ({"iou": "high"}, "iou=high"),
        ({"imgsz": "100000"}, "imgsz=100000: expected an integer from 32 to 1280"),
        ({"imgsz": "-64"}, "imgsz=-64"),
        ({"classes": "cell,5"}, "classes=5: expected numbers from 0 to 1 or class names"),
        ({"format": "gif"}, "format=gif: expected json, image or plain"),
        ({"confidence": "0.5"}, "unknown parameter 'confidence'"),
    ],
)
def test_invalid_parameters_are_named(web: Any, values: dict[str, str], message: str) -> None:
    for response in (send(web, params=values), send(web, data=values)):
        assert response.status_code == 422 and message in response.json()["detail"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data; boundary*=x; boundary*0=y", b"--x--"),
        (f"multipart/form-data; boundary={'b' * 300}", b"--"),
        (
            "multipart/form-data; boundary=x",
            b"--x\r\nContent-Disposition: form-data; name*=a; name*0=b\r\n\r\n1\r\n--x--\r\n",
        ),
    ],
)
def test_malformed_headers_are_rejected(web: Any, content_type: str, body: bytes) -> None:
    response = web.post(ROWS, content=body, headers={"Content-Type": content_type})
    assert response.status_code in (400, 415)
    assert "\n" not in response.json()["detail"]


def test_invalid_forms_are_rejected(web: Any) -> None:
    form = {"content-type": "multipart/form-data; boundary=x"}
    two = [("image", ("a", encoded(make_image()))), ("image", ("b", encoded(make_image())))]

    assert web.post(ROWS, content=encoded(make_image())).status_code == 415
    assert web.post(ROWS, content=b"nonsense", headers=form).status_code == 400
    assert (
        web.post(
            ROWS, content=b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nab', headers=form
        ).status_code
        == 400
    )
    assert web.post(ROWS, files=two).status_code == 400
    assert web.post(ROWS, files={"photo": ("a", b"x" * 5000)}).status_code == 400
    assert web.post(ROWS, files={"photo": ("a", b"x")}).status_code == 422
    many = [("classes", (None, "cell"))] * 20
    assert web.post(ROWS, files=many).status_code == 400
    assert web.get(ROWS).status_code == 405


def test_uploads_are_never_written_to_disk(web: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any) -> None:
        raise AssertionError("a file was written")

    monkeypatch.setattr("python_multipart.multipart.File.flush_to_disk", fail)

    assert send(web, content=saved(make_image(0, 1000, 1000), "BMP")).status_code == 200


@pytest.mark.parametrize("name", ["nope", "..%2f..%2fREADME.md", "%2e%2e"])
def test_unknown_models_and_files_are_not_found(web: Any, name: str) -> None:
    response = send(web, f"/v1/detect/{name}")

    assert response.status_code in (404, 405)
    assert web.get("/../page.py").status_code == web.get("/options.py").status_code == 404


def test_models_are_listed(web: Any) -> None:
    info = web.get("/v1/models").json()

    assert [model["name"] for model in info["models"]] == ["tiny", "other"]
    assert info["models"][0]["classes"][1] == {"class": 1, "name": "red plate", "color": "#0bdbeb"}
    assert info["limits"]["upload_mb"] == 16 and info["defaults"]["conf"] == 0.25
    assert str(checkpoint()) not in web.get("/v1/models").text, "paths of the server stay private"


def test_the_key_protects_everything_but_health_and_page() -> None:
    with client(api_key="s3cret \u00e4") as web:
        right = {"X-API-Key": "s3cret \u00e4".encode()}
        for path in ("/v1/models", "/metrics"):
            assert web.get(path).status_code == web.get(path, headers={"X-API-Key": "s3"}).status_code == 401
            assert web.get(path, headers=right).status_code == 200
        assert send(web).status_code == 401 and send(web, headers=right).status_code == 200
        assert {web.get(path).status_code for path in ("/health", "/ready", "/", "/page.js")} == {200}


def test_pages_of_other_sites_cannot_use_a_server_without_a_key(web: Any) -> None:
    assert web.get("/v1/models", headers={"Origin": "http://evil.example"}).status_code == 403
    assert web.get("/v1/models", headers={"Origin": "http://testserver"}).status_code == 200
    proxied = {"Origin": "https://cells.example", "X-Forwarded-Host": "cells.example"}
    assert web.get("/v1/models", headers=proxied).status_code == 200


def test_a_local_server_rejects_other_host_names() -> None:
    service = InferenceService(load_models(options(), metrics := Metrics()), options(), metrics)
    with TestClient(make_app(service, local=True)) as web:
        for host, status in (
            ("127.0.0.1:5000", 200),
            ("localhost", 200),
            ("[::1]:80", 200),
            ("evil.example", 403),
        ):
            assert web.get("/v1/models", headers={"Host": host}).status_code == status, host


def test_metrics_count_requests_by_model_and_status() -> None:
    with client(max_wait_ms=0) as web:
        for _ in range(3):
            send(web)
        send(web, params={"conf": "7"})
        send(web, "/v1/detect/made-up")
        response = web.get("/metrics")
        lines = response.text.splitlines()

    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "# TYPE yolov5_requests_total counter" in lines
    assert 'yolov5_requests_total{model="tiny",status="200"} 3.0' in lines
    assert 'yolov5_requests_total{model="tiny",status="422"} 1.0' in lines
    assert 'yolov5_requests_total{model="",status="404"} 1.0' in lines
    assert 'yolov5_request_seconds_bucket{le="+Inf",model="tiny"} 3.0' in lines
    assert 'yolov5_batch_size_sum{model="tiny"} 3.0' in lines
    assert 'yolov5_queue_length{model="other"} 0.0' in lines
    assert not any("_created" in line for line in lines)


def test_readiness_ends_with_the_service() -> None:
    with client() as web:
        assert web.get("/ready").json() == {"ready": True}
        web.service.close()
        assert web.get("/ready").status_code == 503 and web.get("/health").status_code == 200
        refused = send(web)
        assert refused.status_code == 503 and refused.headers["retry-after"] == "1"


def test_the_page_and_the_docs_load_nothing_from_other_sites(web: Any) -> None:
    page = web.get("/")
    policy = page.headers["content-security-policy"]

    assert page.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for path in ("/", "/page.js", "/page.css"):
        assert "http://" not in web.get(path).text and "https://" not in web.get(path).text
    paths = web.get("/docs").json()["paths"]
    assert "multipart/form-data" in paths["/v1/detect/{model}"]["post"]["requestBody"]["content"]


def test_a_model_that_fails_is_a_500_and_the_next_request_is_served(
    web: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = web.service.models["tiny"]
    with monkeypatch.context() as patch:
        patch.setattr(model, "backend", Broken(model.backend))
        response = send(web)

    assert response.status_code == 500 and "memory" not in response.text
    assert send(web).status_code == 200


def test_exported_models_are_served_at_their_fixed_size() -> None:
    from tests.models.backends.files import exported

    file = exported("torchscript")
    chosen = options(weights=[str(file)], imgsz=640, device="cpu")
    service = InferenceService(load_models(chosen, Metrics()), chosen, Metrics())
    with TestClient(make_app(service)) as web:
        path = f"/v1/detect/{file.stem}"
        response = send(web, path, encoded(make_image(1, 90, 120)), data=LOW)
        wrong = send(web, path, data={"imgsz": "96"})

    assert response.json()["input"] == {"width": SIDE, "height": SIDE} and response.json()["detections"]
    assert wrong.status_code == 422 and f"{SIDE}, the only input size" in wrong.json()["detail"]


def test_damaged_forms_never_cause_a_server_error(web: Any) -> None:
    """Any byte sequence is answered with a 4xx status."""
    random = np.random.default_rng(0)
    good = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nabc\r\n--x--\r\n'
    types = [
        "multipart/form-data; boundary=x",
        "multipart/form-data; boundary*=utf-8''%e2%82%ac",
        "multipart/;;=",
    ]
    for attempt in range(300):
        body = bytearray(good)
        for _ in range(random.integers(1, 6)):
            body[random.integers(len(body))] = random.integers(256)
        response = web.post(ROWS, content=bytes(body), headers={"content-type": types[attempt % 7 // 5]})
        assert response.status_code in (400, 415, 422), body
    assert web.post(ROWS, content=good, headers={"content-type": types[2]}).status_code == 415


class Broken:
    """A backend that runs out of memory."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def __call__(self, images: Any) -> Any:
        raise RuntimeError("out of memory")
