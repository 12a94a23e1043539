"""Entry points of scripts: parsing, running, and one-line errors with the right exit status."""

from __future__ import annotations

import argparse
import atexit
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from utils.base.errors import YoloError, is_out_of_memory, one_line
from utils.base.limits import LARGE_FILES, PIXELS
from utils.base.log import LOG, color, set_up_console
from utils.base.paths import INSTALLED, command_for

DEBUG = "YOLOV5_DEBUG"  # environment variable: unexpected errors with their traceback
_SHARED_MEMORY = "/dev/shm"
_OBJECTS = 400_000  # before the first search for garbage
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        program = self.prog if INSTALLED else command_for(self.prog)
        self.exit(2, f"{self.prog}: {message}; see {program} --help\n")


def parser(description: str, *, prog: str | None = None) -> argparse.ArgumentParser:
    """Create a parser that shows defaults, accepts unique prefixes and reports errors on one line."""
    return _Parser(
        prog=command_for(prog) if prog and INSTALLED else prog,
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )


def print_args(script: str, options: Any) -> None:
    """Log the options of a script on one line, as `script: key=value, ...`."""
    values = options.as_dict() if hasattr(options, "as_dict") else vars(options)
    words = ", ".join(f"{key}={value}" for key, value in values.items())
    LOG.info(f"{color(f'{script}:', 'blue', 'bold')} {words}")


def wait_passively() -> None:
    """Let idle OpenMP threads sleep instead of spin, in this process and those that it starts.

    A thread that spins at a barrier keeps its core from the thread that the barrier waits for: beside one
    other program on two cores, a training step takes 20 to 40 times as long. OpenMP reads the variable when
    torch is imported, so call this before. What the user has set stays.
    """
    if not any(name in os.environ for name in _WAITING):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def limit_opencv() -> None:
    """Let OpenCV refuse huge images by itself, too, as it reads headers in its own way.

    Nor does it log what it cannot read, which is reported here, once. It reads the variables when it is
    imported, so call this before. What the user has set stays.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "FATAL")
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(LARGE_FILES * PIXELS.value))


def delay_garbage_collection() -> None:
    """Let Python look for garbage only when 400,000 objects exist, and then as usual.

    `import torch` makes 290,000 objects and no garbage; without the search it takes a tenth less time.
    """
    usual = gc.get_threshold()
    if usual[0] == _OBJECTS:  # it is delayed already
        return

    def restore(phase: str, info: object) -> None:
        gc.callbacks.remove(restore)
        gc.set_threshold(*usual)

    gc.callbacks.append(restore)
    gc.set_threshold(_OBJECTS)


def find_temporary_folder() -> None:
    """Use shared memory for temporary files where no usual folder can be written to, as in a container."""
    if os.name == "nt":
        return
    usual = [os.environ.get(name, "") for name in ("TMPDIR", "TEMP", "TMP")]
    if not any(_is_writable(folder) for folder in (*usual, "/tmp", "/var/tmp", "/usr/tmp", ".")):
        if _is_writable(_SHARED_MEMORY):
            os.environ["TMPDIR"] = _SHARED_MEMORY
        else:
            LOG.warning("no folder for temporary files can be written to; set TMPDIR to one, if this fails")


def _is_writable(folder: str) -> bool:
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)  # noqa: PTH112 - may be empty


def main(function: Callable[[], Any]) -> None:
    """Run the entry point of a script and exit: 0 success, 1 failure, 2 usage, 130 Ctrl-C, 143 SIGTERM."""
    last = _LastStep() if _nothing_follows() else None
    set_up_console()
    wait_passively()
    delay_garbage_collection()
    signal.signal(signal.SIGTERM, _terminate)
    try:
        limit_opencv()
        find_temporary_folder()
        status = function()
    except YoloError as error:
        if is_first_to_report():
            LOG.error(one_line(error))
        sys.exit(error.status)
    except KeyboardInterrupt:
        LOG.warning("stopped by Ctrl-C")
        sys.exit(130)
    except OSError as error:
        if os.environ.get(DEBUG):
            raise
        LOG.error(_describe_os_error(error))
        sys.exit(1)
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        LOG.error(_describe_unexpected(error))
        sys.exit(1)
    _end(status if isinstance(status, int) else 0, last)


def _describe_os_error(error: OSError) -> str:
    reason = error.strerror or one_line(error)
    return f"{error.filename}: {reason}" if error.filename else f"{reason}, in: {_command()}"


def _command() -> str:
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:300]


def _describe_unexpected(error: Exception) -> str:
    """Return one line about an error that no check has foreseen: what it was, in which command."""
    if is_out_of_memory(error):
        return f"out of memory ({one_line(error)[:200]}), in: {_command()}; lower --batch-size or --imgsz"
    return (
        f"unexpected {type(error).__name__}: {one_line(error)[:200]}, in: {_command()}; "
        f"{DEBUG}=1 shows where; please report it"
    )


class _LastStep:
    """What runs after all exit handlers that a script has registered, if it has succeeded: ends the process.

    Python would take another half second to free PyTorch's modules, one by one, before the system does it.
    """

    def __init__(self) -> None:
        self.status: int | None = None
        atexit.register(self)  # handlers run in reverse order, so this comes before any other is registered

    def __call__(self) -> None:
        if self.status is not None:
            _leave(self.status)


def _nothing_follows() -> bool:
    """Return whether all that follows a script is known: not for a profiler, debugger or shell that runs it.

    Nor with exit handlers that were registered before, as by a start-up file of Python for test coverage, or
    with libraries that are loaded before all others, as profilers of GPUs are. (`logging` has one handler.)
    """
    caller = sys._getframe(2)
    handlers = getattr(atexit, "_ncallbacks", int)()
    environment = {"PYTHONINSPECT", "LD_PRELOAD", "DYLD_INSERT_LIBRARIES"} & set(os.environ)
    return caller.f_back is None and handlers <= 1 and not sys.flags.interactive and not environment


def _runs_code_of_users() -> bool:
    """Return whether a file of --blocks has run, which may leave files to Python to close."""
    blocks = sys.modules.get("models.user_blocks")
    return blocks is not None and bool(blocks.loaded_blocks())


def _end(status: int, last: _LastStep | None) -> NoReturn:
    """Exit; a process of torchrun exits without tearing down loaded libraries.

    Threads of communication libraries sometimes abort a process that has finished its work ("terminate
    called without an active exception"), and torchrun then counts the run as failed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
        _leave(status)
    if last is not None and not _runs_code_of_users():
        last.status = status
    sys.exit(status)


def _leave(status: int) -> None:
    """End the process; if its output cannot be written, return, and Python reports it."""
    logging.shutdown()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return
    os._exit(status)


def is_first_to_report() -> bool:
    """Return whether no other process of this torchrun has reported an error; True for a single process."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "TORCHELASTIC_USE_AGENT_STORE" not in os.environ:
        return True
    from datetime import timedelta

    from torch.distributed import TCPStore

    try:
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(host, port, is_master=False, timeout=timedelta(seconds=5))
        return store.add(f"reported/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", 1) == 1
    except (RuntimeError, KeyError, ValueError):
        return True


def _terminate(signum: int, frame: object) -> NoReturn:
    sys.exit(128 + signum)
