"""What visualize.py can be asked for."""

from __future__ import annotations

from dataclasses import dataclass

from utils.base.checks import Checked, height_width, listed

KINDS = ("erf", "gate", "cam")
METHODS = ("gradcam", "eigencam")
DEFAULT_WEIGHTS = "yolov5s.pt"


@dataclass(frozen=True)
class VisualizeOptions(Checked):
    """The flags of visualize.py, by their names; checked."""

    weights: list[str]
    cfg: list[str]
    labels: list[str]  # empty: from the names of the files
    source: str
    vid_stride: int
    max_images: int
    seed: int
    kind: list[str]  # empty: all that apply
    layer: list[str]  # empty: each kind's own
    method: str
    imgsz: tuple[int, int]  # height, width
    conf_thres: float
    iou_thres: float
    classes: list[int] | None
    device: str
    project: str
    name: str
    exist_ok: bool

    def __post_init__(self) -> None:
        """Bring loose values into form (`weights="a.pt"`, `imgsz=640`) and refuse impossible ones."""
        put = object.__setattr__
        for name in ("weights", "cfg", "labels", "kind", "layer"):
            put(self, name, [str(value) for value in listed(getattr(self, name))])
        if not self.weights and not self.cfg:
            put(self, "weights", [DEFAULT_WEIGHTS])
        put(self, "source", str(self.source))
        put(self, "imgsz", height_width(self.imgsz))
        put(self, "classes", None if self.classes is None else [int(c) for c in listed(self.classes)])
        for name, known in (("kind", KINDS), ("method", METHODS)):
            wrong = [word for word in listed(getattr(self, name)) if word not in known]
            self._require(name, not wrong, f"one of {', '.join(known)}")
        for name in ("conf_thres", "iou_thres"):
            self._require(name, 0 <= getattr(self, name) <= 1, "a number from 0 to 1")
        for name in ("max_images", "vid_stride"):
            self._require(name, getattr(self, name) >= 1, "a whole number from 1")
        self._require("seed", self.seed >= 0, "a whole number from 0")
        self._require("classes", min(self.classes or [0]) >= 0, "class numbers from 0")
        models = len(self.weights) + len(self.cfg)
        fits = len(self.labels) in (0, models)
        self._require("labels", fits, f"as many labels as models, {models}")
