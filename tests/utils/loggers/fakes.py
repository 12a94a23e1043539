"""Loggers of services that fail in different ways."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from utils.loggers.available import Service
from utils.loggers.service_logger import ServiceLogger


class Diary(ServiceLogger):
    """Logger that writes everything to a file."""

    key = "diary"

    def start(self) -> None:
        self.file = self.folder / "diary.txt"
        self._write(f"start {'resumed' if self.resumed else 'new'} lr0={self.parameters['hyp/lr0']}")
        self.state["run"] = 1

    def log_metrics(self, epoch: int, metrics: dict[str, float]) -> None:
        self._write(f"metrics {epoch} {metrics}")

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        self._write(f"image {name} {epoch}")

    def log_checkpoints(self, paths: Sequence[Path], aliases: Sequence[str]) -> None:
        self._write(f"checkpoints {' '.join(path.name for path in paths)}: {', '.join(aliases)}")

    def finish(self, completed: bool) -> None:
        self._write(f"finish {completed}")

    def _write(self, line: str) -> None:
        with self.file.open("a") as file:
            file.write(f"{line}\n")


class Fails(ServiceLogger):
    """Logger that raises at the first metrics."""

    key = "fails"

    def log_metrics(self, epoch: int, metrics: dict[str, float]) -> None:
        raise ConnectionError("the server\nis gone")


class Dies(ServiceLogger):
    """Logger that kills its process."""

    key = "dies"

    def start(self) -> None:
        print("about to die", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


class Asks(ServiceLogger):
    """Logger that prompts for input."""

    key = "asks"

    def start(self) -> None:
        input("API key: ")


class Hangs(ServiceLogger):
    """Logger that blocks for ever at its start, after it has written the id of its process."""

    key = "hangs"

    def start(self) -> None:
        (self.folder / "pid").write_text(str(os.getpid()))
        while True:
            time.sleep(3600)


def service_of(logger: type[ServiceLogger]) -> Service:
    """Return a table entry for a logger."""
    target = f"{logger.__module__}:{logger.__name__}"
    return Service(logger.key, logger.__name__, "json", target, lambda environment: True, "", ())
