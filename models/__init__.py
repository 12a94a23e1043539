"""The package `models`, also for projects that have a checkout in a folder and import `yolov5.models`."""

if __name__ != "models":
    import importlib
    import sys
    from pathlib import Path

    _root = str(Path(__file__).resolve().parents[1])
    if _root not in sys.path:
        sys.path.append(_root)
    importlib.import_module("utils.base.prefix").share(__name__, "models")
