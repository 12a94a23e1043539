"""Hand a run to Weights & Biases (package wandb)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from utils.loggers.service_logger import ServiceLogger


class WandbLogger(ServiceLogger):
    """Figures and images by epoch, options as config, checkpoints and the dataset as artifacts."""

    key = "wandb"

    def begin(self) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        if os.environ.get("WANDB_MODE", "").lower() in ("offline", "dryrun"):
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it would call home, offline or not
        import wandb

        self.wandb = wandb
        settings = wandb.Settings(console="off", x_stats_pid=self.trainer)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or self.project,
            entity=self.options["entity"],
            name=os.environ.get("WANDB_NAME") or self.folder.name,
            id=self.notes.get("run") or os.environ.get("WANDB_RUN_ID"),
            resume="allow",
            dir=os.environ.get("WANDB_DIR") or str(self.folder),
            config=None if self.resumed else self.flat,
            job_type="training",
            settings=settings,
        )
        self.notes["run"] = self.run.id
        if not self.run.offline:
            self.notes["url"] = self.run.url

    def log_row(self, epoch: int, row: dict[str, float]) -> None:
        self.run.log(row, step=epoch)

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        # At the current step, that of the latest row: W&B drops what comes for an earlier one.
        self.run.log({name: self.wandb.Image(str(path), caption=path.name)}, commit=False)

    def log_result(self, epoch: int, row: dict[str, float]) -> None:
        self.run.summary.update(row)

    def log_model(self, paths: Sequence[Path], aliases: Sequence[str]) -> None:
        artifact = self.wandb.Artifact(f"run_{self.run.id}_model", type="model")
        for path in paths:
            artifact.add_file(str(path), name=path.name)
        self.run.log_artifact(artifact, aliases=list(aliases))

    def log_dataset(self, name: str, files: Mapping[str, str]) -> None:
        artifact = self.wandb.Artifact(name, type="dataset")
        for inside, file in files.items():
            artifact.add_file(file, name=inside, policy="immutable")  # no copy of the set on this disk
        self.run.log_artifact(artifact, aliases=[self.options["artifact_alias"]])

    def finish(self, done: bool) -> None:
        self.run.finish(exit_code=0 if done else 1)
        self.wandb.teardown()
