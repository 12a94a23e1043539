"""graft.py: weights of one config in another, also from a detector to a segmentation model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

import graft
from models.weights import model_record, read_checkpoint, save_checkpoint
from models.yolo import DetectionModel
from studies.model_tasks import task_of_file
from tests.studies.segmenters import segmenter
from tests.utils.train.small import CONFIG, small_segmenter
from utils.base.errors import ConfigError

GAP = "Largest output difference"


def test_a_gate_does_not_change_a_segmentation_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    weights = segmenter(tmp_path)
    config = read_checkpoint(weights).yaml
    config["head"] = [[-1, 1, "LSKA", [7]], *config["head"]]
    config["head"][-1][0] = [3, 4]
    cfg = tmp_path / "gated.yaml"
    cfg.write_text(yaml.safe_dump(config))
    with caplog.at_level("INFO"):
        path = graft.run(weights=str(weights), cfg=str(cfg), output=str(tmp_path / "gated.pt"))

    assert task_of_file(str(path)) == "segment"
    assert f"{GAP} to segmenter.pt: 0\n" in caplog.text


def test_a_detector_fills_a_segmentation_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    detector = tmp_path / "detector.pt"
    save_checkpoint(detector, {"model": model_record(DetectionModel(CONFIG))})
    cfg, output = str(small_segmenter(tmp_path)), str(tmp_path / "segmenter.pt")
    with caplog.at_level("INFO"):
        path = graft.run(weights=str(detector), cfg=cfg, output=output)

    assert task_of_file(str(path)) == "segment"
    assert "in part: 4 tensors of the head" in caplog.text
    assert GAP not in caplog.text, "their outputs cannot be compared"


def test_a_file_of_another_program_is_not_replaced(tmp_path: Path) -> None:
    weights, theirs = tmp_path / "ours.pt", tmp_path / "yolov5n.pt"
    save_checkpoint(weights, {"model": model_record(DetectionModel(CONFIG))})
    torch.save({"model": torch.nn.Linear(2, 2)}, theirs)
    before = theirs.read_bytes()
    with pytest.raises(
        ConfigError, match=r"--output .*yolov5n\.pt: exists, and another program has written it"
    ):
        graft.run(weights=str(weights), cfg="yolov5n.yaml", output=str(theirs))
    assert theirs.read_bytes() == before
