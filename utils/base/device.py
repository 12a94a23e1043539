"""Choose the device (`"" best, cpu, mps, 0, cuda:0, 0,1`) and prepare the process for it."""

from __future__ import annotations

import ctypes
import os
import platform
import re
import sys
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from utils.base.errors import ConfigError
from utils.base.log import LOG

if TYPE_CHECKING:
    import torch


# malloc.h of the GNU C library
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_GROWTH = 64 << 20  # bytes by which the heap grows at a time


@cache
def keep_freed_memory() -> bool:
    """Make malloc reuse freed memory instead of returning it to the system; return whether it will.

    By default the GNU C library requests every large block from the system and returns it immediately. The
    system zeroes the pages each time, which costs a third of a forward pass and a tenth of a training step
    on two cores (docs/performance.md). The memory of the process then never shrinks.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, _GROWTH))
    return all([mallopt(name, value) for name, value in settings])


def return_freed_memory() -> None:
    """Return the memory that malloc has kept to the system, for threads, which cannot use that of others."""
    if sys.platform.startswith("linux"):
        with suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def disable_ort_telemetry() -> None:
    """Disable the telemetry that ONNX Runtime sends to Microsoft; call it before the first import.

    Version 1.32 sends it on Linux even after `disable_telemetry_events`, called right after the import. A
    value that the user has set is kept.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def select_device(name: str = "", verbose: bool = True, keep_memory: bool = True) -> torch.device:
    """Convert `--device` to a torch device, prepare the process for it, and log it.

    Args:
        name: see above.
        verbose: log the device.
        keep_memory: on a CPU, keep freed memory for the next tensors: faster, with up to 20 % more memory.

    Raises:
        ConfigError: the name is not a device, or the device does not exist.
    """
    import torch

    device = _parse(_own_share(str(name).strip().lower().removeprefix("cuda:")))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    elif device.type == "cpu" and keep_memory:
        keep_freed_memory()
    if verbose:
        words = f"Python-{platform.python_version()} torch-{torch.__version__}"
        LOG.info(f"YOLOv5-LSKA {words} {describe(device)}")
    return device


def _own_share(name: str) -> str:
    """Return the device of this process of torchrun, out of a list such as 0,1."""
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or name in ("cpu", "mps"):
        return name
    if name == "":
        import torch

        return str(rank) if torch.cuda.is_available() else "cpu"
    names = name.split(",")
    if len(names) <= rank:
        raise ConfigError(
            f"--device {name}: give a GPU for each of the {os.environ.get('LOCAL_WORLD_SIZE', rank + 1)} "
            "processes that torchrun starts here"
        )
    return names[rank]


def _parse(name: str) -> torch.device:
    import torch

    if name == "":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise ConfigError("--device mps: this machine has no Apple GPU; use --device cpu")
        return torch.device("mps")
    if re.fullmatch(r"\d+(,\d+)+", name):
        count = name.count(",") + 1
        raise ConfigError(
            f"--device {name}: a process works on one GPU; to train on {count} start "
            f"torchrun --nproc-per-node {count} train.py --device {name} ..."
        )
    if not re.fullmatch(r"\d+", name):
        raise ConfigError(f"--device {name}: expected cpu, mps, or a GPU number such as 0")
    if int(name) >= torch.cuda.device_count():
        raise ConfigError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; use --device cpu"
        )
    return torch.device(f"cuda:{name}")


def describe(device: torch.device) -> str:
    """Describe a device: `CPU` or `CUDA:0 (name, 16384MiB)`."""
    import torch

    if device.type != "cuda":
        return device.type.upper()
    info = torch.cuda.get_device_properties(device)
    return f"CUDA:{device.index or 0} ({info.name}, {info.total_memory / 2**20:.0f}MiB)"
