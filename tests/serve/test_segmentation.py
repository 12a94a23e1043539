"""Segmentation models: polygons and run lengths of the masks, drawn masks, batches."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("fastapi", reason="pip install fastapi httpx prometheus-client python-multipart uvicorn")
pytest.importorskip("prometheus_client")
pytest.importorskip("python_multipart")
pytest.importorskip("httpx")

from models.backends import load_backend
from models.weights import load_for_inference, model_record, save_checkpoint
from models.yolo import DetectionModel, make_model
from tests.known import SHARED, fill, needs_shared
from tests.models.backends.files import CPU, NAMES, SIDE, example
from tests.serve.service import LOW, client, encoded, make_image
from utils.data.letterbox import letterbox, to_tensor
from utils.export import export_function
from utils.export.export_settings import ExportSettings
from utils.ops.nms import non_max_suppression
from utils.plots.annotator import blend_masks
from utils.tasks.segment import prediction
from utils.tasks.segment.polygons import decode_rle
from utils.tasks.segment.prediction import FrameMasks

KEYS = ["xmin", "ymin", "xmax", "ymax", "confidence", "class", "name"]
ROWS, DETAILED = "/v1/object-detection/tiny", "/v1/detect/tiny"
IMAGE = make_image(1, 90, 120)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small segmentation model with random weights; some of its masks are empty."""
    model = make_model("yolov5n-seg.yaml", nc=len(NAMES))
    fill(model, 1)
    model.names = dict(NAMES)
    path = tmp_path_factory.mktemp("segmentation") / "tiny-seg.pt"
    save_checkpoint(path, {"model": model_record(model)})
    return path


@pytest.fixture(scope="module")
def web(weights: Path) -> Iterator[Any]:
    """A client of a service with this model, as `tiny` and as `other`, that does not wait for batches."""
    with client(weights=[str(weights)] * 2, max_wait_ms=0) as opened:
        yield opened


def send(web: Any, path: str = ROWS, image: np.ndarray = IMAGE, **data: str) -> Any:
    return web.post(path, files={"image": ("a.png", encoded(image))}, data={**LOW, **data})


def masks_directly(weights: Path) -> FrameMasks:
    """Return the masks of `IMAGE` at low confidences."""
    boxed = letterbox(IMAGE, SIDE)[0]
    with torch.inference_mode():
        decoded, protos = load_backend(weights, CPU)(to_tensor([boxed], CPU))
        (rows,) = non_max_suppression(decoded, float(LOW["conf"]), 0.45, max_det=300, nm=protos.shape[1])
        return FrameMasks.of(protos[0], rows, boxed.shape[:2], np.zeros((len(rows), 4)), IMAGE.shape[:2])


def test_rows_contain_the_polygons_of_the_masks_in_pixels(web: Any, weights: Path) -> None:
    rows = send(web).json()
    expected = [points * (120, 90) for points in masks_directly(weights).polygons()]

    assert len(rows) == len(expected) > 0 and all(list(row) == [*KEYS, "polygon"] for row in rows)
    for row, points in zip(rows, expected, strict=True):
        np.testing.assert_allclose(np.reshape(row["polygon"], (-1, 2)), points, atol=0.01)
    assert {bool(row["polygon"]) for row in rows} == {True, False}, "an empty mask has no points"
    assert send(web, DETAILED).json()["detections"] == rows == send(web, masks="polygon").json()


def test_run_lengths_are_the_masks_at_the_size_of_the_image(web: Any, weights: Path) -> None:
    rows = send(web, masks="rle").json()

    assert all(list(row) == [*KEYS, "rle"] and row["rle"]["size"] == [90, 120] for row in rows)
    masks = np.array([decode_rle(row["rle"]) for row in rows])
    assert masks.any()
    np.testing.assert_array_equal(masks, masks_directly(weights).on_image().astype(bool))


def test_masks_can_be_left_out(web: Any) -> None:
    with_polygons, without = send(web, DETAILED).json(), send(web, DETAILED, masks="none").json()

    for row in with_polygons["detections"]:
        del row["polygon"]
    assert without["detections"] == with_polygons["detections"]
    stages = {"decode", "queue", "inference", "nms", "total"}
    assert set(without["times_ms"]) == stages and set(with_polygons["times_ms"]) == stages | {"masks"}


def test_invalid_mask_formats_are_named(web: Any) -> None:
    response = send(web, masks="png")
    assert response.status_code == 422
    assert response.json()["detail"] == "masks=png: expected none, polygon or rle"


def test_detection_models_have_no_masks() -> None:
    with client(max_wait_ms=0) as web:
        plain = send(web)
        for mask_format in ("polygon", "rle"):
            response = send(web, masks=mask_format)
            assert response.status_code == 422
            expected = f"masks={mask_format}: expected none, as this model has no masks"
            assert response.json()["detail"] == expected
        assert plain.json() and plain.content == send(web, masks="none").content
        assert web.get("/v1/models").json()["models"][0]["task"] == "detect"


def test_models_and_the_openapi_description_name_task_and_masks(web: Any) -> None:
    assert web.get("/v1/models").json()["models"][0]["task"] == "segment"
    operation = web.get("/openapi.json").json()["paths"]["/v1/detect/{model}"]["post"]
    by_name = {parameter["name"]: parameter["schema"] for parameter in operation["parameters"]}
    content = operation["responses"]["200"]["content"]["application/json"]["schema"]

    assert by_name["masks"] == {"type": "string", "enum": ["none", "polygon", "rle"]}
    assert {"polygon", "rle"} < set(content["properties"]["detections"]["items"]["properties"])


def test_annotated_images_show_the_masks(web: Any) -> None:
    """A pixel is half of the image or less where it is inside of masks and not below a box."""
    white = np.full((90, 120, 3), 255, np.uint8)
    rows = send(web, image=white, conf="0.3", masks="rle").json()
    covered = np.any([decode_rle(row["rle"]) for row in rows], axis=0)
    with_masks = image_of(send(web, image=white, conf="0.3", format="image"))
    with_boxes = image_of(send(web, image=white, conf="0.3", format="image", masks="none"))
    still_white = covered & (with_boxes.min(2) > 250)

    assert still_white.any() and with_masks[still_white].min(1).mean() < 140
    # JPEG mixes neighbours in blocks of 16 pixels.
    elsewhere = cv2.dilate(covered.astype(np.uint8), np.ones((37, 37))) == 0
    assert elsewhere.any()
    np.testing.assert_array_equal(with_masks[elsewhere], with_boxes[elsewhere])


def image_of(response: Any) -> np.ndarray:
    assert response.headers["content-type"] == "image/jpeg"
    return cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_COLOR)


def test_results_of_batches_equal_those_of_single_requests(web: Any, weights: Path) -> None:
    """Requests for polygons, run lengths, no masks and annotated images share their batches."""
    wanted = [{"masks": "polygon"}, {"masks": "rle"}, {"masks": "none"}, {"format": "image"}] * 2
    requests = [(make_image(k, 48, 64), {"conf": "0.25", **more}) for k, more in enumerate(wanted)]
    alone = [send(web, DETAILED, image, **data) for image, data in requests]
    with (
        client(weights=[str(weights)] * 2, max_wait_ms=1000, max_batch=4) as batching,
        ThreadPoolExecutor(8) as pool,
    ):
        together = list(pool.map(lambda one: send(batching, DETAILED, one[0], **one[1]), requests))
        sizes = batching.get("/metrics").text

    assert 'yolov5_batch_size_sum{model="tiny"} 8.0' in sizes
    assert 'yolov5_batch_size_bucket{le="1.0",model="tiny"} 8.0' not in sizes
    for one, other, data in zip(alone, together, wanted, strict=True):
        assert one.status_code == other.status_code == 200
        if "format" in data:
            assert np.abs(image_of(one).astype(int) - image_of(other)).mean() < 1
            continue
        pairs = zip(one.json()["detections"], other.json()["detections"], strict=True)
        for a, b in pairs:
            assert list(a) == list(b) and a["class"] == b["class"]
            if "polygon" in a:
                difference = area(a["polygon"]) - area(b["polygon"])
                assert abs(difference) <= 2, "the last digits of floats may change a pixel"


def area(polygon: list[list[float]]) -> float:
    return float(cv2.contourArea(np.array(polygon, np.float32))) if polygon else 0.0


def test_exported_segmentation_models_are_served(weights: Path, tmp_path: Path) -> None:
    model = load_for_inference(weights, CPU)
    assert isinstance(model, DetectionModel)
    model.head.export = True
    file = tmp_path / "tiny-seg.torchscript"
    settings = ExportSettings(stride=32, names=NAMES, include=["torchscript"], task="segment")
    export_function("torchscript")(model, example(), file, settings)
    with client(weights=[str(file)] * 2, max_wait_ms=0) as web:
        rows = send(web).json()
        runs = send(web, masks="rle").json()

    assert any(row["polygon"] for row in rows) and len(rows) == len(runs)
    assert any(decode_rle(row["rle"]).any() for row in runs)


# ---- the masks of one image


def make_source(n: int = 9, image_hw: tuple[int, int] = (50, 70)) -> FrameMasks:
    """Make n objects with random smooth masks in random boxes, and one with an empty mask."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 4, 3, 4, generator=random)
    protos = torch.nn.functional.interpolate(coarse, (12, 16), mode="bicubic")[0]
    corners = torch.rand(n, 2, generator=random) * 20
    sizes = torch.rand(n, 2, generator=random) * 30 + 8
    coefficients = 4 * torch.randn(n, 4, generator=random)
    coefficients[0] = 0
    rows = torch.cat((corners, corners + sizes, torch.ones(n, 2), coefficients), 1)
    return FrameMasks(protos, rows, (48, 64), image_hw)


def tints(source: FrameMasks) -> list[tuple[int, int, int]]:
    return [(25 * k, 255 - 25 * k, 9 * k) for k in range(len(source.rows))]


def test_blocks_do_not_change_the_results(monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_source()
    image = make_image(0, 50, 70)
    whole = image.copy()
    polygons, runs = source.polygons(), source.run_lengths()
    source.blend(whole, tints(source))
    monkeypatch.setattr(prediction, "BLOCK_PIXELS", 2 * 50 * 70)
    monkeypatch.setattr(prediction, "_STRIP", 7 * 70)
    in_strips = image.copy()
    source.blend(in_strips, tints(source))

    assert len(polygons[0]) == 0 and any(map(len, polygons))
    assert all(map(np.array_equal, source.polygons(), polygons))
    assert source.run_lengths() == runs
    masks = np.array([decode_rle(run) for run in runs])
    blend_masks(image, masks, tints(source))
    np.testing.assert_array_equal(whole, image)
    np.testing.assert_array_equal(in_strips, image)


def test_masks_that_do_not_fit_into_a_block_are_blended_one_after_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = make_source()
    image = make_image(0, 50, 70)
    expected = image.copy()
    masks = np.array([decode_rle(run) for run in source.run_lengths()])
    for mask, tint in reversed(list(zip(masks, tints(source), strict=True))):
        blend_masks(expected, mask[None], [tint])
    monkeypatch.setattr(prediction, "_DRAWN_BLOCK", 1)
    source.blend(image, tints(source))

    np.testing.assert_array_equal(image, expected)


def test_the_memory_of_masks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 masks of an image with 50 megapixels would take 15 GB."""
    made: list[int] = []

    def make(protos: Tensor, coefficients: Tensor, *more: Any, **options: Any) -> Tensor:
        made.append(len(coefficients))
        return torch.zeros(len(coefficients), 48, 64, dtype=torch.bool)

    monkeypatch.setattr(prediction, "process_mask", make)
    source = make_source(300, (7000, 7000))
    assert len(source.polygons()) == 300
    assert made == [1] * 300


def test_an_image_without_objects_has_no_masks() -> None:
    source = make_source(1)
    empty = FrameMasks(source.protos, source.rows[:0], source.input_hw, source.image_hw)
    image = make_image(0, 50, 70)
    unchanged = image.copy()
    empty.blend(image, [])

    assert empty.polygons() == empty.run_lengths() == []
    np.testing.assert_array_equal(image, unchanged)


# ---- a model of the original


@needs_shared
@pytest.mark.skipif(
    not (SHARED / "weights/nuclei-seg.pt").is_file(), reason="../shared/weights/nuclei-seg.pt is absent"
)
def test_a_model_of_the_original_finds_its_polygons() -> None:
    """Compared as masks with the label files that segment/predict.py of the original wrote."""
    import json

    known = json.loads((SHARED / "fixtures/14_segment_predict.json").read_text())["input_size_masks"]
    weights = str(SHARED / "weights/nuclei-seg.pt")
    assert known
    with client(weights=[weights] * 2, imgsz=256, max_wait_ms=0) as web:
        for name, lines in known.items():
            image = cv2.imread(str(SHARED / f"data/nuclei/images/val/{name}.jpg"))
            rows = send(web, image=image, conf="0.25").json()
            found = [row for row in rows if row["polygon"]]
            expected = sorted(lines, key=lambda line: -line[-1])
            scores = [line[-1] for line in expected]
            assert [row["confidence"] for row in found] == pytest.approx(scores, abs=2e-3)
            for row, line in zip(found, expected, strict=True):
                size = np.array(image.shape[1::-1])
                ours = filled(np.array(row["polygon"]), image)
                theirs = filled(np.reshape(line[1:-1], (-1, 2)) * size, image)
                assert row["class"] == line[0]
                assert (ours & theirs).sum() / (ours | theirs).sum() > 0.97, name


def filled(polygon: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return the mask (H, W) bool of a polygon in pixels."""
    mask = np.zeros(image.shape[:2], np.uint8)
    cv2.fillPoly(mask, [(polygon + 0.01).astype(np.int32)], 1)  # of 9.99 and of 10
    return mask.astype(bool)
