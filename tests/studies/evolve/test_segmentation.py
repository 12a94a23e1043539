"""Evolution of a segmentation model, with trainings in subprocesses."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from studies.evolve.eta import minutes_of_training
from studies.training import train
from tests.studies.segmenters import polygon_set
from tests.utils.train.small import small_segmenter
from utils.base.options import parse_options
from utils.tasks.segment.options import SegmentTrainOptions
from utils.tasks.segment.task import SegmentTask


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of segment/train.py for a candidate that takes a second, plus the start of Python."""
    home = tmp_path_factory.mktemp("evolve segments")
    data, cfg = polygon_set(home), small_segmenter(home)
    model = ["--data", str(data), "--cfg", str(cfg), "--weights", "", "--noautoanchor", "--mask-ratio", "2"]
    return [*model, "--epochs", "1", "--img", "64", "--batch-size", "4", "--workers", "0", "--device", "cpu"]


def test_candidates_have_the_metrics_of_boxes_and_masks(flags: list[str], tmp_path: Path) -> None:
    search = ["--evolve", "2", "--jobs", "2", "--project", str(tmp_path), "--name", "exp", "--noplots"]
    result = train(parse_options(SegmentTrainOptions, [*flags, *search]))

    with (tmp_path / "exp" / "evolve.csv").open(newline="") as file:
        rows = [{name.strip(): float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    measured = SegmentTask().measured
    assert len(measured) == 12 and tuple(rows[0])[:12] == measured and tuple(rows[0])[12] == "lr0"
    assert len(rows) == 2 and all(row["val/seg_loss"] > 0 for row in rows)
    fitness = [
        sum(
            0.1 * row[f"metrics/mAP_0.5({part})"] + 0.9 * row[f"metrics/mAP_0.5:0.95({part})"]
            for part in "BM"
        )
        for row in rows
    ]
    assert result.fitness == pytest.approx(max(fitness), rel=1e-4)
    hyp = (tmp_path / "exp" / "hyp_evolve.yaml").read_text()
    assert "# metrics/mAP_0.5:0.95(M): " in hyp and "lr0" in yaml.safe_load(hyp)
    opt = yaml.safe_load((tmp_path / "exp" / "candidates" / "0001" / "run" / "opt.yaml").read_text())
    assert opt["mask_ratio"] == 2


def test_the_duration_is_estimated_from_one_step(flags: list[str]) -> None:
    minutes = minutes_of_training(parse_options(SegmentTrainOptions, flags))
    assert minutes is not None and 0 < minutes < 2
