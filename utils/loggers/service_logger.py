"""What all logging services have in common, in the process of each."""

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
    """A callback that hands a run to a service; subclasses say how, in the methods below `begin`.

    Whatever they raise ends their process, and nothing else.
    """

    key = ""
    rewinds = False  # what a resumed run tells once more replaces what the service has

    def __init__(self, folder: Path, trainer: int) -> None:
        """Take the run folder, and the id of the process that trains."""
        self.folder = folder
        self.trainer = trainer
        self.options: dict[str, Any] = {}
        self.notes: dict[str, Any] = {}  # kept in the run folder, for a resumed run
        self.resumed = False  # ... which goes on with what they name
        self.done = False

    def on_params_update(self, options: dict[str, Any]) -> None:
        self.options = plain(options)
        if options.get("resume") and self._notes_file.is_file():
            self.notes = read_yaml(self._notes_file)
        self.resumed = bool(self.notes)
        self.begin()
        self._write_notes()
        if options.get("upload_dataset"):
            files = json.loads((self.folder / FOLDER / DATASET).read_text(encoding="utf-8"))
            self.log_dataset(Path(options["data"]).stem, files)

    def on_fit_epoch_end(self, epoch: int, row: dict[str, float]) -> None:
        if epoch <= self.notes.get("epoch", -1) and not self.rewinds:
            return  # the run was killed after it told this epoch, and before it saved it
        self.log_row(epoch, measured(row))
        if self.notes:
            self.notes["epoch"] = epoch
            self._write_notes()

    def on_images(self, epoch: int, paths: Sequence[Path]) -> None:
        """Take images that have been drawn since the last time."""
        for path in paths:
            name = "predictions" if path.parent.name == "predictions" else path.stem
            self.log_image(name, path, epoch)

    def on_model_save(self, path: Path, epoch: int, best: bool) -> None:
        period = self.options["save_period"]
        if period > 0 and epoch % period == 0:
            self.log_model([path.with_name(f"epoch{epoch}.pt")], self._aliases(best, f"epoch {epoch}"))

    def on_train_end(self, save_dir: Path, row: dict[str, float]) -> None:
        final = {
            name: value for name, value in measured(row).items() if name.startswith(("metrics/", "val/"))
        }
        self.log_result(int(row["epoch"]), {f"best/{name}": value for name, value in final.items()})
        paths = [save_dir / "weights" / name for name in ("best.pt", "last.pt")]
        if kept := [path for path in paths if path.is_file()]:
            self.log_model(kept, self._aliases(best=True))
        self.done = True

    def teardown(self) -> None:
        if self.options:
            self.finish(self.done)

    def begin(self) -> None:
        """Open the run, or go on with the one in `notes`; `options` are known."""

    def log_row(self, epoch: int, row: dict[str, float]) -> None:
        """Take an epoch's figures, by the names of results.csv."""

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        """Take an image."""

    def log_model(self, paths: Sequence[Path], aliases: Sequence[str]) -> None:
        """Take checkpoints that belong together."""

    def log_dataset(self, name: str, files: Mapping[str, str]) -> None:
        """Take the dataset: files by their name in it."""

    def log_result(self, epoch: int, row: dict[str, float]) -> None:
        """Take the figures of best.pt, measured once more at the end."""

    def finish(self, done: bool) -> None:
        """Close the run; `done` unless something ended it early."""

    @property
    def project(self) -> str:
        """What to file the run under: the folder of all runs, unless that is the usual one."""
        folder = Path(self.options["project"])
        return "YOLOv5-LSKA" if folder.parts[-2:] == ("runs", "train") else folder.name

    @property
    def flat(self) -> dict[str, Any]:
        """Options and hyperparameters, the latter as hyp/lr0 and so on."""
        options = {key: value for key, value in self.options.items() if not isinstance(value, dict)}
        return options | {f"hyp/{key}": value for key, value in self.options.get("hyp", {}).items()}

    @property
    def _notes_file(self) -> Path:
        return self.folder / FOLDER / f"{self.key}.yaml"

    def _write_notes(self) -> None:
        if self.notes:
            write_yaml(self._notes_file, self.notes)

    def _aliases(self, best: bool, *more: str) -> list[str]:
        """Names of a version of the model, each once."""
        names = ["latest", *(["best"] if best else []), *more, self.options["artifact_alias"]]
        return list(dict.fromkeys(names))


def measured(row: Mapping[str, float]) -> dict[str, float]:
    """The figures of a row of results.csv, without its number and what was not measured."""
    return {name: value for name, value in row.items() if name != "epoch" and not math.isnan(value)}
