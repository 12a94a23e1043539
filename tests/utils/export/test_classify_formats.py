"""Classifiers in other formats: logits of PyTorch, names in the file, and the same results in the scripts."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from classify import predict, train, val
from models.backends import load_backend
from tests.utils.export.test_every_format import RUN_HERE, exported
from utils.base.errors import ConfigError
from utils.base.formats import FORMATS
from utils.data.class_folders import read_class_data
from utils.data.shards.pack import pack_dataset
from utils.tasks.classify.validation import ClassifyResult
from utils.tasks.task import get_task

CPU = torch.device("cpu")
NAMES = dict(enumerate(["a, 'b'", "blue", "grass green", "rød", "{x}", "猫"]))
SIDE = 40
CONFIG: dict[str, Any] = {
    "nc": len(NAMES),
    "depth_multiple": 1.0,
    "width_multiple": 0.25,
    "backbone": [[-1, 1, "Conv", [32, 6, 4, 2]], [-1, 1, "C3", [64]], [-1, 1, "LSKA", [7]]],
    "head": [[-1, 1, "Classify", ["nc"]]],
}
SLOW = {"pt2": [pytest.mark.slow]}  # it is compiled
FILES = [pytest.param(name, marks=SLOW.get(name, ())) for name in ("torchscript", "onnx", *RUN_HERE)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained classifier, images of each class below `set`, and a space in its name."""
    folder, draw = tmp_path_factory.mktemp("all formats"), np.random.default_rng(0)
    for number, name in NAMES.items():
        for split in ("train", "val"):
            (folder / "set" / split / name).mkdir(parents=True)
            for index in range(3):
                image = draw.integers(0, 100, (SIDE, SIDE + 10 * index, 3), dtype=np.uint8)
                image[..., number % 3] += np.uint8(75 + 75 * (number // 3))
                cv2.imencode(".png", image)[1].tofile(folder / "set" / split / name / f"{index}.png")
    (folder / "tiny-cls.yaml").write_text(yaml.safe_dump(CONFIG))
    made = train.run(
        model="", cfg=folder / "tiny-cls.yaml", data=folder / "set", imgsz=SIDE, epochs=12, batch_size=6,
        lr0=0.01, device="cpu", workers=0, noaugment=True, noplots=True, project=folder / "runs",
    )  # fmt: skip
    shutil.copy(str(made.last), folder / "tiny.pt")
    return folder


def logits_of(weights: Path, folder: Path, side: int = SIDE) -> torch.Tensor:
    """Return the logits of an image of each class."""
    backend, found = load_backend(weights, CPU), []
    assert backend.task == "classify" and backend.names == NAMES
    for name in NAMES.values():
        image = cv2.imdecode(np.fromfile(folder / "set/val" / name / "1.png", np.uint8), cv2.IMREAD_COLOR)
        with torch.inference_mode():
            found.append(backend(get_task("classify").prepare_image(image, (side, side))))
    return torch.cat(found)


def measured(weights: Path, folder: Path, side: int = SIDE, **more: Any) -> ClassifyResult:
    return val.run(
        weights=weights, data=folder / "set", imgsz=side, batch_size=4, device="cpu", workers=0,
        project=folder / "runs", **more,
    )  # fmt: skip


def predicted(weights: Path, folder: Path, side: int = SIDE, **more: Any) -> list[list[str]]:
    """Return image, rank, class and name of each row that classify/predict.py writes."""
    summary = predict.run(
        weights=weights, source=folder / "set/val/*/*.png", imgsz=side, device="cpu", save_csv=True,
        nosave=True, project=folder / "runs", **more,
    )  # fmt: skip
    with (summary.save_dir / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return [row[:4] for row in csv.reader(file)][1:]


def assert_same_results(weights: Path, folder: Path, side: int = SIDE) -> None:
    result, expected = (measured(each, folder, side) for each in (weights, folder / "tiny.pt"))
    assert (result.top1, result.top5, result.seen) == (expected.top1, expected.top5, 18)
    rows = predicted(weights, folder, side)
    assert rows == predicted(folder / "tiny.pt", folder, side) and len(rows) == 5 * 18
    assert len({tuple(row[2:]) for row in rows if row[1] == "1"}) > 1, "images are of different classes"


def assert_same_logits(weights: Path, folder: Path, side: int = SIDE) -> None:
    logits, expected = (logits_of(each, folder, side) for each in (weights, folder / "tiny.pt"))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_logits_of_pytorch_and_the_scripts_give_its_results(folder: Path, name: str) -> None:
    report = exported(folder, name, imgsz=SIDE)
    assert report.error == "" and report.file == folder / f"tiny{FORMATS[name].ending()}"
    assert_same_logits(report.file, folder)
    assert_same_results(report.file, folder)


def test_a_dynamic_file_takes_any_size_and_batch(folder: Path) -> None:
    report = exported(folder, "onnx", imgsz=SIDE, dynamic=True)
    assert report.error == ""
    for side in (SIDE, 57):
        assert_same_logits(report.file, folder, side)
        assert_same_results(report.file, folder, side)


@pytest.mark.parametrize("dynamic", [False, True])
def test_opencv_runs_an_onnx_file_with_the_names_of_the_dataset(folder: Path, dynamic: bool) -> None:
    file = exported(folder, "onnx", imgsz=SIDE, dynamic=dynamic).file
    result, expected = measured(file, folder, dnn=True), measured(folder / "tiny.pt", folder)
    assert (result.top1, result.top5, result.names) == (expected.top1, expected.top5, NAMES)
    rows = predicted(folder / "tiny.pt", folder)
    assert predicted(file, folder, dnn=True, data=folder / "set") == rows
    unnamed = [[*row[:3], f"class{row[2]}"] for row in rows]
    assert predicted(file, folder, dnn=True) == unnamed, "not the names of another dataset"


@pytest.mark.parametrize("precision", ["half", "int8"])
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_lower_precision_gives_the_same_classes(folder: Path, name: str, precision: str) -> None:
    report = exported(folder, name, imgsz=SIDE, data=str(folder / "set"), **{precision: True})
    assert report.error == "" and report.file.name == f"tiny{FORMATS[name].ending(precision)}"
    assert "of the classes" in report.note if precision == "int8" else report.note == ""
    logits, expected = logits_of(report.file, folder), logits_of(folder / "tiny.pt", folder)
    assert torch.equal(logits.argmax(1), expected.argmax(1)) and not torch.equal(logits, expected)
    assert precision == "int8" or float((logits - expected).abs().max()) < 2e-2
    one = 1.1 / 18  # image may differ
    assert measured(report.file, folder).top1 == pytest.approx(
        measured(folder / "tiny.pt", folder).top1, abs=one
    )


def test_nms_is_refused(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"--nms: .*tiny\.pt is a classification model, .*no boxes"
    ) as error:
        exported(folder, "onnx", imgsz=SIDE, nms=True)
    assert "\n" not in str(error.value)


def test_int8_needs_training_images_in_folders(folder: Path) -> None:
    shards = pack_dataset(read_class_data(str(folder / "set")), folder / "shards")
    with pytest.raises(ConfigError, match=r"--data .*set\.yaml: has no training images in folders or lists"):
        exported(folder, "onnx", imgsz=SIDE, int8=True, data=str(shards))
