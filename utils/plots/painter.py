"""Draw plots beside a training or validation, in a process that shares neither its Python nor its start.

Matplotlib takes half a second to load, and a tenth of one for each plot, all of it in Python: a thread would
hold up those that feed the model. The process is started with the first plot, or earlier by `start`, and ends
with `Painter.rest` or the program.

A job is the name of a function in `utils.plots`, and its arguments as JSON and arrays, so that nothing is
unpickled. What the process cannot do, for whatever reason, is drawn in this one, where errors are raised.
"""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as finished
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from utils.base.errors import WriteError
from utils.base.log import LOG
from utils.base.processes import module_command, usable_cores

if TYPE_CHECKING:
    import numpy as np

_PACKAGE = "utils.plots."
_LENGTH = struct.Struct("<q")  # before each job: its bytes; 0 ends the process
# The answers to a job are lines, as what else a start-up file of Python prints must not be taken for one.
_DONE, _FAILED = b"painter: done\n", b"painter: failed\n"
_END_WAIT = 5.0  # seconds
_POLL = 0.2  # seconds; short waits, as on some platforms Ctrl-C does not interrupt a wait


class Painter:
    """Queue of plots, drawn one after another in the background."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "plots")
        self._pending: list[Future[None]] = []

    def draw(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call a function later; its arguments must not change. A warning is logged if it cannot write."""
        self._pending.append(self._thread.submit(_draw, start(), function, args, kwargs))

    def wait(self) -> None:
        """Wait until everything is drawn, and raise the first error."""
        pending, self._pending = self._pending, []
        while finished(pending, timeout=_POLL).not_done:
            pass
        for each in pending:
            each.result()

    def rest(self) -> None:
        """End the process, which holds 100 MB, when everything is drawn; a later plot starts another one."""
        process, _shared.process = _shared.process, None
        if process is not None:
            self._pending.append(self._thread.submit(process.end))

    def close(self) -> None:
        """Drop what is not drawn yet."""
        self._thread.shutdown(cancel_futures=True)


def start() -> _Process | None:
    """Start the process if none runs: it loads matplotlib meanwhile.

    Called in the thread that also forks the workers of loaders, so that they inherit no half-made pipe.

    Returns:
        The process; None if it would have no core of its own, or one has failed before.
    """
    if _shared.process is None and not _shared.failed and usable_cores() > 1:
        try:
            _shared.process = _Process()
        except OSError:
            _shared.failed = True
    return _shared.process


def _draw(process: _Process | None, function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    module, name = getattr(function, "__module__", ""), getattr(function, "__name__", "")
    is_ours = module.startswith(_PACKAGE) and getattr(sys.modules.get(module), name, None) is function
    job = module.removeprefix(_PACKAGE), name, args, kwargs
    try:
        if process is None or not is_ours or not process.run(*job):
            function(*args, **kwargs)
    except WriteError as error:
        LOG.warning(str(error))


class _Process:
    """A process that does one job at a time.

    Raises:
        OSError: the system starts none.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of the pipes
        self._ended = False
        self._child = subprocess.Popen(
            module_command(__name__),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what fails is repeated, and then reported
            start_new_session=True,  # Ctrl-C is for this process; the other one ends with it
        )
        assert self._child.stdin is not None and self._child.stdout is not None
        self.requests, self.answers = self._child.stdin, self._child.stdout

    @property
    def pid(self) -> int:
        """Its number in the system."""
        return self._child.pid

    def run(self, *job: Any) -> bool:
        """Do a job; return whether it is done."""
        try:
            packed = _packed([*job, Path.cwd()])
        except (TypeError, ValueError, OSError):  # no arguments for JSON; or the current folder was removed
            return False
        answer = b""
        with self._lock, suppress(OSError, ValueError):  # it has ended; or `end` has closed the pipes
            self.requests.write(_LENGTH.pack(len(packed)) + packed)
            self.requests.flush()
            while (answer := self.answers.readline()) and not answer.endswith((_DONE, _FAILED)):
                pass
        if not answer and not self._ended:
            _shared.failed = True
            if _shared.process is self:
                _shared.process = None
            self.end()
        return answer.endswith(_DONE)

    def end(self) -> None:
        """End it after its job."""
        with self._lock:
            self._ended = True
            with suppress(OSError, ValueError):
                self.requests.write(_LENGTH.pack(0))  # others may hold the pipe open
            for pipe in (self.requests, self.answers):
                with suppress(OSError):
                    pipe.close()
        try:
            self._child.wait(_END_WAIT)
        except subprocess.TimeoutExpired:
            self._child.kill()


class _Shared:
    """What all painters of the program share."""

    process: _Process | None = None
    failed = False  # a process could not be started, or has ended by itself


_shared = _Shared()


def _leave_to_parent() -> None:
    """Give up the process in a fork of this one, such as a worker of a loader, and the ends of its pipes."""
    process, _shared.process, _shared.failed = _shared.process, None, True
    if process is not None:
        null = os.open(os.devnull, os.O_RDWR)
        for pipe in (process.requests, process.answers):
            with suppress(OSError, ValueError):
                os.dup2(null, pipe.fileno())  # closing it would write what is buffered
        os.close(null)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)


def _packed(job: Any) -> bytes:
    """Return a line of JSON, and then the arrays that it names by their number."""
    from numpy.lib.format import write_array

    arrays: list[np.ndarray] = []
    stream = io.BytesIO()
    stream.write(json.dumps(_encoded(job, arrays)).encode() + b"\n")
    for array in arrays:
        write_array(stream, array, allow_pickle=False)
    return stream.getvalue()


def _encoded(value: Any, arrays: list[np.ndarray]) -> Any:
    """Replace arrays, tensors, paths and mappings by lists of a word and their content."""
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return ["array"]
    if isinstance(value, Path):
        return ["path", str(value)]
    if isinstance(value, Mapping):
        return ["mapping", *([_encoded(each, arrays) for each in pair] for pair in value.items())]
    if isinstance(value, list | tuple):
        return ["list", *(_encoded(each, arrays) for each in value)]
    return value.item() if isinstance(value, np.generic) else value


def _decoded(value: Any, arrays: IO[bytes]) -> Any:
    if not isinstance(value, list):
        return value
    kind, *content = value
    if kind == "array":
        from numpy.lib.format import read_array

        return read_array(arrays, allow_pickle=False)
    if kind == "path":
        return Path(content[0])
    if kind == "mapping":
        return {_decoded(key, arrays): _decoded(each, arrays) for key, each in content}
    return [_decoded(each, arrays) for each in content]


def main() -> None:
    """Do the jobs of standard input until it ends, or a length of 0."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print is no answer
    import cv2

    from utils.plots.figure import new_figure

    cv2.setNumThreads(1)
    new_figure(1, 1)  # loads matplotlib
    jobs = sys.stdin.buffer
    while (header := jobs.read(_LENGTH.size)) and (length := _LENGTH.unpack(header)[0]):
        job = io.BytesIO(jobs.read(length))
        try:
            module, name, args, kwargs, folder = _decoded(json.loads(job.readline()), job)
            os.chdir(folder)
            getattr(import_module(_PACKAGE + module), name)(*args, **kwargs)
        except Exception:  # the other process repeats it, and reports the error
            answers.write(_FAILED)
        else:
            answers.write(_DONE)
    os._exit(0)  # at once: there is nothing to save


if __name__ == "__main__":
    main()
