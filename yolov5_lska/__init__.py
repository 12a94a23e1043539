"""YOLOv5-LSKA as pip installs it: the command `yolov5-lska`, and the same from Python.

    import yolov5_lska

    model = yolov5_lska.load("best.pt")              # images in, boxes out
    yolov5_lska.train.run(imgsz=320, epochs=3)       # the scripts: keywords are their flags

In a process that does so the module names `models` and `utils` are ours.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

__version__ = "0.1.0"


def load(weights: str | Path, **options: Any) -> Any:
    """Open a model file for images of any kind; `options` are those of `custom` in hubconf.py."""
    return _script("hubconf").custom(str(weights), **options)


def __getattr__(name: str) -> ModuleType:
    from yolov5_lska.home import SCRIPTS

    if not (SCRIPTS / f"{name}.py").is_file():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _script(name)


def _script(name: str) -> ModuleType:
    from yolov5_lska.home import add_to_path

    add_to_path()
    return importlib.import_module(name)
