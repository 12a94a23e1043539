"""The estimate from one training step."""

from pathlib import Path

import pytest

from studies.evolve import eta
from studies.evolve.eta import minutes_of_training
from tests.utils.train.small import small_models, small_set
from utils.base.errors import DataError
from utils.train.train_options import parse_options


def test_the_estimate_is_proportional_to_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = small_set(tmp_path), small_models(tmp_path)[0]
    clock = iter(range(100))
    monkeypatch.setattr(eta.time, "perf_counter", lambda: float(next(clock)))  # a second for each step
    fixed = ["--data", str(data), "--cfg", str(model), "--weights", "", "--imgsz", "64", "--device", "cpu"]
    one = parse_options([*fixed, "--epochs", "3", "--batch-size", "4"])  # 8 images: 2 batches
    assert minutes_of_training(one) == pytest.approx((5 + 6) / 60)


def test_invalid_data_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(f"path: {tmp_path}\ntrain: none\nval: none\nnames: [a]\n")
    with pytest.raises(DataError, match="does not exist"):
        minutes_of_training(parse_options(["--data", str(tmp_path / "data.yaml")]))
