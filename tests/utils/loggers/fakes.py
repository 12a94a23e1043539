"""LoggerProcesses that fail in every way a service can."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from utils.loggers.available import Service
from utils.loggers.service_logger import ServiceLogger


class Diary(ServiceLogger):
    """Write down what it is told."""

    key = "diary"

    def begin(self) -> None:
        self.file = self.folder / "diary.txt"
        self._write(f"begin {'again' if self.resumed else 'new'} lr0={self.flat['hyp/lr0']}")
        self.notes["run"] = 1

    def log_row(self, epoch: int, row: dict[str, float]) -> None:
        self._write(f"row {epoch} {row}")

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        self._write(f"image {name} {epoch}")

    def log_model(self, paths: Sequence[Path], aliases: Sequence[str]) -> None:
        self._write(f"model {' '.join(path.name for path in paths)}: {', '.join(aliases)}")

    def finish(self, done: bool) -> None:
        self._write(f"finish {done}")

    def _write(self, line: str) -> None:
        with self.file.open("a") as file:
            file.write(f"{line}\n")


class Fails(ServiceLogger):
    """Raise at the first row."""

    key = "fails"

    def log_row(self, epoch: int, row: dict[str, float]) -> None:
        raise ConnectionError("the server\nis gone")


class Dies(ServiceLogger):
    """Take the whole process down."""

    key = "dies"

    def begin(self) -> None:
        print("about to die", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)


class Asks(ServiceLogger):
    """Want an answer from whoever sits at the terminal."""

    key = "asks"

    def begin(self) -> None:
        input("API key: ")


class Hangs(ServiceLogger):
    """Block for ever as soon as it is opened, and note which process that is."""

    key = "hangs"

    def begin(self) -> None:
        (self.folder / "pid").write_text(str(os.getpid()))
        while True:
            time.sleep(3600)


def kind(service: type[ServiceLogger]) -> Service:
    """The entry that the table of services would have for it."""
    target = f"{service.__module__}:{service.__name__}"
    return Service(service.key, service.__name__, "json", target, lambda environment: True, "", ())
