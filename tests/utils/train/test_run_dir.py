"""The run folder: names, table, checkpoints."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest
import torch
import yaml

from models.weights import read_checkpoint
from tests.utils.train.small import hyperparameters, make_state
from utils.base.errors import DataError, OutOfMemory, memory_errors
from utils.base.log import set_up_console
from utils.loggers.callbacks import Callbacks
from utils.tasks.task import Task
from utils.train.loss_meter import DivergedError
from utils.train.run_dir import RunDir, guard, quoted, run_metadata, table_row
from utils.train.train_options import parse_options


def _open(folder: Path, epoch: int = 0, *flags: str) -> RunDir:
    run = RunDir(folder)
    run.open(parse_options(list(flags)), hyperparameters(), epoch, run_metadata(seed=0))
    return run


def _rows(run: RunDir) -> list[list[str]]:
    with run.table.open(newline="") as file:
        return list(csv.reader(file))


def _row(epoch: int) -> dict[str, float]:
    return dict.fromkeys(Task().columns, 0.5) | {"epoch": epoch}


def test_runs_are_numbered_and_may_take_the_name_of_the_yaml(tmp_path: Path) -> None:
    flags = ["--project", str(tmp_path), "--name", "cfg", "--cfg", "models/yolov5n-LSKA.yaml"]
    first = RunDir.choose(parse_options(flags))

    assert first.folder.is_dir() and first.folder.name == "yolov5n-LSKA"
    assert RunDir.choose(parse_options(flags)).folder.name == "yolov5n-LSKA2"
    assert RunDir.choose(parse_options([*flags, "--exist-ok"])).folder == first.folder


def test_options_are_written_as_plain_yaml_with_their_hyperparameters(tmp_path: Path) -> None:
    run = _open(tmp_path / "a run", 0, "--img", "96")
    options = yaml.safe_load((run.folder / "opt.yaml").read_text())
    hyp = yaml.safe_load((run.folder / "hyp.yaml").read_text())

    assert (options["imgsz"], options["save_dir"]) == (96, str(run.folder))
    assert options["hyp"] == hyp == hyperparameters()
    assert "given" not in options
    assert options["identity"]["versions"]["torch"] == torch.__version__


def test_the_table_has_the_original_columns_and_no_duplicate_rows(tmp_path: Path) -> None:
    run = _open(tmp_path)
    for epoch in range(3):
        run.write_row(_row(epoch))
    resumed = _open(tmp_path, 2)  # epoch 2 was written, but its checkpoint was not
    resumed.write_row(_row(2))

    assert _rows(run)[0] == list(Task().columns)
    assert [row[0] for row in _rows(run)[1:]] == ["0", "1", "2"]


def test_a_new_run_in_an_old_folder_starts_a_new_table(tmp_path: Path) -> None:
    _open(tmp_path).write_row(_row(0))

    assert len(_rows(_open(tmp_path))) == 1


def test_a_row_without_validation_has_nan(tmp_path: Path) -> None:
    row = table_row(Task().columns, 4, [1.0, 2.0, 3.0], None, make_state().optimizer)

    assert (row["epoch"], row["train/cls_loss"], row["x/lr2"]) == (4, 3.0, 0.01)
    assert str(row["metrics/recall"]) == "nan"


def test_checkpoints_are_copied_when_due_and_stripped_at_the_end(tmp_path: Path) -> None:
    run = _open(tmp_path)
    state = make_state()
    state.progress.record(0, None)
    run.save(state.content(), best=True, period=2)
    before = read_checkpoint(run.best)
    state.progress.record(1, None)
    run.save(state.content(), best=False, period=2)
    run.strip()

    assert sorted(path.name for path in run.last.parent.iterdir()) == ["best.pt", "epoch0.pt", "last.pt"]
    assert (before.epoch, before.opt and before.opt["imgsz"]) == (0, 640)
    assert before.training is not None
    assert read_checkpoint(run.best).training is None
    assert read_checkpoint(run.last).state["model.0.conv.weight"].dtype == torch.float16
    torch.load(run.last, weights_only=True)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(DataError, match="file.*--project"):
        _open(tmp_path / "file" / "exp")


class Closing(Callbacks):
    closed = False

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("reason", [KeyboardInterrupt(), SystemExit(143)])
def test_an_interruption_prints_the_command_that_resumes(
    tmp_path: Path, reason: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    run, loaders = _open(tmp_path / "my run"), Closing()
    run.last.write_bytes(b"")
    set_up_console()
    with pytest.raises(type(reason)), guard(run, loaders, Callbacks()):
        raise reason

    assert loaders.closed
    assert re.search(r'python train.py --resume ".*my run.*last.pt"', capsys.readouterr().out)


def test_too_little_memory_names_the_sizes_to_try_and_how_to_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = _open(tmp_path)
    run.last.write_bytes(b"")
    set_up_console()
    with (
        pytest.raises(OutOfMemory, match=r"batch size 16 and 640 px: try --batch-size 8 or --imgsz 448"),
        guard(run, Closing(), Callbacks()),
        memory_errors(16, (640,)),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    assert "--resume" in capsys.readouterr().out


def test_divergence_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    run = _open(tmp_path)
    run.last.write_bytes(b"")
    with pytest.raises(DivergedError, match=r"epoch 3.*last\.pt"), guard(run, Closing(), Callbacks()):
        raise DivergedError("epoch 3, batch 1: no number")


def test_paths_with_spaces_are_quoted() -> None:
    assert quoted("runs/my run/last.pt") == '"runs/my run/last.pt"'
