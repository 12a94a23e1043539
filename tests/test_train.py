"""train.py end to end: small runs on drawn images."""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import train
from models.weights import load_for_inference, read_checkpoint
from tests.utils.train.small import CONFIG, small_models, small_set
from utils.base.errors import ConfigError, DataError
from utils.base.paths import ROOT
from utils.loggers.callbacks import Callbacks
from utils.tasks.task import Task
from utils.train.loss_meter import DivergedError

BATCHES = 4  # in an epoch of 16 images

Flags = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Flags:
    """Options of a small model on small images, with changes."""
    home = tmp_path_factory.mktemp("train ing")
    data = small_set(home, train=16)
    model, _ = small_models(home)
    fixed = {"weights": "", "imgsz": 64, "batch_size": 4, "workers": 0, "device": "cpu", "noplots": True}
    paths = {"data": str(data), "cfg": str(model), "project": str(home / "runs")}

    def make(**changes: Any) -> dict[str, Any]:
        return {**fixed, **paths, "epochs": 2, **changes}

    return make


def _rows(folder: Path) -> list[list[str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.reader(file))


def _training(path: Path | None) -> dict[str, Any]:
    content = read_checkpoint(str(path)).training
    assert content is not None
    return content


def _same(one: Path | None, two: Path | None) -> bool:
    states = [read_checkpoint(str(path)).state for path in (one, two)]
    return all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_a_run_writes_checkpoints_tables_and_plots(flags: Flags) -> None:
    result = train.run(**flags(noplots=False, name="whole", save_period=1))
    files = {path.relative_to(result.save_dir).as_posix() for path in result.save_dir.rglob("*.*")}

    assert _rows(result.save_dir)[0] == list(Task().columns)
    assert [row[0] for row in _rows(result.save_dir)[1:]] == ["0", "1"]
    assert {f"weights/{name}.pt" for name in ("last", "best", "epoch0", "epoch1")} <= files
    assert {"opt.yaml", "hyp.yaml", "results.csv", "results.png", "labels.jpg"} <= files
    assert {"labels_correlogram.jpg", "train_batch0.jpg", "train_batch1.jpg", "train_batch2.jpg"} <= files
    assert {"val_batch0_labels.jpg", "val_batch0_pred.jpg", "confusion_matrix.png"} <= files
    assert {f"{name}_curve.png" for name in ("PR", "P", "R", "F1")} <= files
    assert 0 <= result.metrics["metrics/mAP_0.5"] <= 1
    model = load_for_inference(str(result.best), torch.device("cpu"))
    assert model.names == dict(enumerate(["circle", "square", "triangle", "star", "ring"]))


@pytest.mark.parametrize("epochs", [1, 3])
def test_loader_workers_and_the_process_that_draws_end(flags: Flags, epochs: int) -> None:
    """The workers are forks, which inherit pipes of the other process: each must end without the other."""
    options = flags(noplots=False, name="drawn", exist_ok=True, workers=2, epochs=epochs)
    values = [
        f"--{key.replace('_', '-')}={value}" for key, value in options.items() if not isinstance(value, bool)
    ]
    command = [sys.executable, str(ROOT / "train.py"), *values, "--exist-ok"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)

    folder = Path(options["project"]) / "drawn"
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("labels.jpg", "train_batch2.jpg", "val_batch0_pred.jpg", "PR_curve.png", "results.png"):
        assert (folder / name).is_file()
        (folder / name).unlink()


class Interrupt(Callbacks):
    """Callback that raises KeyboardInterrupt at the start of a batch."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, step: int) -> None:
        if step == self.step:
            raise KeyboardInterrupt


def test_a_resumed_run_equals_an_uninterrupted_one(
    flags: Flags, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    course: dict[str, Any] = {"epochs": 8, "optimizer": "AdamW", "cos_lr": True}
    through = train.run(**flags(name="through", **course))
    monkeypatch.setattr("utils.train.run_dir.strip_checkpoint", lambda path: None)  # compare all, in float32
    unstripped = train.run(**flags(name="unstripped", **course))
    callback = Interrupt(step=4 * BATCHES + 1)
    options = flags(name="stopped", **course)
    with pytest.raises(KeyboardInterrupt):
        train.run(**options, callbacks=[callback])
    last = through.save_dir.parent / "stopped" / "weights" / "last.pt"
    assert "--resume" in capsys.readouterr().out
    halfway = _training(last)

    resumed = train.run(resume=str(last))

    assert resumed.save_dir == last.parents[1].resolve()
    assert _same(unstripped.last, resumed.last) and _same(unstripped.best, resumed.best)
    assert _rows(through.save_dir) == _rows(resumed.save_dir)
    one, two = _training(unstripped.last), _training(resumed.last)
    assert one["updates"] == two["updates"] > halfway["updates"]
    for key, value in one["model"]["state_dict"].items():
        assert torch.equal(value, two["model"]["state_dict"][key]), key
    assert one["progress"] == two["progress"] and one["stopper"] == two["stopper"]


def test_resuming_warns_if_the_data_changed(flags: Flags, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        train.run(**flags(name="moved"), callbacks=[Interrupt(step=BATCHES + 1)])
    weights = Path(flags()["project"], "moved", "weights")
    (weights / ".last.pt.x.part").write_bytes(b"half")
    other = small_set(Path(flags()["data"]).parent / "other", train=12)
    capsys.readouterr()
    train.run(resume=str(weights / "last.pt"), data=str(other))

    assert "resuming, but train data has changed: 12 images, the run had 16" in capsys.readouterr().err
    assert not list(weights.glob(".*.part"))


def test_a_run_killed_during_the_final_validation_can_be_finished(
    flags: Flags, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            "utils.train.run_dir.RunDir.strip", lambda run: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            train.run(**flags(name="nearly"))
    last = Path(flags()["project"], "nearly", "weights", "last.pt")
    assert read_checkpoint(last).training is not None
    result = train.run(resume=str(last))

    assert read_checkpoint(last).training is None and result.metrics["metrics/mAP_0.5"] >= 0
    assert len(_rows(result.save_dir)) == 3


def test_a_finished_run_has_nothing_to_resume(flags: Flags) -> None:
    result = train.run(**flags(epochs=1, name="finished"))

    with pytest.raises(ConfigError, match="finished, nothing to resume"):
        train.run(resume=str(result.last))


def test_noval_and_nosave_apply_to_all_but_the_last_epoch(flags: Flags) -> None:
    saved = []

    class Saved(Callbacks):
        def on_model_save(self, path: Path, epoch: int, best: bool) -> None:
            saved.append((epoch, best))

    result = train.run(**flags(name="frugal", noval=True, nosave=True), callbacks=[Saved()])
    rows = _rows(result.save_dir)

    assert saved == [(1, True)]
    assert rows[1][4] == "nan" and rows[2][4] != "nan"


def test_a_run_stopped_by_a_callback_ends_immediately(flags: Flags) -> None:
    class Stop(Callbacks):
        def on_train_batch_end(self, *args: Any) -> None:
            self.stop_training = True

    result = train.run(**flags(name="halted"), callbacks=[Stop()])

    assert result.last is None and len(_rows(result.save_dir)) == 1


def test_patience_stops_a_run_that_does_not_improve(flags: Flags, capsys: pytest.CaptureFixture[str]) -> None:
    # The fitness of this model stays 0: nothing is found so early.
    result = train.run(**flags(name="patient", epochs=9, patience=2, hyp=_hyp(flags, lr0=0.0)))

    assert len(_rows(result.save_dir)) - 1 == 3
    assert "Stopping early" in capsys.readouterr().out


def _hyp(flags: Flags, **changes: float) -> str:
    path = Path(flags()["project"]).parent / "hyp.changed.yaml"
    path.write_text(yaml.safe_dump(changes))
    return str(path)


def test_divergence_is_an_error_that_names_causes_and_saves_no_bad_weights(flags: Flags) -> None:
    options = flags(name="diverged", hyp=_hyp(flags, lr0=10, warmup_epochs=0, box=3e38))

    with pytest.raises(DivergedError, match=r"epoch 0, batch \d: .*learning rate"):
        train.run(**options)
    assert not list(Path(options["project"]).glob("diverged/weights/*.pt"))


@pytest.mark.parametrize(
    "changes",
    [
        {"rect": True},
        {"multi_scale": True, "label_smoothing": 0.1},
        {"quad": True, "epochs": 1},
        {"image_weights": True},
        {"single_cls": True, "cache": "ram"},
        {"freeze": [2], "optimizer": "Adam"},
        {"amp": "bf16"},
        pytest.param({"compile": True, "epochs": 1}, marks=pytest.mark.slow),
    ],
)
def test_a_run_with_each_flag_ends(flags: Flags, changes: dict[str, Any]) -> None:
    result = train.run(**flags(name="flags", **changes))

    assert result.best is not None
    model = load_for_inference(str(result.best), torch.device("cpu"))
    assert model.nc == (1 if changes.get("single_cls") else 5)


def test_frozen_layers_do_not_change(flags: Flags) -> None:
    start = train.run(**flags(name="start", epochs=1))
    result = train.run(**flags(name="frozen", weights=str(start.best), cfg="", freeze=[2], epochs=8))
    before, after = read_checkpoint(str(start.best)).state, read_checkpoint(str(result.best)).state

    frozen = [key for key in before if key.startswith(("model.0.", "model.1."))]
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    assert not torch.equal(before["model.2.conv.weight"], after["model.2.conv.weight"])


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"data": "nowhere.yaml"}, ConfigError, "nowhere.yaml"),
        ({"cfg": "yolov5q.yaml"}, ConfigError, "yolov5q.yaml"),
        ({"weights": "nowhere.pt"}, ConfigError, "nowhere.pt"),
        ({"hyp": "hyp.scratch-lo.yaml"}, ConfigError, "hyp.scratch-low.yaml"),
        ({"freeze": [9]}, ConfigError, "--freeze 9: the model has layers 0 to 4"),
        ({"freeze": [5]}, ConfigError, "--freeze 5: .* nothing is left to train; the largest .* is 4"),
        ({"freeze": [0, 1, 2, 3, 4]}, ConfigError, "--freeze 0 1 2 3 4: .* the largest .* is 4"),
        ({"device": "7"}, ConfigError, "--device 7"),
        ({"device": "0,1"}, ConfigError, "torchrun --nproc-per-node 2"),
        ({"amp": "fp16"}, ConfigError, "--amp fp16: needs a CUDA GPU"),
        ({"evolve": 0}, ConfigError, "--evolve 0: expected at least 1"),
        ({"resume": "nowhere.pt"}, ConfigError, "nowhere.pt"),
    ],
)
def test_errors_are_reported_before_anything_is_written(
    flags: Flags, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    options = flags(name="mistaken", **changes)

    with pytest.raises(error, match=words):
        train.run(**options)
    assert not Path(options["project"], "mistaken").exists()


def test_placeholder_anchors_are_fitted_and_noautoanchor_is_refused(flags: Flags, tmp_path: Path) -> None:
    (tmp_path / "blank.yaml").write_text(yaml.safe_dump({**CONFIG, "anchors": 2}))
    options = flags(cfg=str(tmp_path / "blank.yaml"), epochs=1, name="blank")
    with pytest.raises(ConfigError, match="--noautoanchor"):
        train.run(**options, noautoanchor=True)
    result = train.run(**options)
    model = load_for_inference(str(result.last), torch.device("cpu"))

    assert (model.head.anchors_px() > 1).all()


def test_a_dataset_of_damaged_images_is_one_clear_error(flags: Flags, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"no image")
    data = {"path": str(tmp_path), "train": "images", "val": "images", "names": ["a"]}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump(data))

    with pytest.raises(DataError, match="images"):
        train.run(**flags(data=str(tmp_path / "data.yaml"), name="damaged"))


def test_the_command_line_is_parsed() -> None:
    opt = train.parse_options(["--img", "96", "--batch", "8"])

    assert (opt.imgsz, opt.batch_size) == (96, 8)
