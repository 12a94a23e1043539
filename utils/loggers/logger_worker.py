"""The process of one service: `python -m utils.loggers.logger_worker`, started by `logger_process`."""

from __future__ import annotations

import importlib
import json
import os
import queue
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import IO, Any

from utils.base.errors import one_line
from utils.loggers.logger_process import FAILED
from utils.loggers.service_logger import ServiceLogger

CALLS = (
    "on_params_update",
    "on_train_epoch_start",
    "on_fit_epoch_end",
    "on_images",
    "on_model_save",
    "on_train_end",
    "teardown",
)
ORPHANED = 60.0  # seconds to finish when the training process is gone


def main() -> None:
    """Hear moments from stdin until `teardown`, or until the one who tells is gone."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    source = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # who would prompt for something reads this
    threading.Thread(target=_read, args=(source, lines), daemon=True).start()
    try:
        service = _open(*decoded(lines.get())[1:])
        while True:
            call, *arguments = decoded(lines.get())
            if call in CALLS:
                getattr(service, call)(*arguments)
            if call == "teardown":
                break
    except Exception as error:
        traceback.print_exc()
        print(f"{FAILED}{type(error).__name__}: {one_line(error)}", file=sys.stderr, flush=True)
        os._exit(1)  # exit hooks of a service may wait for ever
    sys.stdout.flush()
    os._exit(0)


def _open(target: str, cwd: Path, folder: Path, trainer: int) -> ServiceLogger:
    module, _, name = target.partition(":")
    kind: type[ServiceLogger] = getattr(importlib.import_module(module), name)
    os.chdir(cwd)
    return kind(folder, trainer)


def _read(source: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    """Empty the pipe, however long the service takes, so that the training process never waits."""
    for line in source:
        lines.put(line)
    lines.put(b'["teardown"]')
    time.sleep(ORPHANED)
    os._exit(1)


def decoded(line: bytes) -> list[Any]:
    """A call and its arguments, from a line of JSON."""
    message: list[Any] = json.loads(line, object_hook=_path)
    return message


def _path(value: dict[str, Any]) -> Any:
    return Path(value["path"]) if set(value) == {"path"} else value


if __name__ == "__main__":
    main()
