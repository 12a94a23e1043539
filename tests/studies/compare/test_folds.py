"""Folds of a cross-validation: their images, and the runs that they make."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from studies.compare.compare_options import Comparison, parse_command, read_comparison
from studies.compare.folds import write_folds
from studies.compare.run_plan import plan_runs
from tests.utils.train.small import small_models, small_set
from utils.base.errors import ConfigError, DataError
from utils.data.dataset_yaml import read_data_yaml
from utils.data.image_lists import list_images
from utils.data.scan import load_labels


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return small_set(tmp_path / "a folder ü")


def _images(yaml_file: Path, split: str) -> set[str]:
    spec = read_data_yaml(yaml_file)
    return {str(path) for path in list_images(getattr(spec, split), spec.root)}


def test_each_image_is_in_the_val_split_of_one_fold(data: Path, tmp_path: Path) -> None:
    everything = _images(data, "train") | _images(data, "val")
    folds = write_folds(read_data_yaml(data), 3, 0, tmp_path / "home")
    vals = [_images(fold, "val") for fold in folds]
    assert set().union(*vals) == everything and sum(map(len, vals)) == len(everything)
    assert max(map(len, vals)) - min(map(len, vals)) <= 1
    for fold, val in zip(folds, vals, strict=True):
        assert _images(fold, "train") == everything - val
        labels = load_labels(read_data_yaml(fold).train).labels
        assert sum(len(rows) for rows in labels) > 0


def test_folds_depend_on_the_seed_alone(data: Path, tmp_path: Path) -> None:
    spec = read_data_yaml(data)
    first, again, other = (write_folds(spec, 2, seed, tmp_path) for seed in (0, 0, 1))
    assert first == again and first != other
    assert _images(first[0], "val") != _images(other[0], "val")


def test_the_test_split_stays(data: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(data.read_text())
    data.write_text(yaml.safe_dump(content | {"test": content["val"]}))
    (fold, _) = write_folds(read_data_yaml(data), 2, 0, tmp_path)
    assert _images(fold, "test") == _images(data, "val")


def test_data_that_cannot_be_split_is_refused(data: Path, tmp_path: Path) -> None:
    spec = read_data_yaml(data)
    with pytest.raises(DataError, match=r"--folds 999: .*has only \d+ images"):
        write_folds(spec, 999, 0, tmp_path)
    spec.train = ["shards"]  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="--folds 2: .*expected folders or lists of images"):
        write_folds(spec, 2, 0, tmp_path)


def _comparison(data: Path, home: Path, *flags: str) -> Comparison:
    one, two = small_models(home)
    how = ["--weights", "", "--data", str(data), "--imgsz", "64", "--epochs", "1", "--device", "cpu"]
    cfg = ["--cfg", f"'{one}'", f"'{two}'"]
    return read_comparison(*parse_command([*cfg, *how, "--project", str(home / "runs"), *flags]))


def test_every_model_is_trained_on_every_fold_of_every_seed(data: Path, tmp_path: Path) -> None:
    runs = plan_runs(_comparison(data, tmp_path, "--folds", "2", "--seeds", "0", "1"))
    assert [(run.seed, run.fold) for run in runs[::2]] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert len({run.key for run in runs}) == 8
    for a, b in zip(runs[::2], runs[1::2], strict=True):
        assert a.settings["pictures"] == b.settings["pictures"] and a.label != b.label
    assert runs[0].settings["pictures"] != runs[2].settings["pictures"]
    assert runs[0].title.endswith("seed 0, fold 1")
    assert Path(runs[2].data).name == "seed0-fold2.yaml"
    again = plan_runs(_comparison(data, tmp_path, "--folds", "2", "--seeds", "0", "1"))
    assert [run.key for run in again] == [run.key for run in runs]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--folds", "1"], "--folds.*0, or at least 2"),
        (["--weights", "a.pt", "b.pt", "--folds", "2"], "--folds: needs models to train"),
    ],
)
def test_folds_need_models_to_train(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_command(flags if "--weights" in flags else ["--cfg", "a.yaml", *flags])
