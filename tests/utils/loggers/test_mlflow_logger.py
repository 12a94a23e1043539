"""MLflow with a folder instead of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.utils.loggers.drive import MAP, drive, installed

pytestmark = installed("mlflow")


@pytest.fixture
def client(offline: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Client that reads what was logged."""
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_ALLOW_FILE_STORE"):
        monkeypatch.setenv(name, "true")
    from mlflow import MlflowClient

    store = (offline / "mlruns").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    return MlflowClient(store)


def runs(client: Any) -> list[Any]:
    return client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])


def test_a_resumed_run_continues_the_same_run(offline: Path, client: Any) -> None:
    drive("mlflow", offline / "cells" / "exp", range(2), completed=False, save_period=1)
    (stopped,) = runs(client)
    drive("mlflow", offline / "cells" / "exp", range(1, 3), resume="last.pt", save_period=1)

    (run,) = runs(client)
    assert (stopped.info.status, run.info.status) == ("KILLED", "FINISHED")
    assert run.info.run_name == "exp" and client.get_experiment(run.info.experiment_id).name == "cells"
    assert run.data.params["hyp/lr0"] == "0.01" and run.data.params["optimizer"] == "SGD"
    history = client.get_metric_history(run.info.run_id, MAP)
    assert [(m.step, m.value) for m in history] == [(0, 0), (1, 0.125), (2, 0.25)]
    assert run.data.metrics[f"best/{MAP}"] == 0.75 and "val/box_loss" not in run.data.metrics
    weights = [file.path for file in client.list_artifacts(run.info.run_id, "weights")]
    assert weights == [f"weights/{name}.pt" for name in ("best", "epoch0", "epoch1", "epoch2", "last")]
    assert [file.path for file in client.list_artifacts(run.info.run_id, "images")] == ["images/labels.jpg"]
