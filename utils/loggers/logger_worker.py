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

EVENTS = (
    "on_params_update",
    "on_train_epoch_start",
    "on_fit_epoch_end",
    "on_images",
    "on_model_save",
    "on_train_end",
    "teardown",
)
ORPHANED = 60.0  # seconds to finish after the training process has ended


def main() -> None:
    """Read callback events from stdin until `teardown` or EOF."""
    lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    source = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # prompts of a service read EOF and fail
    threading.Thread(target=_read, args=(source, lines), daemon=True).start()
    try:
        logger = _open(*decode(lines.get())[1:])
        while True:
            event, *arguments = decode(lines.get())
            if event in EVENTS:
                getattr(logger, event)(*arguments)
            if event == "teardown":
                break
    except Exception as error:
        traceback.print_exc()
        print(f"{FAILED}{type(error).__name__}: {one_line(error)}", file=sys.stderr, flush=True)
        os._exit(1)  # exit handlers of a service may hang
    sys.stdout.flush()
    os._exit(0)


def _open(target: str, cwd: Path, folder: Path, trainer_pid: int) -> ServiceLogger:
    module, _, name = target.partition(":")
    logger_class: type[ServiceLogger] = getattr(importlib.import_module(module), name)
    os.chdir(cwd)
    return logger_class(folder, trainer_pid)


def _read(source: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    """Keep the pipe empty, however slow the service is, so that the training process never waits."""
    for line in source:
        lines.put(line)
    lines.put(b'["teardown"]')
    time.sleep(ORPHANED)
    os._exit(1)


def decode(line: bytes) -> list[Any]:
    """Decode an event and its arguments from a line of JSON."""
    message: list[Any] = json.loads(line, object_hook=_restore_path)
    return message


def _restore_path(value: dict[str, Any]) -> Any:
    return Path(value["path"]) if set(value) == {"path"} else value


if __name__ == "__main__":
    main()
