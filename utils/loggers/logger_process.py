"""Logging services run in subprocesses: whatever happens to one, training continues with the same results.

The training process writes a line of JSON for each moment into a pipe and waits for nothing until its
end, and there for a limited time. No service's code, threads, exit hooks or random numbers come near it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.base.paths import ROOT, relative_to_cwd
from utils.base.processes import last_line
from utils.base.yaml_io import read_yaml
from utils.loggers.available import Service
from utils.loggers.callbacks import Callbacks

FOLDER = "loggers"  # in the run folder: what services print, and what they need to go on
DATASET = "dataset.json"  # there: files of the dataset, by their name in the artifact
WAIT = 60.0  # seconds that all services together have to finish
FAILED = "FAILED: "  # begins the line of a log that says why
_QUIET = 3.0  # seconds before the wait is mentioned
_IMAGES = ("*.jpg", "*.png", "predictions/*.jpg")


class LoggerProcesses(Callbacks):
    """Tell every service of a run what is plain data: options, rows, and paths of files."""

    def __init__(self, kinds: Sequence[Service], dataset: Mapping[str, Path] | None = None) -> None:
        """Take services, and the files of the dataset (by their name there) if they are to be uploaded."""
        self.children = [LoggerProcess(kind) for kind in kinds]
        self.dataset = dataset
        self.folder = Path()
        self.shown: set[tuple[Path, int]] = set()  # images, with the time they were written

    def on_pretrain_routine_start(self, save_dir: Path) -> None:
        self.folder = save_dir.resolve()
        self.shown = set(self._images())  # of an earlier run in this folder
        (self.folder / FOLDER).mkdir(exist_ok=True)
        if self.dataset is not None:
            text = json.dumps({name: str(path) for name, path in self.dataset.items()})
            (self.folder / FOLDER / DATASET).write_text(text, encoding="utf-8")
        for child in self.children:
            child.start(self.folder)
        self._announce()

    def on_params_update(self, options: dict[str, Any]) -> None:
        if not options.get("resume"):  # notes of an earlier run in this folder
            for notes in (self.folder / FOLDER).glob("*.yaml"):
                notes.unlink()
        self._tell("on_params_update", options)

    def on_train_epoch_start(self, epoch: int) -> None:
        self._tell("on_train_epoch_start", epoch)

    def on_fit_epoch_end(self, epoch: int, row: dict[str, float]) -> None:
        self._tell("on_fit_epoch_end", epoch, row)
        self._show(epoch)

    def on_model_save(self, path: Path, epoch: int, best: bool) -> None:
        self._tell("on_model_save", path.resolve(), epoch, best)

    def on_train_end(self, save_dir: Path, row: dict[str, float]) -> None:
        self._show(int(row.get("epoch", 0)))
        self._tell("on_train_end", self.folder, row)

    def teardown(self) -> None:
        if not self.folder.is_absolute():  # the run ended before it had a folder
            return
        started, limit = time.monotonic(), _limit()
        for child in self.children:
            child.tell("teardown")
        try:
            for child in self.children:
                child.wait(started, limit)
        except BaseException:  # a second Ctrl-C: nobody waits any longer
            for child in self.children:
                child.kill()
            raise
        self._tidy()

    def _tell(self, call: str, *arguments: Any) -> None:
        for child in self.children:
            child.tell(call, *arguments)

    def _announce(self) -> None:
        """Say where the run can be looked at."""
        titles = {child.kind.key: child.kind.title for child in self.children}
        if titles.pop("tensorboard", None):
            place = relative_to_cwd(self.folder.parent)
            LOG.info(
                f"TensorBoard: Start with 'tensorboard --logdir {place}', view at http://localhost:6006/"
            )
        if titles:
            LOG.info(f"Logging to {', '.join(titles.values())}, too")

    def _show(self, epoch: int) -> None:
        """Tell of the images that are new since the last time."""
        new = [item for item in self._images() if item not in self.shown]
        self.shown.update(new)
        if new:
            self._tell("on_images", epoch, [path for path, _ in new])

    def _images(self) -> list[tuple[Path, int]]:
        found = []
        for path in sorted(path for pattern in _IMAGES for path in self.folder.glob(pattern)):
            with suppress(OSError):  # somebody has just removed it
                found.append((path, path.stat().st_mtime_ns))
        return found

    def _tidy(self) -> None:
        """Remove what was needed only while services ran, and logs that say nothing."""
        place = self.folder / FOLDER
        (place / DATASET).unlink(missing_ok=True)
        for child in self.children:
            if child.log.is_file() and not child.log.stat().st_size:
                child.log.unlink()
        if place.is_dir() and not any(place.iterdir()):
            place.rmdir()


class LoggerProcess:
    """The process of one service. The first thing that goes wrong with it is told, and ends it."""

    def __init__(self, kind: Service) -> None:
        self.kind = kind
        self.log = Path()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, folder: Path) -> None:
        """Start the service for a run in `folder`."""
        self.log = folder / FOLDER / f"{self.kind.key}.txt"
        self.log.unlink(missing_ok=True)
        try:
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "utils.loggers.logger_worker"],
                    cwd=ROOT,  # the child goes to our folder when it has found its modules
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    bufsize=0,
                    start_new_session=True,  # Ctrl-C is for the training, which then ends the service
                )
            assert self.process.stdin is not None
            if hasattr(os, "set_blocking"):  # missing on Windows before Python 3.12
                os.set_blocking(self.process.stdin.fileno(), False)
        except OSError as error:
            self._drop(str(error))
        self.tell("open", self.kind.target, Path.cwd(), folder, os.getpid())

    def tell(self, call: str, *arguments: Any) -> None:
        """Pass a moment on, without waiting for anything."""
        if self.process is None:
            return
        if self.process.poll() is not None:
            self._drop(self._reason())
            return
        assert self.process.stdin is not None
        line = json.dumps([call, *arguments], default=_plain).encode() + b"\n"
        try:
            written = self.process.stdin.write(line)
        except OSError:  # it ended a moment ago
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
            self._drop(self._reason())
            return
        if written != len(line):  # the pipe is full: it has not read for long
            self._drop("it does not keep up")

    def wait(self, started: float, limit: float) -> None:
        """Give the service until `limit` seconds after `started` to finish, and say where its results are."""
        if self.process is None:
            return
        title = self.kind.title
        try:
            status = self.process.wait(max(started + min(_QUIET, limit) - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            if limit > _QUIET:
                LOG.info(f"Waiting for {title} to finish, {limit:g} s at most")
            try:
                status = self.process.wait(max(started + limit - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                self._drop(f"it did not finish within {limit:g} s (YOLOV5_LOGGERS_WAIT)")
                return
        if status:
            self._drop(self._reason())
            return
        self.process = None
        if url := self._notes().get("url"):
            LOG.info(f"{title}: {url}")

    def kill(self) -> None:
        """End the process, and those that it has started."""
        if self.process is None:
            return
        with suppress(OSError):  # none of them is there any more
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)  # its session is its process group
            else:
                self.process.kill()
        with suppress(subprocess.TimeoutExpired):  # of a disk that does not answer
            self.process.wait(5)
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None

    def _drop(self, reason: str) -> None:
        self.kill()
        LOG.warning(f"{self.kind.title}: {reason}; this run goes on without it")

    def _reason(self) -> str:
        """The error that a process ended with, and where more about it is."""
        lines = self.log.read_text(errors="replace").splitlines()
        told = [line.removeprefix(FAILED) for line in lines if line.startswith(FAILED)]
        return f"{(told or [last_line(self.log)])[0][:300]} (see {relative_to_cwd(self.log)})"

    def _notes(self) -> dict[str, Any]:
        try:
            return read_yaml(self.log.with_suffix(".yaml"))
        except ConfigError:  # it had nothing to note
            return {}


def _limit() -> float:
    """Seconds to wait at the end."""
    try:
        return float(os.environ.get("YOLOV5_LOGGERS_WAIT", WAIT))
    except ValueError:
        return WAIT


def _plain(value: Any) -> Any:
    """What JSON does not know: paths are marked, anything else becomes text."""
    return {"path": str(value)} if isinstance(value, Path) else str(value)
