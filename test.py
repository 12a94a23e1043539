"""The module `test` of YOLOv5 until v5.0, for scripts that call `test.test`; since v6.0 it is val.py.

Python has a package of this name for its own tests. Its modules are still found, by `__path__`.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path
from typing import Any

__path__ = [str(Path(sysconfig.get_path("stdlib"), "test"))]


def test(data: Any = None, *values: Any, **keywords: Any) -> Any:
    """Validate, with the arguments that this function had, as `val.run` does."""
    import val

    keywords = {
        key: value for key, value in keywords.items() if key not in ("opt", "wandb_logger", "is_coco")
    }
    half = keywords.pop("half_precision", False)
    return val.run(data, *values, half=half, **keywords)
