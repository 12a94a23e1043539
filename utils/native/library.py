"""Compile the C files of this folder, once per machine, and load the shared library.

All callers have a fallback in PyTorch's operators. The library is kept in the user's cache folder, under a
name that is a hash of source, compiler, options and processor.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from torch import nn

from utils.base.log import LOG
from utils.base.paths import atomic_write, cache_folder

HERE = Path(__file__).parent
SOURCES = ("chain.c", "maps.c", "nms.c", "norm_silu.c")
HEADERS = ("threads.h", "vectors.h")
_OPTIONS = ("-O3", "-std=gnu11", "-ffp-contract=fast", "-fPIC", "-shared")
_TIMEOUT = 120  # seconds; a compiler that hangs must not block the program

_one_at_a_time = threading.Lock()


def library() -> ctypes.CDLL | None:
    """Return the compiled kernels; None without a working compiler, on Windows, or if $YOLOV5_NATIVE is 0."""
    with _one_at_a_time:  # several threads may ask at the same time
        return _library()


@cache
def _library() -> ctypes.CDLL | None:
    if os.environ.get("YOLOV5_NATIVE", "1") == "0" or sys.platform == "win32":
        return None
    try:
        return _load()
    except (OSError, subprocess.SubprocessError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        LOG.info(f"The compiled kernels are off, and PyTorch's slower operators are used: {reason}")
        return None


def _load() -> ctypes.CDLL:
    compiler = shlex.split(os.environ.get("CC") or "cc") or ["cc"]
    found = shutil.which(compiler[0])
    if found is None:
        raise OSError("no C compiler: install gcc or clang, or set CC")
    compiler[0] = found
    name = f"kernels-{_digest(compiler)}.so"
    if (folder := _own_folder()) is not None:
        path = folder / name
        with suppress(OSError):  # damaged, or compiled for another system
            if path.exists():
                return ctypes.CDLL(str(path))
    with tempfile.TemporaryDirectory() as private:
        made = _compile(compiler, Path(private) / name)
        if folder is not None:
            with suppress(OSError), atomic_write(folder / name) as file:  # disk full: no cache
                file.write(made.read_bytes())
        return ctypes.CDLL(str(made))


def _own_folder() -> Path | None:
    """Return the folder for the library; None if there is no home, or other users can write to it."""
    try:
        folder = cache_folder() / "native"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return folder if _is_ours(folder) and os.access(folder, os.W_OK) else None
    except (OSError, RuntimeError):
        return None


def _is_ours(folder: Path) -> bool:
    """Return whether no other user can write to the folder, whose libraries this process runs."""
    stat = folder.stat()
    return stat.st_uid == os.getuid() and not stat.st_mode & 0o022


def _digest(compiler: list[str]) -> str:
    changed = str(Path(compiler[0]).stat().st_mtime_ns)
    parts = [platform.machine(), _processor(), *compiler, changed, *_OPTIONS]
    text = "\n".join(parts).encode() + b"".join((HERE / name).read_bytes() for name in (*SOURCES, *HEADERS))
    return hashlib.sha256(text).hexdigest()[:24]


def _processor() -> str:
    """Return the processor's features: different machines may share a home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")


def _compile(compiler: list[str], path: Path, machine: str = "") -> Path:
    """Compile for this machine with OpenMP, or without it where the compiler has none.

    Args:
        compiler: command.
        path: of the library.
        machine: of another kind, as `platform.machine` names it.

    Raises:
        OSError, SubprocessError: no combination of options works.
    """
    sources = [str(HERE / name) for name in SOURCES]
    # GCC computes vectors of 16 floats one by one where it may use SVE. NEON is in all of ARMv8.
    is_arm = (machine or platform.machine()) in ("aarch64", "arm64")
    target = "-march=armv8-a" if is_arm else "-march=native"
    for more in (f"{target} -fopenmp", target, "-mcpu=native -fopenmp", "-mcpu=native"):
        command = [*compiler, *_OPTIONS, *more.split(), *sources, "-o", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT)
        if done.returncode == 0:
            return path
    raise OSError(f"{compiler[0]}: {done.stderr.strip() or f'exit status {done.returncode}'}")


_transforms: Callable[[], bool] = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
_modes: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)


def is_traced() -> bool:
    """Return whether PyTorch's own operators must run.

    They must while a compiler or exporter records them, torch.func transforms them, or a dispatch mode is on.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or _transforms() or _modes() > 0


def is_watched(*modules: nn.Module) -> bool:
    """Return whether one of the modules has hooks, so that it must be called."""
    for m in modules:  # any() with a generator is slower
        if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks:
            return True
    return False
