"""Run each logging service in a subprocess, so that a failing or hanging one never affects the training.

The training process writes each callback event as a line of JSON into a pipe, without waiting; only at its
end it waits, for a limited time. Code, threads, exit handlers and random number generators of services
stay out of the training process.
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

FOLDER = "loggers"  # in the run folder: output of the services, and their state for a resumed run
DATASET = "dataset.json"  # in FOLDER: files of the dataset, by their path in the artifact
WAIT = 60.0  # seconds that all services together have to finish
FAILED = "FAILED: "  # prefix of the line of a log with the error
_QUIET = 3.0  # seconds of waiting before a message
_IMAGES = ("*.jpg", "*.png", "predictions/*.jpg")


class LoggerProcesses(Callbacks):
    """Callback that sends events to the logger process of every service: options, metrics, file paths."""

    def __init__(self, services: Sequence[Service], dataset: Mapping[str, Path] | None = None) -> None:
        """Store the services, and the files of the dataset by their path in it, if it is to be uploaded."""
        self.processes = [LoggerProcess(service) for service in services]
        self.dataset = dataset
        self.folder = Path()
        self.logged_images: set[tuple[Path, int]] = set()  # with the time they were written

    def on_pretrain_routine_start(self, save_dir: Path) -> None:
        self.folder = save_dir.resolve()
        self.logged_images = set(self._images())  # of an earlier run in this folder
        (self.folder / FOLDER).mkdir(exist_ok=True)
        if self.dataset is not None:
            text = json.dumps({name: str(path) for name, path in self.dataset.items()})
            (self.folder / FOLDER / DATASET).write_text(text, encoding="utf-8")
        for process in self.processes:
            process.start(self.folder)
        self._print_services()

    def on_params_update(self, options: dict[str, Any]) -> None:
        if not options.get("resume"):  # state of an earlier run in this folder
            for state in (self.folder / FOLDER).glob("*.yaml"):
                state.unlink()
        self._send("on_params_update", options)

    def on_train_epoch_start(self, epoch: int) -> None:
        self._send("on_train_epoch_start", epoch)

    def on_fit_epoch_end(self, epoch: int, row: dict[str, float]) -> None:
        self._send("on_fit_epoch_end", epoch, row)
        self._send_new_images(epoch)

    def on_model_save(self, path: Path, epoch: int, best: bool) -> None:
        self._send("on_model_save", path.resolve(), epoch, best)

    def on_train_end(self, save_dir: Path, row: dict[str, float]) -> None:
        self._send_new_images(int(row.get("epoch", 0)))
        self._send("on_train_end", self.folder, row)

    def teardown(self) -> None:
        if not self.folder.is_absolute():  # the run ended before it had a folder
            return
        started, limit = time.monotonic(), _wait_limit()
        self._send("teardown")
        try:
            for process in self.processes:
                process.wait(started, limit)
        except BaseException:  # a second Ctrl-C
            for process in self.processes:
                process.kill()
            raise
        self._clean_up()

    def _send(self, event: str, *arguments: Any) -> None:
        for process in self.processes:
            process.send(event, *arguments)

    def _print_services(self) -> None:
        """Print where the run can be viewed."""
        titles = {process.service.key: process.service.title for process in self.processes}
        if titles.pop("tensorboard", None):
            logdir = relative_to_cwd(self.folder.parent)
            LOG.info(
                f"TensorBoard: Start with 'tensorboard --logdir {logdir}', view at http://localhost:6006/"
            )
        if titles:
            LOG.info(f"Logging to {', '.join(titles.values())}")

    def _send_new_images(self, epoch: int) -> None:
        new = [item for item in self._images() if item not in self.logged_images]
        self.logged_images.update(new)
        if new:
            self._send("on_images", epoch, [path for path, _ in new])

    def _images(self) -> list[tuple[Path, int]]:
        images = []
        for path in sorted(path for pattern in _IMAGES for path in self.folder.glob(pattern)):
            with suppress(OSError):  # it was removed in between
                images.append((path, path.stat().st_mtime_ns))
        return images

    def _clean_up(self) -> None:
        """Remove the file list of the dataset, empty logs, and the folder if nothing is left."""
        folder = self.folder / FOLDER
        (folder / DATASET).unlink(missing_ok=True)
        for process in self.processes:
            if process.log.is_file() and not process.log.stat().st_size:
                process.log.unlink()
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


class LoggerProcess:
    """The subprocess of one service. At its first error it is ended, with a warning."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.log = Path()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, folder: Path) -> None:
        """Start the service for a run in `folder`."""
        self.log = folder / FOLDER / f"{self.service.key}.txt"
        self.log.unlink(missing_ok=True)
        try:
            with self.log.open("wb") as log:
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "utils.loggers.logger_worker"],
                    cwd=ROOT,  # to find its modules; it then changes to our working directory
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
            self._disable(str(error))
        self.send("open", self.service.logger, Path.cwd(), folder, os.getpid())

    def send(self, event: str, *arguments: Any) -> None:
        """Send an event without waiting for anything."""
        if self.process is None:
            return
        if self.process.poll() is not None:
            self._disable(self._error())
            return
        assert self.process.stdin is not None
        line = json.dumps([event, *arguments], default=_to_json).encode() + b"\n"
        try:
            written = self.process.stdin.write(line)
        except OSError:  # it has just ended
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
            self._disable(self._error())
            return
        if written != len(line):  # the pipe is full: it has not read for long
            self._disable("it does not keep up")

    def wait(self, started: float, limit: float) -> None:
        """Wait until `limit` seconds after `started` for the process to finish, then print its URL."""
        if self.process is None:
            return
        title = self.service.title
        try:
            status = self.process.wait(max(started + min(_QUIET, limit) - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            if limit > _QUIET:
                LOG.info(f"Waiting for {title} to finish, {limit:g} s at most")
            try:
                status = self.process.wait(max(started + limit - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                self._disable(f"it did not finish within {limit:g} s (YOLOV5_LOGGERS_WAIT)")
                return
        if status:
            self._disable(self._error())
            return
        self.process = None
        if url := self._state().get("url"):
            LOG.info(f"{title}: {url}")

    def kill(self) -> None:
        """Kill the process and its child processes."""
        if self.process is None:
            return
        with suppress(OSError):  # all have ended
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)  # its session is its process group
            else:
                self.process.kill()
        with suppress(subprocess.TimeoutExpired):  # blocked by a disk that does not respond
            self.process.wait(5)
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None

    def _disable(self, reason: str) -> None:
        self.kill()
        LOG.warning(f"{self.service.title}: {reason}; this run continues without it")

    def _error(self) -> str:
        """Return the error that the process ended with, and the path of its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        errors = [line.removeprefix(FAILED) for line in lines if line.startswith(FAILED)]
        return f"{(errors or [last_line(self.log)])[0][:300]} (see {relative_to_cwd(self.log)})"

    def _state(self) -> dict[str, Any]:
        try:
            return read_yaml(self.log.with_suffix(".yaml"))
        except ConfigError:  # the service has no state
            return {}


def _wait_limit() -> float:
    try:
        return float(os.environ.get("YOLOV5_LOGGERS_WAIT", WAIT))
    except ValueError:
        return WAIT


def _to_json(value: Any) -> Any:
    """Encode a path so that the logger process can restore it; other values that JSON lacks as text."""
    return {"path": str(value)} if isinstance(value, Path) else str(value)
