"""Comparisons of segmentation models: masks decide, boxes are shown beside them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import compare
from models.backends import load_backend
from studies.compare import examples, measure
from studies.compare.compare_options import parse_command, read_comparison
from studies.compare.evaluation import metrics_of
from studies.compare.examples import Split, detect
from studies.compare.metrics import metrics_of_epoch
from studies.compare.records import Records, read_records
from studies.compare.report import markdown, write_report
from studies.compare.run_plan import plan_runs
from tests.models.backends.files import checkpoint
from tests.studies.compare.synthetic import synthetic_records
from tests.studies.segmenters import polygon_set, segmenter
from tests.utils.train.small import small_models, small_segmenter, small_set
from utils.base.errors import ConfigError
from utils.data.dataset_yaml import read_data_yaml
from utils.tasks.segment.options import SegmentTrainOptions, SegmentValOptions
from utils.tasks.segment.validation import SegmentResult
from utils.val import measure as measuring
from utils.val.accumulator import EvalResult, MatchAccumulator

SMALL = ["--imgsz", "64", "--device", "cpu", "--workers", "0", "--rounds", "0"]


def _mask_records() -> Records:
    """The records of `synthetic_records` as those of masks; boxes are better by 10 points."""
    records = synthetic_records()
    for rows in (records.results, records.curves):
        for row in rows:
            for name in [key for key in row if key.startswith(("P", "R", "mAP", "AP/"))]:
                value = row.pop(name)
                row |= {f"mask {name}": value, f"box {name}": value + 0.1}
    return records


def test_the_report_is_about_masks_and_shows_boxes(tmp_path: Path) -> None:
    records = _mask_records()
    write_report(records, tmp_path)
    text = (tmp_path / "report.md").read_text()

    head = next(line for line in text.splitlines() if line.startswith("| model | parameters"))
    assert [cell for cell in head.split(" | ") if "mAP" in cell] == [
        *("mask mAP50", "mask mAP50-95", "box mAP50-95")
    ]
    assert "| 0.820 ± 0.016 |  |  | 0.520 ± 0.016 |  |  | 0.620 ± 0.016 |" in text
    assert "better is better than base by 5.2 points of mask mAP50-95" in text
    assert "Mask AP by class, val" in text and "| model | cat | dog, old |" in text
    assert "reached the best mask mAP50-95 of the first" in text
    assert "mask mAP50-95 against latency" in (tmp_path / "report.html").read_text()
    again = read_records(tmp_path)
    assert again.main == "mask mAP50-95" and markdown(again) == text
    assert again.curve("better", 3) == pytest.approx(records.curve("better", 3), rel=1e-5)


def test_the_numbers_of_a_run_have_the_names_of_their_parts() -> None:
    box = EvalResult({0: "a"}, 1, np.ones(1), np.ones(1), map50=0.3, map=0.2)
    mask = EvalResult({0: "a"}, 1, np.ones(1), np.ones(1), map50=0.2, map=0.1)
    found = metrics_of(SegmentResult(**vars(box), mask=mask))
    assert (found["mask mAP"], found["box mAP"], found["mask AP"]) == (0.1, 0.2, {"a": 0.0})
    assert metrics_of(box) == {name[4:]: value for name, value in found.items() if name.startswith("box ")}

    losses = {"train/box_loss": 1.0, "train/seg_loss": 2.0, "val/seg_loss": 8.0}
    boxes = {"metrics/mAP_0.5(B)": 0.3, "metrics/mAP_0.5:0.95(B)": 0.2}
    masks = {"metrics/mAP_0.5(M)": 0.2, "metrics/mAP_0.5:0.95(M)": 0.1}
    assert metrics_of_epoch({"epoch": 0.0, **losses, **boxes, **masks}) == {
        **{"epoch": 0, "mask mAP50": 0.2, "mask mAP": 0.1, "box mAP50": 0.3, "box mAP": 0.2},
        "loss": 3,
    }


def test_models_are_trained_measured_and_reported(tmp_path: Path) -> None:
    """Two variants at a time, then their weights without another training."""
    data, cfg = polygon_set(tmp_path), small_segmenter(tmp_path)
    fixed = ["--data", str(data), "--epochs", "1", "--batch-size", "4", "--noautoanchor", *SMALL]
    line = ["--cfg", str(cfg), f"{cfg} --no-overlap", "--labels", "maps", "single", "--weights", ""]
    output = ["--project", str(tmp_path / "runs")]
    compare.main([*line, "--mask-ratio", "2", "--seeds", "0", "--jobs", "2", *fixed, *output])

    rows = _rows(tmp_path / "runs" / "exp" / "results.csv")
    assert [(row["model"], row["checkpoint"]) for row in rows] == [
        *(("maps", "best"), ("maps", "last")),
        *(("single", "best"), ("single", "last")),
    ]
    assert all(0 <= float(row[f"{part} mAP50-95"]) <= 1 for row in rows for part in ("mask", "box"))
    files = sorted((tmp_path / "runs" / "runs").glob("*/run.json"))
    for run in (json.loads(file.read_text()) for file in files):
        assert run["task"] == "segment" and run["facts"]["options"]["mask_ratio"] == 2
    weights = [str(file.parent / "weights" / "best.pt") for file in files]

    flags = ["--data", str(data), "--mask-size", "full", "--resamples", "100", *SMALL]
    compare.main(["--weights", *weights, *flags, *output, "--name", "files"])
    first, second = _rows(tmp_path / "runs" / "files" / "results.csv")
    assert float(second["mask mAP50-95 pictures"]) == float(second["box mAP50-95 pictures"]) == 4
    assert "mask mAP50-95 p" not in {key for key, value in first.items() if value}


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def test_differences_of_masks_are_tested_on_the_matches_of_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Boxes of both models are right, the masks of the second are all wrong."""
    boxes = torch.tensor([[0.0, 0, 9, 9, 0.9, 0]]), torch.tensor([[0.0, 0, 0, 9, 9]])
    right, wrong = torch.ones(1, 10, dtype=torch.bool), torch.zeros(1, 10, dtype=torch.bool)

    def result(correct: torch.Tensor) -> SegmentResult:
        both = [MatchAccumulator(1), MatchAccumulator(1)]
        for _ in range(12):
            both[0].add(*boxes)
            both[1].add(*boxes, correct)
        of_boxes, of_masks = (each.result({0: "a"}) for each in both)
        return SegmentResult(**vars(of_boxes), mask=of_masks)

    results = {"a.onnx": result(right), "b.onnx": result(wrong)}
    monkeypatch.setattr(measuring, "measure", lambda options: results[options.weights[0]])
    options, _ = parse_command(["--weights", "a.onnx", "b.onnx", "--rounds", "0", "--resamples", "100"])
    records = measure.measure_files(options, SegmentValOptions(weights=options.weights or []))

    mask, box = (records.paired_over_images("b", f"{part} mAP50-95") for part in ("mask", "box"))
    assert mask is not None and box is not None
    assert mask.mean == pytest.approx(-0.995, abs=0.01) and mask.p < 0.05
    assert (box.mean, box.p) == (0, 1)


def test_the_task_of_the_yamls_decides_which_flags_are_accepted(tmp_path: Path) -> None:
    data, cfg = polygon_set(tmp_path), str(small_segmenter(tmp_path))
    plain, _ = small_models(tmp_path)
    fixed = ["--data", str(data), "--weights", "", "--seeds", "0", "--device", "cpu"]

    def read(*words: str) -> Any:
        return read_comparison(*parse_command([*words, *fixed]))

    (variant,) = read("--cfg", cfg, "--mask-ratio", "8").variants
    assert isinstance(variant.options, SegmentTrainOptions) and variant.options.mask_ratio == 8
    with pytest.raises(ConfigError, match=r"plain\.yaml is a detection model, .* a segmentation model"):
        read("--cfg", str(plain), cfg)
    with pytest.raises(ConfigError, match="--evolve: .*; use segment/train.py"):
        read("--cfg", cfg, "--evolve", "3")
    with pytest.raises(SystemExit):
        read("--cfg", str(plain), "--mask-ratio", "8")


def test_the_digest_of_a_run_has_the_flags_of_masks_only_for_segmentation(tmp_path: Path) -> None:
    """What decides a detection run is as before there were tasks, so that finished runs are used again."""
    data, cfg = polygon_set(tmp_path), str(small_segmenter(tmp_path))
    plain, _ = small_models(tmp_path)
    fixed = ["--data", str(data), "--weights", "", "--seeds", "0", "--device", "cpu", "--epochs", "2"]

    def plan(*words: str) -> Any:
        (run,) = plan_runs(read_comparison(*parse_command([*words, *fixed])))
        return run

    detection = plan("--cfg", str(plain))
    names = {"rules", "torch", "device", "model", "weights", "hyp", "names", "pictures", "options", "seed"}
    assert detection.settings.keys() == names and detection.settings["options"] == {"epochs": 2}
    base = plan("--cfg", cfg)
    assert base.settings.keys() == names and base.settings["options"] == {"epochs": 2}
    assert plan("--cfg", cfg, "--mask-ratio", "4").key == base.key, "the default"
    assert plan("--cfg", cfg, "--mask-ratio", "2").key != base.key


def test_files_of_two_tasks_are_not_compared(tmp_path: Path) -> None:
    data = small_set(tmp_path)
    both = ["--weights", str(checkpoint()), str(segmenter(tmp_path))]
    with pytest.raises(ConfigError, match="is a detection model, .* a segmentation model"):
        compare.main([*both, "--data", str(data), "--project", str(tmp_path / "runs"), *SMALL])


def test_examples_have_the_polygons_of_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read_data_yaml(polygon_set(tmp_path))
    weights = segmenter(tmp_path)
    split = Split(data, "val", 64, False, "cpu")
    monkeypatch.setattr(examples, "CONF_THRES", 0.0)
    monkeypatch.setattr(examples, "_IOU_THRES", 0.1)
    image = np.full((48, 60, 3), 90, np.uint8)
    found = detect(load_backend(weights, torch.device("cpu")), image, split)

    assert found.boxes.shape[1] == 6 and len(found.polygons) == len(found.boxes) > 0
    for box, polygon in zip(found.boxes, found.polygons, strict=True):
        if len(polygon):
            x1, y1, w, h = cv2.boundingRect((polygon * (60, 48)).astype(np.float32))
            assert x1 >= box[0] - 3 and y1 >= box[1] - 3
            assert x1 + w <= box[2] + 3 and y1 + h <= box[3] + 3, "a mask is inside its box"
    assert any(len(polygon) for polygon in found.polygons)
