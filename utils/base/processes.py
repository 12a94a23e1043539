"""Subprocesses: cores and devices for each, log files, file locks, and tasks that may crash."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from utils.base.errors import ConfigError, DataError, YoloError
from utils.base.log import LOG, set_up_console
from utils.base.paths import ROOT, relative_to_cwd

LOG_FILE = "log.txt"
_IN_USE = ".in-use"  # file in a folder that one process holds, see `sole_user`
_MOST_FILES = 65536  # open files that a process may ask for
GRACE = 5.0  # seconds between SIGTERM and SIGKILL


@dataclass
class Machine:
    """Resources of a machine for subprocesses: the threads of each, and the devices that they use in turn."""

    threads: int
    devices: queue.Queue[str] = field(default_factory=queue.Queue)

    @contextmanager
    def device(self) -> Iterator[str]:
        """Hold a device that no other subprocess uses."""
        name = self.devices.get()
        try:
            yield name
        finally:
            self.devices.put(name)


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_machine(jobs: int, device: str, threads: int = 0) -> Machine:
    """Divide the cores among `jobs` subprocesses, and assign the devices of `--device 0,1` in turn."""
    machine = Machine(threads or max(usable_cores() // jobs, 1))
    names = device.split(",")
    for index in range(jobs):
        machine.devices.put(names[index % len(names)])
    return machine


def module_command(name: str, *words: str) -> list[str]:
    """Return the command that runs one of our modules.

    `python -m` would prefer a package `utils` in the current folder.
    """
    start = f"runpy.run_module({name!r}, run_name='__main__', alter_sys=True)"
    code = f"import runpy, sys; sys.path[0] = {str(ROOT)!r}; {start}"
    return [sys.executable, "-c", code, *words]


class Children:
    """Subprocesses that are started from several threads and ended together."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def call(self, command: Sequence[str], folder: Path, threads: int, held: Sequence[int] = ()) -> int:
        """Run a command until it ends; its output is appended to the log file of `folder`.

        Args:
            command: program and arguments.
            folder: contains the log file.
            threads: number of threads for its computations.
            held: file descriptors that it inherits, see `lock_file`.

        Returns:
            Its exit status.

        Raises:
            YoloError: `stop` has been called; nothing was started.
        """
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        with (folder / LOG_FILE).open("ab") as log:
            with self._lock:
                if self._stopped:
                    raise YoloError("stopped")
                # In a new session, so that Ctrl-C reaches the parent only, which then ends its subprocesses.
                child = subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    env=environment,
                    start_new_session=True,
                    pass_fds=held,  # the lock lasts as long as the subprocess, even if the parent is killed
                )
                self._running.add(child)
            try:
                return child.wait()
            finally:
                self._running.discard(child)

    def stop(self) -> None:
        """Send SIGTERM to all and wait; a training saves a checkpoint before it ends."""
        with self._lock:
            self._stopped = True
            children = list(self._running)
        for child in children:
            child.terminate()
        for child in children:
            child.wait()


@contextmanager
def lock_file(path: Path, waiting: str = "") -> Iterator[tuple[int, ...]]:
    """Hold an exclusive lock on a file, which is created; wait while another process holds it.

    Windows has no such locks: nothing is locked there.

    Args:
        path: the file.
        waiting: message to log before waiting.

    Yields:
        File descriptors that a child process must inherit to keep the lock when this process ends.
    """
    try:
        import fcntl
    except ImportError:
        yield ()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                LOG.info(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield (file.fileno(),)


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Hold a folder that only one process may write to.

    The lock belongs to this process alone: it ends with it, even while worker processes are left.

    Raises:
        ConfigError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    file = folder / _IN_USE
    with ExitStack() as stack:
        try:
            handle = stack.enter_context(file.open("a"))
        except OSError:  # it cannot be written to, which the first file will report
            yield
            return
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            where = relative_to_cwd(folder)
            raise ConfigError(
                f"{where}: another process is writing there; wait, or choose another --name"
            ) from error
        stack.callback(file.unlink, missing_ok=True)
        yield


@contextmanager
def told_of_others(folder: Path, shared: bool) -> Iterator[None]:
    """Warn if another process writes to a folder that both share (--exist-ok)."""
    with ExitStack() as stack:
        if shared:
            try:
                stack.enter_context(sole_user(folder))
            except ConfigError as error:
                LOG.warning(f"{error}; files of the same name are replaced")
        yield


@contextmanager
def lock_folder(folder: Path) -> Iterator[tuple[int, ...]]:
    """Hold the lock of a folder; yields what `lock_file` does."""
    waiting = f"waiting for the process that works in {relative_to_cwd(folder)}"
    with lock_file(folder / "claim", waiting) as descriptors:
        yield descriptors


def run_in_subprocess(module: str, task: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    """Run one of our modules in a subprocess, which may crash, and return its result.

    Args:
        module: name of a module that calls `subprocess_main` when it is run.
        task: argument of its function, serializable as JSON.
        quiet: hide its output.

    Raises:
        DataError: it ended without a result; the message lacks a subject: "ended with status 1: ...".
    """
    with tempfile.TemporaryDirectory(prefix="task-") as folder:
        task_file, result_file, log = (Path(folder, name) for name in ("task.json", "result.json", "log.txt"))
        task_file.write_text(json.dumps(task))
        command = module_command(module, str(task_file), str(result_file))
        with log.open("wb") as output:
            status = _run_to_completion(command, output if quiet else None)
        if not result_file.is_file():
            raise DataError(f"ended with status {status}: {last_line(log)[:300]}")
        result: dict[str, Any] = json.loads(result_file.read_text())
        return result


def _run_to_completion(command: Sequence[str], output: IO[bytes] | None) -> int:
    """Run a command; if this process is stopped, stop the command too, with all of its subprocesses."""
    groups = hasattr(os, "killpg")
    child = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=groups)
    try:
        return child.wait()
    except BaseException:
        for sign in (signal.SIGTERM, signal.SIGKILL) if groups else ():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, sign)
            with suppress(subprocess.TimeoutExpired):
                child.wait(GRACE)
        child.kill()
        raise


def subprocess_main(work: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Run the task of `run_in_subprocess`: the main function of its subprocess."""
    set_up_console()
    # On SIGTERM, exit normally, so that temporary folders are removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    task_file, result_file = map(Path, sys.argv[1:])
    result_file.write_text(json.dumps(work(json.loads(task_file.read_text()))))


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


def open_files(needed: int) -> int:
    """Return how many files may be open, after raising the limit as far as it is allowed and useful."""
    try:
        import resource
    except ImportError:  # Windows
        return needed
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < needed:
        most = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return needed
