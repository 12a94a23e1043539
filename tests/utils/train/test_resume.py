"""The run that `--resume` finds, and the options with which it resumes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from models.weights import save_checkpoint
from tests.utils.train.small import hyperparameters, make_state
from utils.base.errors import ConfigError
from utils.train.resume import find_run, newest_checkpoint
from utils.train.run_dir import RunDir, differences
from utils.train.train_options import parse_options


def _run(folder: Path, *flags: str) -> Path:
    """A run folder as it is after an epoch; returns its last.pt."""
    run = RunDir(folder)
    run.open(parse_options(list(flags)), hyperparameters(lr0=0.5), 0)
    run.save(make_state().content(), best=True)
    return run.last


def test_options_come_from_the_run_and_some_from_the_command_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    last = _run(tmp_path / "exp", "--img", "96", "--epochs", "5", "--cfg", "yolov5n.yaml")
    caplog.set_level("INFO")
    run = find_run(parse_options(["--resume", str(last), "--epochs", "9", "--batch", "2"]))
    opt = run.options

    assert (opt.imgsz, opt.epochs, opt.batch_size) == (96, 9, 16)
    assert isinstance(opt.hyp, dict) and opt.hyp["lr0"] == 0.5
    assert run.folder == last.parents[1]
    assert run.checkpoint.training is not None
    assert "--batch-size 2 is ignored" in caplog.text and "--epochs 9 (the run had 5)" in caplog.text


def test_without_opt_yaml_the_options_come_from_the_checkpoint(tmp_path: Path) -> None:
    last = _run(tmp_path / "exp", "--img", "96")
    (tmp_path / "exp" / "opt.yaml").unlink()

    assert find_run(parse_options(["--resume", str(last)])).options.imgsz == 96


def test_a_moved_run_continues_in_its_new_folder(tmp_path: Path) -> None:
    last = _run(tmp_path / "exp")
    (tmp_path / "exp").rename(tmp_path / "moved")
    moved = tmp_path / "moved" / last.relative_to(tmp_path / "exp")

    assert find_run(parse_options(["--resume", str(moved)])).folder == tmp_path / "moved"


def test_bare_resume_takes_the_checkpoint_written_last(tmp_path: Path) -> None:
    old, new = _run(tmp_path / "b"), _run(tmp_path / "a")
    hidden = tmp_path / ".venv" / "last.pt"
    hidden.parent.mkdir()
    hidden.write_bytes(b"")
    os.utime(old, (1, 1))

    assert newest_checkpoint(tmp_path) == new


def test_nothing_to_resume_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no last.pt below"):
        newest_checkpoint(tmp_path)
    with pytest.raises(ConfigError, match="nowhere.pt: no such file"):
        find_run(parse_options(["--resume", str(tmp_path / "nowhere.pt")]))


def test_a_file_without_options_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "last.pt", make_state().content())

    with pytest.raises(ConfigError, match="holds no options"):
        find_run(parse_options(["--resume", str(tmp_path / "last.pt")]))


def test_changes_since_the_checkpoint_are_listed() -> None:
    data = {"pictures": 3, "labels": 9, "digest": "a"}
    before = {"data": {"train": data, "val": data}, "versions": {"torch": "2.4", "python": "3.11"}}
    now = {"data": {"train": data | {"labels": 8, "digest": "b"}, "val": data | {"digest": "b"}}}
    assert differences(before, now | {"versions": {"torch": "2.5", "python": "3.11"}}) == [
        "train data has changed: 8 labels, the run had 9",
        "val data has changed: the same number of images and labels, but other ones",
        "torch is 2.5, the run had 2.4",
    ]
    assert differences({"git": {"commit": "a" * 40}}, now | {"git": {"commit": "b" * 40}}) == [
        "the code is that of commit bbbbbbbbbbbb, the run had aaaaaaaaaaaa"
    ]
    assert differences({}, now) == differences(before, before) == []
