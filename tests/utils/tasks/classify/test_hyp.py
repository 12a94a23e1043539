"""Hyperparameters of classification, from flags and from --hyp."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.base.errors import ConfigError
from utils.base.options import parse_options
from utils.tasks.classify.options import ClassifyTrainOptions
from utils.tasks.classify.task import ClassifyTask


def _read(*flags: str) -> dict[str, float]:
    return ClassifyTask().read_hyp(parse_options(ClassifyTrainOptions, flags))


def test_a_file_takes_the_place_of_flags(tmp_path: Path) -> None:
    file = tmp_path / "hyp.yaml"
    file.write_text("lr0: 1e-2\nfliplr: 0\n")
    flags = ["--lr0", "0.003", "--decay", "0.001"]
    expected = _read(*flags)
    assert (expected["lr0"], expected["weight_decay"], expected["scale"]) == (0.003, 0.001, 0.08)
    assert _read(*flags, "--hyp", str(file)) == expected | {"lr0": 0.01, "fliplr": 0}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("mosaic: 1", "unknown hyperparameter 'mosaic'; expected lr0, lrf, "),
        ("jiter: 0.3", "unknown hyperparameter 'jiter'; did you mean jitter?"),
        ("flipud: 2", "flipud is 2, expected at least 0 and at most 1"),
        ("lr0: fast", "lr0 is 'fast', expected a number"),
    ],
)
def test_errors_name_file_and_key(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "hyp.yaml").write_text(line)
    with pytest.raises(ConfigError) as caught:
        _read("--hyp", str(tmp_path / "hyp.yaml"))
    assert str(caught.value).startswith(f"{tmp_path / 'hyp.yaml'}: {message}")
