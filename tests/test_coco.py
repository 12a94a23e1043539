"""The scripts with a data yaml whose labels are COCO annotations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import train
import val
from segment import train as segment_train
from segment import val as segment_val
from tests.utils.data.coco_files import CocoSet
from tests.utils.train.small import small_models, small_segmenter
from utils.base.errors import ConfigError
from utils.data.convert import convert_data
from utils.data.dataset_yaml import read_data_yaml
from utils.loggers.callbacks import Callbacks
from utils.val.coco_scores import coco_scores


@dataclass
class Runs:
    """A training with annotations, and one with label files that are converted from them."""

    data: Path
    flags: dict[str, Any]
    direct: Any
    converted: Any
    trainer: ModuleType
    validator: ModuleType


@pytest.fixture(scope="module", params=["detect", "segment"])
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    home = tmp_path_factory.mktemp(request.param)
    data = CocoSet(home, count=8).write()
    convert_data(read_data_yaml(data), home / "new", boxes=request.param == "detect")
    detect = request.param == "detect"
    trainer, validator = (train, val) if detect else (segment_train, segment_val)
    flags = {"imgsz": 64, "batch_size": 4, "workers": 0, "device": "cpu", "project": home / "runs"}
    cfg = small_models(home)[0] if detect else small_segmenter(home)
    common = {**flags, "weights": "", "cfg": cfg, "epochs": 1, "noplots": True}
    direct = trainer.run(**common, data=data, name="direct", cache="ram")
    converted = trainer.run(**common, data=home / "new/data.yaml", name="converted")
    return Runs(data, flags, direct, converted, trainer, validator)


def test_training_equals_that_with_label_files(runs: Runs) -> None:
    first, second = ((run.save_dir / "results.csv").read_bytes() for run in (runs.direct, runs.converted))
    assert first == second and len(first.splitlines()) == 2


class StopError(Exception):
    """Raised by `Stop`."""


class Stop(Callbacks):
    """Callback that ends a training before its second epoch."""

    def on_train_epoch_start(self, epoch: int) -> None:
        if epoch:
            raise StopError


def test_rectangular_batches_and_resuming(runs: Runs) -> None:
    common = {**runs.flags, "weights": "", "noplots": True, "data": runs.data, "rect": True}
    cfg = runs.data.parent / ("plain.yaml" if runs.trainer is train else "segment.yaml")
    whole = runs.trainer.run(**common, cfg=cfg, epochs=2, name="whole")

    with pytest.raises(StopError):
        runs.trainer.run(**common, cfg=cfg, epochs=2, name="stopped", callbacks=[Stop()])
    last = runs.data.parent / "runs/stopped/weights/last.pt"
    resumed = runs.trainer.run(resume=str(last), device="cpu", workers=0)
    assert (resumed.save_dir / "results.csv").read_text() == (whole.save_dir / "results.csv").read_text()


def test_validation_scores_the_annotations(runs: Runs) -> None:
    pytest.importorskip("pycocotools")
    common = {**runs.flags, "weights": runs.direct.best, "data": runs.data}
    plain = runs.validator.run(**common, plots=False)
    given = {"ann": str(runs.data.parent / "val.json")} if runs.validator is val else {"save_json": True}
    scored = runs.validator.run(**common, name="scored", **given)

    folder = runs.data.parent / "runs/scored"
    rows = json.loads((folder / "best_predictions.json").read_text())
    assert {row["image_id"] for row in rows} <= set(range(100, 108))
    assert {row["category_id"] for row in rows} <= {4, 30}
    files = folder / "best_predictions.json", runs.data.parent / "val.json", list(range(100, 108))
    assert (scored.map, scored.map50) == coco_scores(*files)
    if runs.validator is segment_val:
        assert (scored.mask.map, scored.mask.map50) == coco_scores(*files, "segm")
    assert scored.metrics == pytest.approx(plain.metrics, abs=0.1)  # they interpolate in other ways


def test_annotations_that_were_asked_for_and_cannot_be_used_are_an_error(runs: Runs) -> None:
    common = {**runs.flags, "weights": runs.direct.best, "data": runs.data, "name": "bad"}
    with pytest.raises(ConfigError, match=r"^--ann nowhere\.json: "):
        runs.validator.run(**common, ann="nowhere.json")
    with pytest.raises(ConfigError, match=r"^--ann a\.json: --task speed has no COCO scores"):
        runs.validator.run(**common, ann="a.json", task="speed")
    assert not (runs.data.parent / "runs/bad").exists()
