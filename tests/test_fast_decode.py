"""A run with --fast-decode records the flag, and resumes with the results of an uninterrupted run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import train
from models.weights import read_checkpoint
from tests.utils.train.small import small_models
from utils.base.yaml_io import read_yaml
from utils.data.shapes import NAMES, make_shapes
from utils.loggers.callbacks import Callbacks


class Interrupt(Callbacks):
    """Callback that raises KeyboardInterrupt at the start of a batch."""

    def on_train_batch_start(self, step: int) -> None:
        if step == 5:
            raise KeyboardInterrupt


def _options(home: Path) -> dict[str, Any]:
    make_shapes(home / "set", train=8, val=4, size=160)
    (home / "data.yaml").write_text(
        yaml.safe_dump({"path": str(home / "set"), "train": "images/train", "val": "images/val"})
        + yaml.safe_dump({"names": list(NAMES)})
    )
    paths = {"data": str(home / "data.yaml"), "cfg": str(small_models(home)[0]), "project": str(home)}
    fixed = {"weights": "", "imgsz": 64, "batch_size": 2, "workers": 0, "device": "cpu", "noplots": True}
    return {**fixed, **paths, "epochs": 3, "noautoanchor": True}


def _state(path: Path | None) -> dict[str, torch.Tensor]:
    return read_checkpoint(str(path)).state


def test_a_fast_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    options = _options(tmp_path)
    through = train.run(**options, name="through", fast_decode=True)
    slow = train.run(**options, name="slow")
    with pytest.raises(KeyboardInterrupt):
        train.run(**options, name="stopped", fast_decode=True, callbacks=[Interrupt()])
    resumed = train.run(resume=str(tmp_path / "stopped" / "weights" / "last.pt"))

    assert read_yaml(resumed.save_dir / "opt.yaml")["fast_decode"] is True
    assert read_yaml(slow.save_dir / "opt.yaml")["fast_decode"] is False
    assert (resumed.save_dir / "results.csv").read_text() == (through.save_dir / "results.csv").read_text()
    for key, value in _state(through.last).items():
        assert torch.equal(value, _state(resumed.last)[key]), key
    assert (slow.save_dir / "results.csv").read_text() != (through.save_dir / "results.csv").read_text()
