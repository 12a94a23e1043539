"""The package `utils`, also for projects that have a checkout in a folder and import `yolov5.utils`."""

if __name__ != "utils":
    import importlib
    import sys
    from pathlib import Path

    _root = str(Path(__file__).resolve().parents[1])
    if _root not in sys.path:
        sys.path.append(_root)
    importlib.import_module("utils.base.prefix").share(__name__, "utils")
else:
    from utils.base.yolov5_names import serve

    __getattr__, __dir__, _ = serve("utils")  # from utils import TryExcept
