"""The names of YOLOv5's module `utils.loggers` (docs/your-own-code.md). Ours are imported by path."""

from utils.base.yolov5_names import serve

__getattr__, __dir__, __all__ = serve("utils.loggers")
