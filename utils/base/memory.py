"""Keep the memory that tensors leave behind, for the next ones."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

# malloc.h of the GNU C library
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_GROWTH = 64 << 20  # bytes by which the heap grows at a time


@cache
def keep_freed_memory() -> bool:
    """Have malloc give freed memory to the next tensor instead of the system; say whether it will.

    By default the GNU C library fetches every large block from the system and returns it at once. The
    system zeroes the pages each time, which costs a third of a forward pass and a tenth of a training step
    on two cores (docs/performance.md). The process then stays as large as it once was.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, _GROWTH))
    return all([mallopt(name, value) for name, value in settings])
