"""Classification models: the five most probable classes, beside detectors, in batches, of exported files."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
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

from classify import predict
from models.backends import load_backend
from models.weights import (
    Ensemble,
    build_model,
    load_for_inference,
    model_record,
    read_checkpoint,
    save_checkpoint,
)
from serve.app import make_app
from serve.middleware import Metrics
from serve.models import load_models, make_model
from serve.serve_options import ServeOptions
from serve.service import InferenceService
from tests.models.backends.files import CPU, SIDE, checkpoint
from tests.models.classifier import NAMES, classifier
from tests.serve.service import client, encoded, make_image, options, saved
from utils.base.errors import ConfigError
from utils.base.options import options_from
from utils.export import export_function
from utils.export.export_settings import ExportSettings
from utils.tasks.task import get_task

ROWS, DETAILED = "/v1/image-classification/tiny", "/v1/classify/tiny"
KEYS = ["confidence", "class", "name"]
IMAGE = make_image(1, 90, 120)


@pytest.fixture(scope="module")
def web() -> Iterator[Any]:
    """A client of a service with the classifier `tiny` and the detector `other`, that waits for no batch."""
    with client(weights=[str(classifier()), str(checkpoint())], max_wait_ms=0) as opened:
        yield opened


def send(web: Any, path: str = ROWS, image: np.ndarray = IMAGE, **more: Any) -> Any:
    return web.post(path, files={"image": ("a.png", encoded(image))}, **more)


def image_of(response: Any) -> np.ndarray:
    assert response.headers["content-type"] == "image/jpeg"
    return cv2.imdecode(np.frombuffer(response.content, np.uint8), cv2.IMREAD_COLOR)


def as_jpeg(image: np.ndarray) -> np.ndarray:
    """Return an image as it is after the server has encoded it."""
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])[1], cv2.IMREAD_COLOR)


def directly(image: np.ndarray, side: int = SIDE) -> torch.Tensor:
    """Return the probabilities of an image, from the transform of the task."""
    batch = get_task("classify").prepare_image(image, (side, side))
    with torch.inference_mode():
        return torch.as_tensor(load_for_inference(classifier(), CPU)(batch).softmax(1)[0])


def predicted(weights: Path, image: np.ndarray, folder: Path) -> list[dict[str, Any]]:
    """Return what classify/predict.py writes for an image, as rows of the server."""
    source = folder / "a.png"
    source.write_bytes(encoded(image))
    predict.run(
        weights=str(weights), source=str(source), imgsz=SIDE, save_csv=True, project=str(folder), device="cpu"
    )
    with (folder / "exp" / "predictions.csv").open(newline="") as file:
        return [
            dict(zip(KEYS, (float(row["Probability"]), int(row["Class"]), row["Prediction"]), strict=True))
            for row in csv.DictReader(file)
        ]


# ---- responses


@pytest.mark.parametrize("size", [(90, 120), (70, 31), (64, 64), (1, 40)])
def test_rows_are_what_the_predict_script_writes(web: Any, size: tuple[int, int], tmp_path: Path) -> None:
    image = make_image(1, *size)
    rows = send(web, image=image).json()

    assert len(rows) == 5 and all(list(row) == KEYS and row["name"] == NAMES[row["class"]] for row in rows)
    assert rows == predicted(classifier(), image, tmp_path)


def test_details_contain_sizes_and_times_but_no_thresholds(web: Any) -> None:
    details = send(web, DETAILED).json()

    assert list(details) == ["model", "size", "input", "batch", "times_ms", "classifications"]
    assert details["size"] == {"width": 120, "height": 90}
    assert details["input"] == {"width": SIDE, "height": SIDE}
    assert details["model"] == "tiny" and details["batch"] == 1
    assert set(details["times_ms"]) == {"decode", "queue", "inference", "total"}
    assert details["classifications"] == send(web).json()


def test_the_input_size_can_be_any(web: Any) -> None:
    details = send(web, DETAILED, data={"imgsz": "45"}).json()

    assert details["input"] == {"width": 45, "height": 45}
    found = {row["class"]: row["confidence"] for row in details["classifications"]}
    expected = directly(IMAGE, 45)
    assert list(found) == expected.topk(5).indices.tolist()
    assert found == pytest.approx({index: float(expected[index]) for index in found}, rel=1e-5)


@pytest.mark.parametrize("how", [{"params": {"format": "image"}}, {"headers": {"Accept": "image/jpeg"}}])
def test_the_annotated_image_is_that_of_the_predict_script(
    web: Any, how: dict[str, Any], tmp_path: Path
) -> None:
    large = make_image(1, 300, 400)
    drawn = image_of(send(web, image=large, **how))
    predicted(classifier(), large, tmp_path)
    expected = cv2.imread(str(tmp_path / "exp" / "a.png"))

    assert drawn.shape == large.shape
    assert np.abs(drawn.astype(int) - large).max() > 100, "there is text on it"
    np.testing.assert_array_equal(drawn, as_jpeg(expected))


@pytest.mark.parametrize("path", [DETAILED, "/v1/detect/other"])
def test_the_plain_image_has_nothing_on_it(web: Any, path: str) -> None:
    tiff = saved(IMAGE[..., ::-1], "TIFF")
    response = web.post(path, files={"image": tiff}, data={"format": "plain"})
    np.testing.assert_array_equal(image_of(response), as_jpeg(IMAGE))


def test_fewer_than_five_classes_are_all_returned() -> None:
    backend = load_backend(classifier(), CPU)
    chosen = options(weights=[str(classifier())], max_wait_ms=0)
    model = make_model("tiny", backend, chosen, Metrics(), SIDE)
    backend.names = {0: "a", 1: "b"}
    model.backend = FirstTwo(backend)
    task = model.prepare(IMAGE, model.read_params({}, ""))
    result, _ = model.batcher.submit(task, 0).result()
    model.batcher.close()

    rows = result.rows(backend.names)
    assert {row["name"] for row in rows} == {"a", "b"}
    assert sum(row["confidence"] for row in rows) == pytest.approx(1, abs=1e-5)


class FirstTwo:
    """A backend that knows the first two classes of another only."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def __call__(self, images: Any) -> Any:
        return self._backend(images)[:, :2]


# ---- parameters and routes


@pytest.mark.parametrize("parameter", ["conf", "iou", "classes", "masks"])
def test_parameters_of_boxes_are_refused(web: Any, parameter: str) -> None:
    expected = f"{parameter} applies to boxes, and tiny is a classification model; expected imgsz, format"
    for how in ({"data": {parameter: "0.5"}}, {"params": {parameter: "0.5"}}):
        response = send(web, **how)
        assert response.status_code == 422 and response.json()["detail"] == expected
    assert send(web, data={parameter: ""}).status_code == 200


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"top": "3"}, "unknown parameter 'top'; expected imgsz, format"),
        ({"imgsz": "8"}, "imgsz=8: expected an integer from 32 to 1280"),
        ({"format": "gif"}, "format=gif: expected json, image or plain"),
    ],
)
def test_invalid_parameters_are_named(web: Any, values: dict[str, str], message: str) -> None:
    response = send(web, params=values)
    assert response.status_code == 422 and response.json()["detail"] == message


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/v1/detect/tiny", "tiny is a classification model: use /v1/classify/tiny"),
        ("/v1/object-detection/tiny", "tiny is a classification model: use /v1/image-classification/tiny"),
        ("/v1/classify/other", "other is a detection model: use /v1/detect/other"),
        ("/v1/image-classification/other", "other is a detection model: use /v1/object-detection/other"),
    ],
)
def test_a_route_of_another_task_names_the_right_one(web: Any, path: str, message: str) -> None:
    response = send(web, path)
    assert response.status_code == 404 and response.json()["detail"] == message
    assert send(web, message.rpartition(" ")[2]).status_code == 200


def test_the_openapi_description_and_the_list_of_models_have_both_kinds(web: Any) -> None:
    one, other = web.get("/v1/models").json()["models"]
    paths = web.get("/openapi.json").json()["paths"]
    operation = paths["/v1/classify/{model}"]["post"]
    result = operation["responses"]["200"]["content"]["application/json"]["schema"]

    assert (one["task"], one["path"]) == ("classify", "v1/classify/tiny")
    assert (other["task"], other["path"]) == ("detect", "v1/detect/other")
    assert [entry["name"] for entry in one["classes"]] == [*NAMES.values()]
    assert [parameter["name"] for parameter in operation["parameters"][-2:]] == ["imgsz", "format"]
    assert [*result["properties"]["classifications"]["items"]["properties"]] == KEYS
    assert "conf" not in result["properties"]
    assert "conf" in str(paths["/v1/detect/{model}"]["post"]["parameters"])


# ---- several models, batches, metrics


def test_a_detector_and_a_classifier_process_requests_at_the_same_time(web: Any) -> None:
    paths = [DETAILED, "/v1/detect/other"] * 4
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda path: send(web, path).json(), paths))

    assert all(one["classifications"] == send(web).json() for one in answers[::2])
    assert all("detections" in other for other in answers[1::2])


def test_batches_give_the_results_of_single_requests(web: Any) -> None:
    """Requests for rows and for annotated images share their batches, and images may have any sizes."""
    images = [make_image(k, 48 + 9 * k, 100 - 7 * k) for k in range(8)]
    wanted = [{}, {"format": "image"}] * 4
    alone = [send(web, image=image, data=data) for image, data in zip(images, wanted, strict=True)]
    with (
        client(weights=[str(classifier())] * 2, max_wait_ms=1000, max_batch=4) as batching,
        ThreadPoolExecutor(8) as pool,
    ):
        together = list(pool.map(lambda image, data: send(batching, image=image, data=data), images, wanted))
        metrics = batching.get("/metrics").text

    assert 'yolov5_batch_size_sum{model="tiny"} 8.0' in metrics
    assert 'yolov5_batch_size_bucket{le="1.0",model="tiny"} 8.0' not in metrics
    assert 'yolov5_requests_total{model="tiny",status="200"} 8.0' in metrics
    for one, other, data in zip(alone, together, wanted, strict=True):
        if data:
            assert np.abs(image_of(one).astype(int) - image_of(other)).mean() < 1
            continue
        assert [row["class"] for row in one.json()] == [row["class"] for row in other.json()]
        scores = [row["confidence"] for row in one.json()]
        assert [row["confidence"] for row in other.json()] == pytest.approx(scores, rel=1e-4)


# ---- exported files


@pytest.mark.parametrize("file_format", ["torchscript", "onnx"])
def test_exported_classifiers_are_served_at_their_size(file_format: str, tmp_path: Path) -> None:
    if file_format == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    file = export(file_format, tmp_path)
    with client(weights=[str(file)] * 2, imgsz=320, max_wait_ms=0) as web:
        rows = send(web).json()
        wrong = send(web, data={"imgsz": "96"})
        assert web.get("/v1/models").json()["models"][0]["imgsz"] == SIDE

    assert rows == predicted(file, IMAGE, tmp_path)
    scores = directly(IMAGE)[[row["class"] for row in rows]]
    assert [row["confidence"] for row in rows] == pytest.approx(scores.tolist(), rel=1e-3)
    assert wrong.status_code == 422 and f"{SIDE}, the only input size" in wrong.json()["detail"]


def export(file_format: str, folder: Path, side_hw: tuple[int, int] = (SIDE, SIDE)) -> Path:
    """Export the classifier for one image of that size."""
    network = load_for_inference(classifier(), CPU)
    assert not isinstance(network, Ensemble)
    suffix = {"onnx": ".onnx", "torchscript": ".torchscript"}[file_format]
    file = folder / f"tiny-cls{suffix}"
    settings = ExportSettings(stride=32, names=NAMES, include=[file_format], task="classify")
    export_function(file_format)(network, torch.zeros(1, 3, *side_hw), file, settings)
    return file


def test_an_exported_classifier_must_take_squares(tmp_path: Path) -> None:
    file = export("torchscript", tmp_path, (64, 96))
    with pytest.raises(ConfigError, match=r"tiny-cls.torchscript takes images of 64x96, expected a square"):
        load_models(options(weights=[str(file)], device="cpu"), Metrics())


# ---- options


def load(**changes: Any) -> dict[str, Any]:
    chosen = options_from(ServeOptions, {"device": "cpu", **changes})
    models = load_models(chosen, Metrics())
    for model in models.values():
        model.batcher.close()
    return models


def test_each_task_has_its_own_default_size() -> None:
    weights = [str(classifier()), str(checkpoint())]

    assert [model.imgsz for model in load(weights=weights).values()] == [224, 640]
    assert [model.imgsz for model in load(weights=weights, imgsz=64).values()] == [64, 64]
    assert [model.imgsz for model in load(weights=weights, imgsz=[28, 96]).values()] == [28, 96]
    with pytest.raises(ConfigError, match="--imgsz 1 2 3: expected one size, or one for each of 2 models"):
        load(weights=weights, imgsz=[1, 2, 3])


@pytest.mark.parametrize(("imgsz", "served"), [(96, 96), (9999, 224), (-1, 224), ("96", 224), (None, 224)])
def test_the_default_size_of_a_classifier_is_that_of_its_training(
    imgsz: Any, served: int, tmp_path: Path
) -> None:
    content = {"model": model_record(build_model(read_checkpoint(classifier())), half=False)}
    file = tmp_path / "trained.pt"
    save_checkpoint(file, content | {"opt": {"imgsz": imgsz}})

    assert load(weights=[str(file)])["trained"].imgsz == served
    assert load(weights=[str(file)], imgsz=64)["trained"].imgsz == 64


def test_a_default_below_the_least_size_of_requests_is_accepted() -> None:
    chosen = options(weights=[str(classifier())], imgsz=28, device="cpu", max_wait_ms=0)
    service = InferenceService(load_models(chosen, Metrics()), chosen, Metrics())
    with TestClient(make_app(service)) as web:
        response = send(web, f"/v1/classify/{classifier().stem}")

    assert response.json()["input"] == {"width": 28, "height": 28}


@pytest.mark.parametrize("option", ["conf_thres", "iou_thres", "max_det"])
def test_flags_of_boxes_need_a_model_with_boxes(option: str) -> None:
    changes = {option: 1}
    expected = f"--{option.replace('_', '-')} applies to boxes, and all models are classifiers: leave it out"
    with pytest.raises(ConfigError, match=expected):
        load(weights=[str(classifier())], **changes)
    assert len(load(weights=[str(classifier()), str(checkpoint())], **changes)) == 2
