"""python models/yolo.py prints the layers and the size of a model, of any task."""

from __future__ import annotations

import subprocess
import sys

import pytest

from utils.base.paths import ROOT


@pytest.mark.parametrize(
    ("cfg", "size", "layers"),
    [("yolov5n.yaml", "1,872,157", 25), ("yolov5n-seg-LSKA.yaml", "2,062,461", 26)],
)
def test_layers_and_sizes_before_and_after_fusing_are_printed(cfg: str, size: str, layers: int) -> None:
    command = [sys.executable, str(ROOT / "models" / "yolo.py"), "--cfg", cfg]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)

    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert f"{size} parameters" in lines[-2] and lines[-1].startswith("Fused YOLOv5n")
    assert len(lines) == 1 + layers + 2, "a header, the layers, two summaries"
