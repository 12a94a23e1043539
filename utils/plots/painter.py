"""Draw plots beside a training or validation, in a process that shares neither its Python nor its start.

Matplotlib takes half a second to load, and a tenth of one for each plot, all of it in Python: a thread would
hold up those that feed the model. The process is started by the first plot, or earlier by `start`, and ends
with the program, which closes the pipe of its jobs.

A job is the name of a function in `utils.plots`, and its arguments as JSON and arrays, so that nothing is
unpickled. What the process cannot do, for whatever reason, is drawn in this one, where errors are raised.
"""

from __future__ import annotations

import atexit
import io
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
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
_LENGTH = struct.Struct("<q")  # before each job: its bytes
_DONE, _FAILED = b"1", b"0"  # the answer to each job


class Painter:
    """Queue of plots, drawn one after another in the background."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "plots")
        self._pending: list[Future[None]] = []

    def draw(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Call a function later; its arguments must not change. A warning is logged if it cannot write."""
        self._pending.append(self._thread.submit(_draw, function, args, kwargs))

    def wait(self) -> None:
        """Wait until everything is drawn, and raise the first error."""
        pending, self._pending = self._pending, []
        for each in pending:
            each.result()

    def rest(self) -> None:
        """End the process, which holds 100 MB, when everything is drawn; a later plot starts another one."""
        self._pending.append(self._thread.submit(_process.end))

    def close(self) -> None:
        """Drop what is not drawn yet."""
        self._thread.shutdown(cancel_futures=True)


def start() -> None:
    """Start the process, if it does not run and there is a core for it: it loads matplotlib meanwhile."""
    _process.start()


def _draw(function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    module, name = getattr(function, "__module__", ""), getattr(function, "__name__", "")
    is_ours = module.startswith(_PACKAGE) and getattr(sys.modules.get(module), name, None) is function
    try:
        if not (is_ours and _process.run(module.removeprefix(_PACKAGE), name, args, kwargs)):
            function(*args, **kwargs)
    except WriteError as error:
        LOG.warning(str(error))


class _Process:
    """The process, which does one job at a time."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._running: subprocess.Popen[bytes] | None = None
        self._failed = False  # it could not be started, or has ended by itself

    def start(self) -> None:
        """Start it, unless it runs, has failed before, or would have no core of its own."""
        with self._lock:
            if self._running is not None or self._failed or usable_cores() < 2:
                return
            try:
                self._running = subprocess.Popen(
                    module_command(__name__),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,  # what fails is repeated, and then reported
                    start_new_session=True,  # Ctrl-C is for this process; the other one ends with it
                )
            except OSError:
                self._failed = True
            else:
                atexit.register(self.end, wait=False)

    def run(self, *job: Any) -> bool:
        """Do a job; return whether it is done."""
        try:
            packed = _packed([*job, Path.cwd()])
        except (TypeError, ValueError, OSError):  # no arguments for JSON; or the current folder was removed
            return False
        with self._lock:
            self.start()
            if self._running is None:
                return False
            requests, answers = self._running.stdin, self._running.stdout
            assert requests is not None and answers is not None
            answer = b""
            with suppress(OSError):  # it has ended
                requests.write(_LENGTH.pack(len(packed)) + packed)
                requests.flush()
                answer = answers.read(1)
            if not answer:
                self._failed = True
                self.end()
        return answer == _DONE

    def end(self, wait: bool = True) -> None:
        """End it, after its job."""
        with self._lock:
            process, self._running = self._running, None
            if process is None:
                return
            atexit.unregister(self.end)
            for pipe in (process.stdin, process.stdout):
                with suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            if wait:
                process.wait()


_process = _Process()


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
    """Do the jobs of standard input until it is closed."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print is no answer
    import cv2

    from utils.plots.figure import new_figure

    cv2.setNumThreads(1)
    new_figure(1, 1)  # loads matplotlib
    while header := sys.stdin.buffer.read(_LENGTH.size):
        job = io.BytesIO(sys.stdin.buffer.read(*_LENGTH.unpack(header)))
        try:
            module, name, args, kwargs, folder = _decoded(json.loads(job.readline()), job)
            os.chdir(folder)
            getattr(import_module(_PACKAGE + module), name)(*args, **kwargs)
        except Exception:  # the other process repeats it, and reports the error
            answers.write(_FAILED)
        else:
            answers.write(_DONE)


if __name__ == "__main__":
    main()
