"""What detect.py can be asked for."""

from __future__ import annotations

from dataclasses import dataclass

from utils.base.checks import Checked, height_width, listed


@dataclass(frozen=True)
class DetectOptions(Checked):
    """The flags of detect.py, by their names; checked."""

    weights: list[str]
    source: str
    data: str
    imgsz: tuple[int, int]  # height, width
    conf_thres: float
    iou_thres: float
    max_det: int
    device: str
    view_img: bool
    save_txt: bool
    save_format: int
    save_csv: bool
    save_conf: bool
    save_crop: bool
    nosave: bool
    classes: list[int] | None
    agnostic_nms: bool
    augment: bool
    visualize: bool
    update: bool
    project: str
    name: str
    exist_ok: bool
    line_thickness: int
    hide_labels: bool
    hide_conf: bool
    half: bool
    dnn: bool
    vid_stride: int
    batch_size: int
    runtime: str

    def __post_init__(self) -> None:
        """Bring loose values into form (`weights="a.pt"`, `imgsz=640`) and refuse impossible ones."""
        put = object.__setattr__
        put(self, "weights", [str(name) for name in listed(self.weights)])
        put(self, "source", str(self.source))
        put(self, "imgsz", height_width(self.imgsz))
        put(self, "classes", None if self.classes is None else [int(c) for c in listed(self.classes)])
        for name in ("conf_thres", "iou_thres"):
            self._require(name, 0 <= getattr(self, name) <= 1, "a number from 0 to 1")
        for name in ("max_det", "line_thickness", "vid_stride"):
            self._require(name, getattr(self, name) >= 1, "a whole number from 1")
        self._require("batch_size", self.batch_size >= 0, "a whole number from 1, or 0 to choose one")
        self._require("save_format", self.save_format in (0, 1), "0 (centre and size) or 1 (corners)")
        self._require("weights", bool(self.weights), "at least one file")
        self._require("classes", min(self.classes or [0]) >= 0, "class numbers from 0")
