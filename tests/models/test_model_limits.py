"""Model yamls that ask for more than a machine has are refused before anything is built."""

from __future__ import annotations

import resource
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from models import registry
from models.config import read_rows
from models.yolo import ClassificationModel, DetectionModel, _plan_rows, parse_model, read_config
from tests.utils.train.small import CONFIG
from utils.base import limits
from utils.base.errors import DataError
from utils.base.limits import ACTIVATIONS, LAYERS, PARAMETERS, Limit
from utils.base.paths import ROOT


def with_row(row: list[Any]) -> dict[str, Any]:
    """`CONFIG` with a row behind its backbone."""
    config = deepcopy(CONFIG)
    config["backbone"].append(row)
    config["head"][-1][0] = [3, 4]
    return config


@pytest.mark.parametrize(
    ("row", "limit"),
    [
        ([-1, 1, "Conv", [10**5, 65, 1]], PARAMETERS),
        ([-1, 1, "LKATrivial", [64_001]], PARAMETERS),
        ([-1, 1, "C3", [10**5]], PARAMETERS),
        ([-1, 1, "C3", [64, True, 1, 10000.0]], PARAMETERS),
        ([-1, 1, "MixConv2d", [64, [1, 30_001]]], PARAMETERS),
        ([-1, 10**9, "Conv", [8, 3]], LAYERS),
        ([-1, 1, "nn.Upsample", ["None", 10**6, "nearest"]], ACTIVATIONS),
        ([-1, 1, "nn.ConvTranspose2d", [16, 3, 4000]], ACTIVATIONS),
    ],
)
def test_a_row_beyond_a_limit_is_named(row: list[Any], limit: Limit) -> None:
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=rf"more than {limit.default:,} {limit.what}.*{limit.variable}$"):
        DetectionModel(with_row(row))
    assert time.monotonic() - started < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


@pytest.mark.parametrize("file", sorted((ROOT / "models").rglob("*.yaml")), ids=lambda file: file.name)
def test_the_bound_of_parameters_is_one(file: Path) -> None:
    """Models whose bound is below the limit are built without measuring their size first."""
    if file.name == "anchors.yaml":
        return
    config, _ = read_config(file)
    config["ch"] = 3
    plans = _plan_rows(read_rows(config), config, [3], file.name)
    with torch.device("meta"):
        layers, _ = parse_model(config, [3])
    for (row, plan), layer in zip(plans, layers, strict=True):
        assert sum(p.numel() for p in layer.parameters()) <= plan.most_parameters, row


def test_a_limit_can_be_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    config = with_row([-1, 3, "Conv", [16, 3]])
    for variable in ("LAYERS", "PARAMETERS"):
        monkeypatch.setenv(f"YOLOV5_MAX_{variable}", "6")
        with pytest.raises(DataError, match=f"raise the limit with YOLOV5_MAX_{variable}"):
            DetectionModel(config)
        monkeypatch.delenv(f"YOLOV5_MAX_{variable}")
    DetectionModel(config)


def test_a_classifier_has_the_same_limits() -> None:
    config = {"nc": 2, "backbone": [[-1, 1, "Conv", [10**5, 65, 1]]], "head": [[-1, 1, "Classify", ["nc"]]]}
    with pytest.raises(DataError, match="more than 200,000,000 parameters"):
        ClassificationModel(config)


def test_measuring_the_size_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    weights = DetectionModel(CONFIG).model[0].conv.weight
    torch.manual_seed(0)
    expected = nn.Conv2d(3, 8, 6).weight
    assert torch.equal(weights, expected)


def test_a_block_that_cannot_be_measured_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reading(nn.Module):
        """Reads a value while it is built, which a tensor without content has not."""

        def __init__(self, dim: int) -> None:
            super().__init__()
            self.scale = float(torch.ones(dim).sum())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    saved = registry.snapshot()
    registry.register(registry.same_channels, Reading)
    try:
        assert DetectionModel(with_row([-1, 1, "Reading", []])).model[3].scale == 16
    finally:
        registry.restore(saved)


def test_the_page_lists_every_limit() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    known = [one for one in vars(limits).values() if isinstance(one, Limit)]
    assert len(known) >= 6
    for one in known:
        assert f"| `{one.variable}` | {one.default} |" in page
