"""The package `utils`, also for projects that have a checkout in a folder and import `yolov5.utils`."""

if __name__ != "utils":
    import importlib
    import sys
    from pathlib import Path

    _own = Path(__file__).resolve()
    if (_root := str(_own.parents[1])) not in sys.path:
        sys.path.append(_root)
    if Path(importlib.import_module("utils").__file__ or "").resolve() != _own:
        raise ImportError(f"{__name__}: another package called utils stands before {_root} on sys.path")
    importlib.import_module("utils.base.prefix").share(__name__, "utils")
else:
    from utils.base.yolov5_names import serve

    __getattr__, __dir__, _ = serve("utils")  # from utils import TryExcept
