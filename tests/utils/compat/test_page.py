"""The examples of docs/your-own-code.md run, and the page names every module."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from models.weights import model_record, save_checkpoint
from models.yolo import DetectionModel
from tests.known import fill, pattern_image
from utils.base.paths import ROOT
from utils.base.yolov5_names import TABLE
from utils.plots.annotator import write_image

PAGE = (ROOT / "docs" / "your-own-code.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", range(3))
def test_an_example_runs(number: int, offline: Path) -> None:
    model = DetectionModel("yolov5n.yaml")
    fill(model, 4)
    save_checkpoint(offline / "yolov5n.pt", {"model": model_record(model)})
    write_image(offline / "bus.jpg", pattern_image(64, 48))
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + EXAMPLES[number].replace("640", "32")
    (offline / "program.py").write_text(program, encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "program.py"], cwd=offline, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d+ objects|\d+ rows for the tracker|mAP50 0\.\d+", done.stdout)


def test_the_page_names_every_module() -> None:
    assert len(EXAMPLES) == 4  # the last one is the template of a block, see tests/models/test_user_blocks.py
    advice_only = ("utils.loggers", "utils.wandb_logging.wandb_utils")
    missing = [name for name in TABLE if f"`{name}`" not in PAGE and not name.startswith(advice_only)]
    assert not missing
