"""The package `models`, also for projects that have a checkout in a folder and import `yolov5.models`."""

if __name__ != "models":
    import importlib
    import sys
    from pathlib import Path

    _own = Path(__file__).resolve()
    if (_root := str(_own.parents[1])) not in sys.path:
        sys.path.append(_root)
    if Path(importlib.import_module("models").__file__ or "").resolve() != _own:
        raise ImportError(f"{__name__}: another package called models stands before {_root} on sys.path")
    importlib.import_module("utils.base.prefix").share(__name__, "models")
