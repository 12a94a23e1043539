"""Log a run to Comet (package comet_ml)."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.base.inputs import expand_user
from utils.loggers.service_logger import ServiceLogger

_DISABLED = (  # automatic logging of Comet; this logger decides what is logged
    "auto_metric_logging",
    "auto_param_logging",
    "auto_output_logging",
    "log_code",
    "log_graph",
    "parse_args",
)


def is_online(environment: Mapping[str, str]) -> bool:
    """Return whether an API key is configured and the mode is not offline."""
    if environment.get("COMET_MODE") == "offline":
        return False
    if environment.get("COMET_START_ONLINE", "").lower() in ("0", "false", "no"):
        return False
    return bool(environment.get("COMET_API_KEY")) or expand_user("~/.comet.config").is_file()


class CometLogger(ServiceLogger):
    """Comet experiment: metrics, options and images; checkpoints and the dataset as artifacts.

    Comet accepts artifacts only online: offline, checkpoints become models of the experiment, and the
    dataset is not uploaded.
    """

    key = "comet"

    def start(self) -> None:
        self.online = is_online(os.environ)
        if not self.online:
            # Errors would be reported to Comet, also offline.
            os.environ.setdefault("COMET_ERROR_TRACKING_ENABLE", "false")
        import comet_ml

        self.comet = comet_ml
        directory = os.environ.get("COMET_OFFLINE_DIRECTORY") or str(self.folder / "comet")
        key = self.state.get("experiment") or os.environ.get("COMET_EXPERIMENT_KEY") or uuid.uuid4().hex
        config: dict[str, Any] = {"name": self.folder.name, **dict.fromkeys(_DISABLED, False)}
        if not self.online:
            config |= {"offline_directory": directory, "log_env_details": False}  # these need the network
        self.experiment = comet_ml.start(
            online=self.online,
            workspace=self.options["entity"],
            project_name=os.environ.get("COMET_PROJECT_NAME") or self.project,
            experiment_key=key,
            experiment_config=comet_ml.ExperimentConfig(**config),
        )
        self.state["experiment"] = key
        if self.online:
            self.state["url"] = self.experiment.url
        if not self.resumed:
            self.experiment.log_parameters(self.parameters)

    def log_metrics(self, epoch: int, metrics: dict[str, float]) -> None:
        self.experiment.log_metrics(metrics, step=epoch, epoch=epoch)

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        self.experiment.log_image(str(path), name=name, step=epoch)

    def log_final_metrics(self, epoch: int, metrics: dict[str, float]) -> None:
        self.experiment.log_others(metrics)

    def log_checkpoints(self, paths: Sequence[Path], aliases: Sequence[str]) -> None:
        if self.online:
            self._log_artifact(f"{self.folder.name}_model", "model", {p.name: str(p) for p in paths}, aliases)
            return
        for path in paths:
            self.experiment.log_model("YOLOv5", str(path), file_name=path.name, overwrite=True)

    def log_dataset(self, name: str, files: Mapping[str, str]) -> None:
        if self.online:
            self._log_artifact(name, "dataset", files, [self.options["artifact_alias"]])
        else:
            print("--upload_dataset: Comet accepts artifacts only online")

    def _log_artifact(self, name: str, kind: str, files: Mapping[str, str], aliases: Sequence[str]) -> None:
        artifact = self.comet.Artifact(name, kind, aliases=list(aliases))
        for name_inside, file in files.items():
            artifact.add(file, logical_path=name_inside)
        self.experiment.log_artifact(artifact)

    def finish(self, completed: bool) -> None:
        self.experiment.end()
