"""Compile the C files beside this one, once a machine, and load the result.

Nothing needs it: whoever asks has the same computation in PyTorch's operators as well. The file is kept
in the user's cache folder, under a name that stands for source, compiler, options and processor.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from utils.base.log import LOG
from utils.base.paths import cache_folder

HERE = Path(__file__).parent
SOURCES = ("chain.c", "maps.c", "norm_silu.c")
HEADERS = ("vectors.h",)
_OPTIONS = ("-O3", "-std=gnu11", "-ffp-contract=fast", "-fPIC", "-shared")
_SECONDS = 120  # a compiler that hangs must not keep the program


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None: no compiler, one that fails, or $YOLOV5_NATIVE is 0."""
    if os.environ.get("YOLOV5_NATIVE", "1") == "0" or sys.platform == "win32":
        return None
    try:
        return _load()
    except (OSError, subprocess.SubprocessError) as error:
        reason = str(error).strip().splitlines()[-1]
        LOG.info(f"Large kernels run on PyTorch's own convolutions, which are slower ({reason})")
        return None


def _load() -> ctypes.CDLL:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise OSError("no C compiler: install gcc or clang, or set CC")
    name = f"kernels-{_digest(compiler)}.so"
    for folder in (cache_folder() / "native", None):
        if folder is None:
            with tempfile.TemporaryDirectory() as private:
                return ctypes.CDLL(str(_compile(compiler, Path(private) / name)))
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_ours(folder):
                continue
            path = folder / name
            return ctypes.CDLL(str(path if path.exists() else _compile(compiler, path)))
        except OSError:  # read-only, or made for another system: do without the cache
            continue
    raise AssertionError("the last folder returns or raises")


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can put a file here: what it holds will run."""
    facts = folder.stat()
    return facts.st_uid == os.getuid() and not facts.st_mode & 0o022


def _digest(compiler: str) -> str:
    facts = [platform.machine(), _processor(), compiler, str(Path(compiler).stat().st_mtime_ns), *_OPTIONS]
    text = "\n".join(facts).encode() + b"".join((HERE / name).read_bytes() for name in (*SOURCES, *HEADERS))
    return hashlib.sha256(text).hexdigest()[:24]


def _processor() -> str:
    """What the processor can do: a home folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")


def _compile(compiler: str, path: Path) -> Path:
    """Compile with threads, else without: not every compiler brings OpenMP.

    Raises:
        OSError, SubprocessError: neither works.
    """
    descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    try:
        for threads in (("-fopenmp",), ()):
            # Clang on Apple's processors knows -mcpu only.
            for native in ("-march=native", "-mcpu=native"):
                sources = [str(HERE / name) for name in SOURCES]
                command = [compiler, *_OPTIONS, native, *threads, *sources, "-o", made]
                done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
                if done.returncode == 0:
                    os.replace(made, path)
                    return path
        raise OSError(f"{compiler}: {done.stderr.strip() or f'exit status {done.returncode}'}")
    finally:
        Path(made).unlink(missing_ok=True)
