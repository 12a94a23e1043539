"""The task of a model, by its yaml and by its file."""

from __future__ import annotations

from pathlib import Path

import pytest

import export
from studies.model_tasks import common_task, task_of_config, task_of_file
from tests.models.backends.files import checkpoint
from tests.studies.segmenters import segmenter
from utils.base.errors import ConfigError


@pytest.mark.parametrize(
    ("cfg", "task"),
    [
        ("yolov5n.yaml", "detect"),
        ("yolov5s-LSKA.yaml", "detect"),
        ("yolov5n-seg.yaml", "segment"),
        ("yolov5m-seg-SPPFLSKA.yaml", "segment"),
        ({"nc": 1}, "detect"),
        ({"head": [[-1, 1, "Segmenter", []]]}, "detect"),
        ({"head": [["Segment"]]}, "detect"),
    ],
)
def test_the_last_row_of_a_yaml_decides_the_task(cfg: str | dict[str, object], task: str) -> None:
    assert task_of_config(cfg) == task


def test_a_checkpoint_and_an_exported_file_say_their_task(tmp_path: Path) -> None:
    assert task_of_file(str(checkpoint())) == "detect"
    weights = segmenter(tmp_path)
    assert task_of_file(str(weights)) == "segment"

    (exported,) = export.run(weights=str(weights), include=["torchscript"], imgsz=64, device="cpu")
    assert task_of_file(str(exported), "cpu") == "segment"


def test_models_of_two_tasks_are_not_compared() -> None:
    assert common_task({"a.pt": "segment", "b.pt": "segment"}, "--weights").name == "segment"
    message = "--cfg: a.yaml is a detection model, b.yaml a segmentation model; only models of one task"
    with pytest.raises(ConfigError, match=message):
        common_task({"a.yaml": "detect", "b.yaml": "segment"}, "--cfg")
