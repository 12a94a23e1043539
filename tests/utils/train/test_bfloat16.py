"""Training under autocast in bfloat16, which a CPU has as well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from models.weights import load_for_inference
from studies.training import train
from tests.studies.classifiers import class_folders, small_classifiers
from tests.studies.segmenters import polygon_set
from tests.utils.train.small import small_models, small_segmenter, small_set
from utils.base.options import parse_options
from utils.tasks.task import get_task


def _detector(home: Path) -> list[str]:
    return ["--data", str(small_set(home)), "--cfg", str(small_models(home)[1]), "--weights", "", "--noplots"]


def _segmenter(home: Path) -> list[str]:
    return [
        "--data",
        str(polygon_set(home)),
        "--cfg",
        str(small_segmenter(home)),
        "--weights",
        "",
        "--noplots",
    ]


def _classifier(home: Path) -> list[str]:
    return ["--data", str(class_folders(home)), "--cfg", str(small_classifiers(home)[1]), "--model", ""]


@pytest.mark.parametrize(
    ("name", "flags_of"), [("detect", _detector), ("segment", _segmenter), ("classify", _classifier)]
)
@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no bfloat16 on the CPU")
def test_a_run_in_bfloat16_trains_and_validates(
    name: str, flags_of: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    task, seen = get_task(name), []
    hook = torch.nn.modules.module.register_module_forward_hook(
        lambda module, inputs, output: seen.append((module.training, getattr(output, "dtype", None)))
    )
    flags = [*flags_of(tmp_path), "--imgsz", "64", "--epochs", "1", "--batch-size", "4", "--workers", "0"]
    common = ["--device", "cpu", "--amp", "bf16", "--project", str(tmp_path / "runs")]
    try:
        result = train(parse_options(task.train_options(), [*flags, *common]))
    finally:
        hook.remove()

    assert (True, torch.bfloat16) in seen, "the training runs in bfloat16"
    assert (False, torch.float32) in seen, "and the validation in float32"
    assert set(result.metrics) == set(task.measured)
    assert all(value == value and value < float("inf") for value in result.metrics.values())
    weights = load_for_inference(str(result.best), torch.device("cpu")).state_dict()
    assert all(torch.isfinite(value).all() for value in weights.values())
