"""The names of YOLOv5\'s module `utils.segment.loss`; see docs/your-own-code.md."""

from utils.base.yolov5_names import serve

__getattr__, __dir__, __all__ = serve("utils.segment.loss")
