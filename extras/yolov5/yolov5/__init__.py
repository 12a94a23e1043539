"""YOLOv5-LSKA under the name `yolov5`, for programs that import it: `yolov5.load`, `yolov5.utils.general`."""

from yolov5_lska import __getattr__, load
from yolov5_lska.home import add_to_path

add_to_path()

from utils.base.prefix import share  # noqa: E402 - found by the line before

__version__ = "7.0.0"  # of the interface: programs ask which YOLOv5 this is

for _name in ("models", "utils"):
    share(f"yolov5.{_name}", _name)

__all__ = ["__getattr__", "__version__", "load"]
