"""Log a run to MLflow (package mlflow or mlflow-skinny)."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from utils.loggers.service_logger import ServiceLogger

_BATCH = 100  # parameters per request, the limit of the server


class MLflowLogger(ServiceLogger):
    """MLflow run: metrics, options as parameters, images and checkpoints as artifacts."""

    key = "mlflow"

    def start(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a folder as the store is opt-in
        from mlflow import MlflowClient, entities

        self.entities = entities
        self.client = MlflowClient()  # at MLFLOW_TRACKING_URI
        known = self.state.get("run") or os.environ.get("MLFLOW_RUN_ID")
        if known:
            self.client.update_run(known, status="RUNNING")
        self.run: str = known or self._create()
        self.state["run"] = self.run
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
        values = [self.entities.Param(name, str(value)) for name, value in self.parameters.items()]
        for first in range(0, len(values), _BATCH):
            self.client.log_batch(self.run, params=values[first : first + _BATCH])

    def log_metrics(self, epoch: int, metrics: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        values: list[Any] = [self.entities.Metric(name, value, now, epoch) for name, value in metrics.items()]
        self.client.log_batch(self.run, metrics=values)

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        self.client.log_artifact(self.run, str(path), "predictions" if name == "predictions" else "images")

    def log_final_metrics(self, epoch: int, metrics: dict[str, float]) -> None:
        self.log_metrics(epoch, metrics)

    def log_checkpoints(self, paths: Sequence[Path], aliases: Sequence[str]) -> None:
        for path in paths:
            self.client.log_artifact(self.run, str(path), "weights")

    def finish(self, completed: bool) -> None:
        self.client.set_terminated(self.run, "FINISHED" if completed else "KILLED")
