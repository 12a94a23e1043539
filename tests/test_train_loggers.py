"""Runs of train.py with logging services, whose files are read back."""

from __future__ import annotations

import csv
import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import train
from classify import train as train_classifier
from models.weights import read_checkpoint
from tests.studies.classifiers import class_folders, small_classifiers
from tests.utils.loggers import fakes
from tests.utils.loggers.drive import installed
from tests.utils.loggers.test_tensorboard_logger import events
from tests.utils.loggers.wandb_file import records, values
from tests.utils.train.small import small_models, small_set
from utils.loggers.available import SERVICES
from utils.loggers.callbacks import Callbacks
from utils.tasks.task import Task, get_task

Flags = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> Flags:
    """Return a function that makes options for a small model on small images."""
    home = tmp_path_factory.mktemp("loggers")
    data, (model, _) = small_set(home), small_models(home)
    fixed = {"weights": "", "imgsz": 64, "batch_size": 4, "workers": 0, "device": "cpu", "epochs": 2}
    paths = {"data": str(data), "cfg": str(model), "project": str(home / "runs")}
    return lambda **changes: {**fixed, **paths, "noplots": True, **changes}


@pytest.fixture(scope="module")
def without_services(flags: Flags) -> dict[str, torch.Tensor]:
    """Weights of a run without services."""
    return _state(train.run(**flags(name="without", loggers="none")))


def _state(result: Any) -> dict[str, torch.Tensor]:
    return read_checkpoint(result.last).state


def _same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, two[key]) for key, value in one.items())


def _table(folder: Path) -> list[dict[str, float]]:
    with (folder / "results.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def _as_written(value: float) -> float:
    """Round a value as results.csv does."""
    return float(f"{value:.6g}")


@installed("tensorboard")
@installed("mlflow")
@installed("wandb")
def test_services_contain_the_values_of_results_csv(
    flags: Flags, without_services: dict[str, torch.Tensor], offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = (offline / "mlruns").as_uri()
    for name, value in {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": store}.items():
        monkeypatch.setenv(name, value)
    for name in ("MLFLOW_ALLOW_FILE_STORE", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "true")
    result = train.run(**flags(name="with", loggers="auto", noplots=False, bbox_interval=2, save_period=1))
    table = _table(result.save_dir)

    assert _same(without_services, _state(result)), "callbacks change nothing"
    board = events(result.save_dir)
    for name in Task().columns[1:]:
        assert [_as_written(event.value) for event in board.Scalars(name)] == pytest.approx(
            [row[name] for row in table], rel=1e-5
        ), name
    images = {"labels", "train_batch0", "val_batch0_pred", "predictions", "results", "PR_curve"}
    assert images <= set(board.Tags()["images"])

    from mlflow import MlflowClient

    client = MlflowClient(store)
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    for name in Task().columns[1:]:
        history = client.get_metric_history(run.info.run_id, name)
        assert [_as_written(metric.value) for metric in history] == [row[name] for row in table], name
    assert run.info.status == "FINISHED" and run.data.params["hyp/lr0"] == "0.01"
    weights = {Path(file.path).name for file in client.list_artifacts(run.info.run_id, "weights")}
    assert weights == {"best.pt", "last.pt", "epoch0.pt", "epoch1.pt"}
    saved = client.download_artifacts(run.info.run_id, "weights/best.pt", str(offline))
    assert Path(saved).read_bytes() == (result.save_dir / "weights" / "best.pt").read_bytes()

    written = records(result.save_dir / "wandb")
    history = [values(item.item) for kind, item in written if kind == "history"]
    assert [{name: _as_written(row[name]) for name in Task().columns[1:]} for row in history] == [
        {name: row[name] for name in Task().columns[1:]} for row in table
    ]
    assert {f"{name}/path" for name in images} <= {key for row in history for key in row}


class Interrupt(Callbacks):
    """Callback that raises KeyboardInterrupt in the second epoch."""

    def on_train_epoch_start(self, epoch: int) -> None:
        if epoch == 1:
            raise KeyboardInterrupt


@installed("tensorboard")
def test_a_resumed_run_logs_each_epoch_once(flags: Flags) -> None:
    options = flags(name="stopped", loggers="tensorboard", epochs=3)
    with pytest.raises(KeyboardInterrupt):
        train.run(**options, callbacks=[Interrupt()])
    folder = Path(options["project"], "stopped")
    train.run(resume=str(folder / "weights" / "last.pt"))

    assert [event.step for event in events(folder).Scalars("train/box_loss")] == [0, 1, 2]


@installed("tensorboard")
def test_a_resumed_classifier_logs_its_metrics_and_plots(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "model": "", "cfg": small_classifiers(tmp_path)[1], "data": class_folders(tmp_path), "imgsz": 32,
        "batch_size": 8, "workers": 0, "device": "cpu", "epochs": 3, "project": tmp_path,
        "loggers": "tensorboard",
    }  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        train_classifier.run(**options, callbacks=[Interrupt()])
    result = train_classifier.run(resume=tmp_path / "exp/weights/last.pt")

    table, board = _table(result.save_dir), events(result.save_dir)
    assert len(table) == 3
    for name in get_task("classify").columns[1:]:
        logged = board.Scalars(name)
        assert [event.step for event in logged] == [0, 1, 2], name
        assert [event.value for event in logged] == pytest.approx([row[name] for row in table], rel=1e-5), (
            name
        )
    (best,) = board.Scalars("best/metrics/accuracy_top1")
    assert best.value == pytest.approx(result.fitness)
    images = {"train_images", "val_batch0_pred", "confusion_matrix", "results"}
    assert images <= set(board.Tags()["images"])


@pytest.mark.parametrize("service", [fakes.Fails, fakes.Hangs])
def test_failing_services_do_not_change_the_training(
    service: type,
    flags: Flags,
    without_services: dict[str, torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = (replace(fakes.service_of(service), key="tensorboard"),)
    monkeypatch.setattr("utils.loggers.available.SERVICES", table)
    monkeypatch.setenv("YOLOV5_LOGGERS_WAIT", "2")
    result = train.run(**flags(name=service.__name__, loggers="auto"))

    assert _same(without_services, _state(result))
    warnings = [line for line in capsys.readouterr().err.splitlines() if "continues without it" in line]
    assert len(warnings) == 1 and warnings[0].startswith(f"WARNING: {service.__name__}: ")


def test_training_needs_no_service_to_be_installed(
    flags: Flags, without_services: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    for service in SERVICES:
        monkeypatch.setitem(sys.modules, service.package, None)
    result = train.run(**flags(name="bare", loggers="auto"))

    assert _same(without_services, _state(result))
    assert not list(result.save_dir.glob("events*")) and not (result.save_dir / "loggers").exists()


def test_the_uploaded_dataset_is_that_of_the_training(
    flags: Flags, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen: dict[str, dict[str, Path]] = {}

    def record(services: Any, dataset: dict[str, Path]) -> Callbacks:
        seen["files"] = dataset
        return Callbacks()

    monkeypatch.setattr("utils.train.callbacks.LoggerProcesses", record)
    monkeypatch.setattr("utils.loggers.available.SERVICES", (fakes.service_of(fakes.Diary),))
    for split, count in ((True, 12), ("val", 4)):
        with caplog.at_level(logging.ERROR):
            train.run(**flags(name="sets", loggers="auto", upload_dataset=split, epochs=1))
        images = {name for name in seen["files"] if name.endswith((".jpg", ".png"))}
        assert len(images) == count
        assert all(path.is_file() for path in seen["files"].values())
        assert any(name.startswith("labels/") for name in seen["files"])
