"""Hyperparameters: defaults, checks, scaling."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.base.errors import ConfigError
from utils.train.hyp import check_hyp, load_hyp, scale_gains


def _file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "hyp.mine.yaml"
    path.write_text(text)
    return str(path)


def test_missing_keys_get_the_defaults(tmp_path: Path) -> None:
    hyp = load_hyp(_file(tmp_path, "lr0: 0.02\n"), label_smoothing=0.1)

    assert (hyp["lr0"], hyp["momentum"], hyp["label_smoothing"]) == (0.02, 0.937, 0.1)
    assert "anchors" not in hyp


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path: Path) -> None:
    assert load_hyp(_file(tmp_path, "lr0: 1e-3\n"))["lr0"] == 1e-3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("lr: 0.01", ("lr", "lr0")),
        ("mosiac: 1.0", ("mosiac", "mosaic")),
        ("lr0: fast", ("lr0", "fast", "number")),
        ("lr0: true", ("lr0", "True")),
        ("fliplr: 1.5", ("fliplr", "1.5", "at most 1")),
        ("box: .nan", ("box", "nan")),
        ("giou: 0.05", ("giou", "the gain of the box loss is now called box")),
        ("dfl: 1.5", ("dfl", "it is of YOLOv8")),
        ("lr0: 0\nwarmup_bias_lr: 0", ("lr0 and warmup_bias_lr are 0",)),
        ("box: 0\ncls: 0\nobj: 0.0", ("box, cls and obj are 0, which leaves nothing to train",)),
        ("degrees: [0, 1]", ("degrees", "[0, 1]")),
    ],
)
def test_errors_name_the_key(tmp_path: Path, line: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_hyp(_file(tmp_path, line + "\n"))

    for word in ("hyp.mine.yaml", *words):
        assert word in str(caught.value)


def test_gains_follow_levels_classes_and_size() -> None:
    hyp = check_hyp({}, "defaults")

    same = scale_gains(hyp, levels=3, nc=80, imgsz=640)
    small = scale_gains(hyp, levels=4, nc=20, imgsz=320)

    assert same == hyp
    assert small["box"] == pytest.approx(0.05 * 3 / 4)
    assert small["cls"] == pytest.approx(0.5 * 3 / 4 * 20 / 80)
    assert small["obj"] == pytest.approx(1.0 * 3 / 4 / 4)
    assert small["lr0"] == hyp["lr0"]
