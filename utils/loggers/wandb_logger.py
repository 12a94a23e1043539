"""Log a run to Weights & Biases (package wandb)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.loggers.service_logger import ServiceLogger


class WandbLogger(ServiceLogger):
    """W&B run: metrics and images by epoch, options as config, checkpoints and the dataset as artifacts."""

    key = "wandb"

    def start(self) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        if os.environ.get("WANDB_MODE", "").lower() in ("offline", "dryrun"):
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # would contact its server, also offline
        import wandb

        self.wandb = wandb
        settings = wandb.Settings(console="off", x_stats_pid=self.trainer_pid)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or self.project,
            entity=self.options["entity"],
            name=os.environ.get("WANDB_NAME") or self.folder.name,
            id=self.state.get("run") or os.environ.get("WANDB_RUN_ID"),
            resume="allow",
            dir=os.environ.get("WANDB_DIR") or str(self.folder),
            config=None if self.resumed else self.parameters,
            job_type="training",
            settings=settings,
        )
        self.state["run"] = self.run.id
        if not self.run.offline:
            self.state["url"] = self.run.url

    def log_metrics(self, epoch: int, metrics: dict[str, float]) -> None:
        self.run.log(metrics, step=epoch)

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        # Logged at the current step, that of the latest metrics: W&B drops data of earlier steps.
        self.run.log({name: self.wandb.Image(str(path), caption=path.name)}, commit=False)

    def log_final_metrics(self, epoch: int, metrics: dict[str, float]) -> None:
        self.run.summary.update(metrics)

    def log_checkpoints(self, paths: Sequence[Path], aliases: Sequence[str]) -> None:
        artifact = self.wandb.Artifact(f"run_{self.run.id}_model", type="model")
        for path in paths:
            artifact.add_file(str(path), name=path.name)
        self.run.log_artifact(artifact, aliases=list(aliases))

    def log_dataset(self, name: str, files: Mapping[str, str]) -> None:
        artifact = self.wandb.Artifact(name, type="dataset")
        for name_inside, file in files.items():
            artifact.add_file(file, name=name_inside, policy="immutable")  # without copying the dataset
        self.run.log_artifact(artifact, aliases=[self.options["artifact_alias"]])

    def finish(self, completed: bool) -> None:
        self.run.finish(exit_code=0 if completed else 1)
        self.wandb.teardown()
