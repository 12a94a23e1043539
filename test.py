"""The module `test` of YOLOv5 until v5.0, for scripts that call `test.test`; since v6.0 it is val.py.

Python has a package of this name for its own tests. Its modules are still found, by `__path__`.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

__path__ = [str(Path(sysconfig.get_path("stdlib"), "test"))]


def test(*args: Any, **kwargs: Any) -> Any:
    """Validate, with the arguments of `val.run`."""
    from utils.compat.scripts import test as validate

    return validate(*args, **kwargs)
