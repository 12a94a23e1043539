"""segment/val.py: the metrics, masks and files of the original, and unusual datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import val
from models.backends import load_backend
from models.weights import model_record, save_checkpoint
from models.yolo import make_model
from segment import val as segment_val
from tests.known import SHARED, fill, golden, needs_shared, pattern_image
from tests.models.backends.files import checkpoint
from utils.base.errors import ConfigError
from utils.data.dataset import DetectionDataset
from utils.data.dataset_yaml import read_data_yaml
from utils.data.loader import make_loader
from utils.tasks.segment.options import SegmentValOptions
from utils.tasks.segment.polygons import decode_rle
from utils.tasks.segment.rasterize import MaskFormat
from utils.tasks.segment.validation import SegmentEvaluator, SegmentResult
from utils.val.evaluate import evaluate
from utils.val.measure import measure
from utils.val.val_options import options_from

KNOWN: dict[str, Any] = golden("14_segment_val")
RUNS: dict[str, dict[str, Any]] = {run["name"]: run for run in KNOWN["runs"]}
NUCLEI: dict[str, Any] = {
    "weights": SHARED / "weights" / KNOWN["weights"], "data": SHARED / "data" / "nuclei.yaml",
    "device": "cpu", "workers": 0,
}  # fmt: skip
CPU = torch.device("cpu")


def measured(folder: Path | None = None, **options: Any) -> SegmentResult:
    result = measure(options_from(options, SegmentValOptions), folder)
    assert isinstance(result, SegmentResult)
    return result


def assert_equal_metrics(result: SegmentResult, known: dict[str, Any]) -> None:
    expected = [*known["box"].values(), *known["mask"].values()]
    assert result.metrics == pytest.approx(expected, abs=5e-4)  # 0.002 is allowed
    assert result.filled_maps == pytest.approx(known["maps_box_plus_mask"], abs=5e-4)
    assert result.losses == (0, 0, 0, 0)


@needs_shared
@pytest.mark.parametrize("name", [name for name in RUNS if name != "packed_ratio4"])
def test_metrics_equal_the_original(name: str) -> None:
    assert_equal_metrics(measured(**NUCLEI, **RUNS[name]["args"]), RUNS[name])


@needs_shared
def test_metrics_with_the_maps_of_training_equal_the_original() -> None:
    known = RUNS["packed_ratio4"]["args"]
    spec = read_data_yaml(str(NUCLEI["data"]))
    data = DetectionDataset(
        spec.val, known["imgsz"], batch_size=known["batch_size"], rect=True, pad=0.5, names=spec.names,
        masks=MaskFormat(known["mask_downsample_ratio"], known["overlap"]),
    )  # fmt: skip
    loader = make_loader(data, known["batch_size"], workers=0)
    backend = load_backend([str(NUCLEI["weights"])], CPU)
    result = evaluate(backend, loader, spec.names, device=CPU, evaluator=SegmentEvaluator)
    assert isinstance(result, SegmentResult)
    assert_equal_metrics(result, RUNS["packed_ratio4"])


@needs_shared
def test_files_of_a_validation_equal_the_original(tmp_path: Path) -> None:
    measured(
        tmp_path, **NUCLEI, imgsz=256, batch_size=32, conf_thres=0.25, save_json=True, save_txt=True,
        save_conf=True,
    )  # fmt: skip
    curves = {f"{kind}{curve}_curve.png" for kind in ("Box", "Mask") for curve in ("P", "R", "F1", "PR")}
    drawn = {f"val_batch{batch}_{kind}.jpg" for batch in range(2) for kind in ("labels", "pred")}
    assert {path.name for path in tmp_path.iterdir()} == {
        *curves, *drawn, "confusion_matrix.png", "labels", "nuclei-seg_predictions.json",
    }  # fmt: skip

    known = golden("14_segment_predict")["coco_json"]  # the entries with a score above 0.3
    entries = json.loads((tmp_path / "nuclei-seg_predictions.json").read_text())
    for image, expected in known["entries"].items():
        own = [entry for entry in entries if entry["image_id"] == image and entry["score"] > 0.3]
        assert len(own) == len(expected)
        for found, true in zip(own, expected, strict=True):
            assert found.keys() == true.keys() and found["category_id"] == true["category_id"]
            assert [found["score"], *found["bbox"]] == pytest.approx([true["score"], *true["bbox"]], abs=0.02)
            mask, other = decode_rle(found["segmentation"]), decode_rle(true["segmentation"])
            assert mask.shape == other.shape
            assert (mask != other).sum() <= max(0.005 * other.sum(), 1)

        # Label files hold the largest part of each mask that is no line.
        rows = (tmp_path / "labels" / f"{image}.txt").read_text().splitlines()
        assert len(rows) <= sum(entry["image_id"] == image for entry in entries)
        scores = [float(row.split()[-1]) for row in rows]
        assert all(len(row.split()) >= 8 and len(row.split()) % 2 == 0 for row in rows)
        assert [score for score in scores if score > 0.3] == pytest.approx(
            [entry["score"] for entry in own], abs=1e-4
        )


@needs_shared
def test_masks_can_be_compared_at_the_size_of_the_input() -> None:
    small = {**NUCLEI, "imgsz": 128, "conf_thres": 0.1}
    quarter, full = (measured(**small, mask_size=size) for size in ("quarter", "full"))
    assert quarter.metrics[:4] == full.metrics[:4]
    assert full.mask.map50 == pytest.approx(quarter.mask.map50, abs=0.1)
    assert full.mask.map50 > 0.3 and full.mask.map != quarter.mask.map


TINY: dict[str, Any] = {
    "nc": 2,
    "depth_multiple": 1.0,
    "width_multiple": 0.25,
    "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
    "backbone": [
        [-1, 1, "Conv", [32, 6, 4, 2]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "C3", [64]],
        [-1, 1, "Conv", [64, 3, 2]],
    ],
    "head": [[[2, 3], 1, "Segment", ["nc", "anchors", 8, 32]]],
}
NAMES = {0: "cell", 1: "plate"}
LEAF = "0.1 0.2 0.45 0.15 0.5 0.3 0.3 0.45 0.12 0.4"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small segmentation model of strides 8 and 16."""
    model = make_model(TINY)
    fill(model, 4)
    model.names = dict(NAMES)
    path = tmp_path_factory.mktemp("weights") / "tiny-seg.pt"
    save_checkpoint(path, {"model": model_record(model)})
    return path


def dataset(folder: Path, *labels: str) -> Path:
    """Write an image of 48 x 64 px for each label file, as the val split; return the yaml."""
    for kind in ("images", "labels"):
        (folder / "set" / kind).mkdir(parents=True)
    for number, text in enumerate(labels):
        cv2.imwrite(str(folder / f"set/images/{number}.png"), pattern_image(48, 64, 30 * number))
        (folder / f"set/labels/{number}.txt").write_text(text)
    path = folder / "data.yaml"
    split = {"path": str(folder / "set"), "train": "images", "val": "images", "names": NAMES}
    path.write_text(json.dumps(split))  # json is yaml
    return path


def options(weights: Path, data: Path, **more: Any) -> dict[str, Any]:
    small = {"imgsz": 64, "batch_size": 2, "workers": 0, "device": "cpu", "max_det": 20}
    return {**small, "weights": weights, "data": data, "project": data.parent / "runs", **more}


def test_a_run_writes_its_files(weights: Path, tmp_path: Path) -> None:
    data = dataset(tmp_path, f"0 {LEAF}\n1 0.6 0.5 0.9 0.5 0.9 0.95\n", "", f"1 {LEAF}\n")
    result = segment_val.run(**options(weights, data, save_json=True, save_txt=True))
    assert isinstance(result, SegmentResult) and (result.seen, result.instances) == (3, 3)
    (p, r, map50, map_, *rest), maps, speeds = result  # as the original's val.run returns it
    assert len(rest) == 8 and len(maps) == 2 and len(speeds) == 3
    folder = tmp_path / "runs/exp"
    entries = json.loads((folder / "tiny-seg_predictions.json").read_text())
    assert {entry["image_id"] for entry in entries} == {0, 1, 2}
    assert all(decode_rle(entry["segmentation"]).shape == (48, 64) for entry in entries)
    for file in (folder / "labels").glob("*.txt"):
        for row in file.read_text().splitlines():
            cls, *points = (float(word) for word in row.split())
            assert cls in NAMES and len(points) >= 6 and len(points) % 2 == 0
            assert min(points) >= 0 and max(points) <= 1
    assert {"val_batch0_labels.jpg", "val_batch1_pred.jpg", "confusion_matrix.png"} <= {
        file.name for file in folder.iterdir()
    }
    assert measured(**options(weights, data)).metrics == result.metrics  # files change no metric


def test_a_dataset_of_boxes_is_measured_with_rectangles(
    weights: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = dataset(tmp_path, "0 0.5 0.5 0.25 0.5\n", "1 0.25 0.25 0.25 0.25\n")
    result = measured(**options(weights, data))
    assert result.instances == 2
    assert "2 of 2 labels are boxes without a polygon; their masks are the rectangles" in caplog.text


@pytest.mark.parametrize("labels", [("", ""), (f"0 {LEAF}\n", "")])
def test_images_without_labels_or_detections_give_zeros(
    weights: Path, tmp_path: Path, labels: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    result = measured(**options(weights, dataset(tmp_path, *labels), conf_thres=1.0))
    assert result.metrics == (0,) * 8 and result.seen == 2
    assert ("no labels found" in caplog.text) is not any(labels)


def test_models_of_the_other_task_are_refused(weights: Path, tmp_path: Path) -> None:
    data = dataset(tmp_path, f"0 {LEAF}\n")
    with pytest.raises(ConfigError, match=r"is a detection model, expected a segmentation model.*val\.py"):
        measured(**options(checkpoint(), data))
    with pytest.raises(
        ConfigError, match=r"is a segmentation model, expected a detection model.*segment/val"
    ):
        val.run(**options(weights, data))
    with pytest.raises(ConfigError, match="only the boxes of detection models can be merged"):
        measured(**options(weights, data) | {"weights": [weights, weights]})


def test_task_speed_writes_nothing(weights: Path, tmp_path: Path) -> None:
    result = segment_val.run(**options(weights, dataset(tmp_path, f"0 {LEAF}\n"), task="speed"))
    assert min(result.speeds) > 0 and not (tmp_path / "runs").exists()


def test_task_study_measures_all_sizes(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from utils.val import study

    monkeypatch.setattr(study, "SIZES", (32, 64))
    segment_val.run(**options(weights, dataset(tmp_path, f"0 {LEAF}\n"), task="study"))
    rows = np.loadtxt(tmp_path / "runs/exp/study_data_tiny-seg.txt")
    assert rows.shape == (2, 15)
