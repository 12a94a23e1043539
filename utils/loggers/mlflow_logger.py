"""Hand a run to MLflow (package mlflow or mlflow-skinny)."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.loggers.service_logger import ServiceLogger

_BATCH = 100  # parameters that the server takes at once


class MLflowLogger(ServiceLogger):
    """Figures as metrics, options as parameters, images and checkpoints as artifacts."""

    key = "mlflow"

    def begin(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # who names a folder wants it used
        from mlflow import MlflowClient, entities

        self.entities = entities
        self.client = MlflowClient()  # at MLFLOW_TRACKING_URI
        known = self.notes.get("run") or os.environ.get("MLFLOW_RUN_ID")
        if known:
            self.client.update_run(known, status="RUNNING")
        self.run: str = known or self._create()
        self.notes["run"] = self.run
        if not known:
            self._log_parameters()

    def _create(self) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_ID")
        if not experiment:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or self.project
            found = self.client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else self.client.create_experiment(name)
        return str(self.client.create_run(experiment, run_name=self.folder.name).info.run_id)

    def _log_parameters(self) -> None:
        values = [self.entities.Param(name, str(value)) for name, value in self.flat.items()]
        for first in range(0, len(values), _BATCH):
            self.client.log_batch(self.run, params=values[first : first + _BATCH])

    def log_row(self, epoch: int, row: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics: list[Any] = [self.entities.Metric(name, value, now, epoch) for name, value in row.items()]
        self.client.log_batch(self.run, metrics=metrics)

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        self.client.log_artifact(self.run, str(path), "predictions" if name == "predictions" else "images")

    def log_result(self, epoch: int, row: dict[str, float]) -> None:
        self.log_row(epoch, row)

    def log_model(self, paths: Sequence[Path], aliases: Sequence[str]) -> None:
        for path in paths:
            self.client.log_artifact(self.run, str(path), "weights")

    def finish(self, done: bool) -> None:
        self.client.set_terminated(self.run, "FINISHED" if done else "KILLED")
