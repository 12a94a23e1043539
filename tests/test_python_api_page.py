"""The examples of docs/python-api.md run in order, without a network."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from models.weights import model_record, save_checkpoint
from models.yolo import ClassificationModel, DetectionModel
from tests.known import fill, pattern_image
from utils.base.paths import ROOT
from utils.plots.annotator import write_image


def test_the_examples_run(offline: Path) -> None:
    pytest.importorskip("pandas")
    pytest.importorskip("supervision")
    page = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) >= 5
    model = DetectionModel("yolov5n.yaml")
    fill(model, 4)
    save_checkpoint(offline / "yolov5n.pt", {"model": model_record(model)})
    classifier = ClassificationModel("yolov5n-cls.yaml", nc=1000)
    fill(classifier, 4)
    save_checkpoint(offline / "yolov5n-cls.pt", {"model": model_record(classifier)})
    write_image(offline / "bus.jpg", pattern_image(64, 48))
    program = "\n".join(examples).replace("path/to/yolov5-lska", str(ROOT)).replace("640", "64")
    (offline / "program.py").write_text(program, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "program.py"], cwd=offline, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "image 1/1: 64x48 " in done.stdout
    assert (offline / "runs" / "detect" / "exp" / "bus.jpg").is_file()
