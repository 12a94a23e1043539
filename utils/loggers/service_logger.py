"""Base class of the loggers of services; it runs in the logger process of each service."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from utils.base.yaml_io import plain, read_yaml, write_yaml
from utils.loggers.callbacks import Callbacks
from utils.loggers.logger_process import DATASET, FOLDER


class ServiceLogger(Callbacks):
    """Callback that logs a run to a service; subclasses implement `start`, the `log_*` methods and `finish`.

    An exception ends the logger process and does not affect the training.
    """

    key = ""
    overwrites_steps = False  # logging an epoch again, after resuming, replaces what was logged

    def __init__(self, folder: Path, trainer_pid: int) -> None:
        """Store the run folder, and the id of the training process."""
        self.folder = folder
        self.trainer_pid = trainer_pid
        self.options: dict[str, Any] = {}
        self.state: dict[str, Any] = {}  # ids of the run and its last epoch, kept in the run folder
        self.resumed = False  # whether to continue the run that `state` names
        self.completed = False

    def on_params_update(self, options: dict[str, Any]) -> None:
        self.options = plain(options)
        if options.get("resume") and self._state_file.is_file():
            self.state = read_yaml(self._state_file)
        self.resumed = bool(self.state)
        self.start()
        self._save_state()
        if options.get("upload_dataset"):
            files = json.loads((self.folder / FOLDER / DATASET).read_text(encoding="utf-8"))
            self.log_dataset(Path(options["data"]).stem, files)

    def on_fit_epoch_end(self, epoch: int, row: dict[str, float]) -> None:
        if epoch <= self.state.get("epoch", -1) and not self.overwrites_steps:
            return  # the run was killed after it logged this epoch and before it saved a checkpoint
        self.log_metrics(epoch, measured(row))
        if self.state:
            self.state["epoch"] = epoch
            self._save_state()

    def on_images(self, epoch: int, paths: Sequence[Path]) -> None:
        """Log the images that were written since the last call."""
        for path in paths:
            name = "predictions" if path.parent.name == "predictions" else path.stem
            self.log_image(name, path, epoch)

    def on_model_save(self, path: Path, epoch: int, best: bool) -> None:
        period = self.options["save_period"]
        if period > 0 and epoch % period == 0:
            self.log_checkpoints([path.with_name(f"epoch{epoch}.pt")], self._aliases(best, f"epoch {epoch}"))

    def on_train_end(self, save_dir: Path, row: dict[str, float]) -> None:
        final = {
            f"best/{name}": value
            for name, value in measured(row).items()
            if name.startswith(("metrics/", "val/"))
        }
        self.log_final_metrics(int(row["epoch"]), final)
        paths = [save_dir / "weights" / name for name in ("best.pt", "last.pt")]
        if existing := [path for path in paths if path.is_file()]:
            self.log_checkpoints(existing, self._aliases(best=True))
        self.completed = True

    def teardown(self) -> None:
        if self.options:
            self.finish(self.completed)

    def start(self) -> None:
        """Create the run, or continue the one in `state`; `options` are known."""

    def log_metrics(self, epoch: int, metrics: dict[str, float]) -> None:
        """Log the metrics of an epoch, by the column names of results.csv."""

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        """Log an image file."""

    def log_checkpoints(self, paths: Sequence[Path], aliases: Sequence[str]) -> None:
        """Log checkpoints that are one version of the model."""

    def log_dataset(self, name: str, files: Mapping[str, str]) -> None:
        """Upload the dataset, files by their path in it."""

    def log_final_metrics(self, epoch: int, metrics: dict[str, float]) -> None:
        """Log the metrics of best.pt, which is validated again at the end, as `best/...`."""

    def finish(self, completed: bool) -> None:
        """Close the run; `completed` is False if it ended early."""

    @property
    def project(self) -> str:
        """Project name of the run: the folder of all runs, or YOLOv5-LSKA for the default folder."""
        folder = Path(self.options["project"])
        return "YOLOv5-LSKA" if folder.parts[-2:] == ("runs", "train") else folder.name

    @property
    def parameters(self) -> dict[str, Any]:
        """Options, and hyperparameters as `hyp/lr0` and so on."""
        options = {key: value for key, value in self.options.items() if not isinstance(value, dict)}
        return options | {f"hyp/{key}": value for key, value in self.options.get("hyp", {}).items()}

    @property
    def _state_file(self) -> Path:
        return self.folder / FOLDER / f"{self.key}.yaml"

    def _save_state(self) -> None:
        if self.state:
            write_yaml(self._state_file, self.state)

    def _aliases(self, best: bool, *more: str) -> list[str]:
        """Return the aliases of a version of the model, without duplicates."""
        names = ["latest", *(["best"] if best else []), *more, self.options["artifact_alias"]]
        return list(dict.fromkeys(names))


def measured(row: Mapping[str, float]) -> dict[str, float]:
    """Return a row of results.csv without its epoch and without NaN, which was not measured."""
    return {name: value for name, value in row.items() if name != "epoch" and not math.isnan(value)}
