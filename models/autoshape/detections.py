"""Detections of AutoShape: to print, show, save, crop, and convert to tables."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from torch import Tensor

from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.base.names import UniqueNames, describe_classes, safe_name
from utils.base.paths import increment_path
from utils.base.timing import STAGES, Stopwatch
from utils.ops.boxes import xyxy2xywh
from utils.plots.annotator import Annotator, colors, crop_box, write_image
from utils.tasks.segment.prediction import FrameMasks

if TYPE_CHECKING:
    import pandas
    import supervision

CORNERS = ("xmin", "ymin", "xmax", "ymax", "confidence", "class", "name")
CENTRES = ("xcenter", "ycenter", "width", "height", "confidence", "class", "name")


class Detections:
    """Detections of one call to `AutoShape`, a tensor for each image.

    Attributes:
        ims: the images, (H, W, 3) uint8 RGB; boxes are drawn into copies.
        pred: per image (n, 6) x1, y1, x2, y2 in pixels, confidence, class; the most confident first.
        files: names to save the images with, such as `bus.jpg`; `image0.jpg` for arrays.
        names: class names by index.
        times: stopwatches of pre-processing, inference and NMS.
        t: milliseconds of each per image.
        n: number of images.
        s: shape of the network's input (B, 3, H, W).
        masks: per image (n, H, W) bool, at the size of the image; an empty list for boxes only.
        polygons: per image a list of n polygons (k, 2) in pixels: the largest part of each mask.
    """

    def __init__(
        self,
        ims: list[np.ndarray],
        pred: list[Tensor],
        files: list[str],
        times: Sequence[Stopwatch] = (),
        names: dict[int, str] | None = None,
        shape: tuple[int, ...] = (),
        frame_masks: Sequence[FrameMasks] = (),
    ) -> None:
        self.ims = ims
        self.pred = pred
        self.files = files
        self.names = names or {}
        self.times = tuple(times)
        self.n = len(ims)
        clocks = [clock if isinstance(clock, Stopwatch) else Stopwatch() for clock in times or (None,) * 3]
        self.t = tuple(1e3 * clock.total / max(self.n, 1) for clock in clocks)
        self.s = shape
        self._frame_masks = list(frame_masks)

    @cached_property
    def masks(self) -> list[np.ndarray]:
        """Per image (n, H, W) bool, from a segmentation model."""
        return [each.on_image().astype(bool) for each in self._frame_masks]

    @cached_property
    def polygons(self) -> list[list[np.ndarray]]:
        """Per image a polygon (k, 2) float32 in pixels for each mask; k = 0 for an empty mask."""
        sizes = [np.array(each.image_hw[::-1], np.float32) for each in self._frame_masks]
        pairs = zip(self._frame_masks, sizes, strict=True)
        return [[points * size for points in each.polygons()] for each, size in pairs]

    @property
    def imgs(self) -> list[np.ndarray]:
        """The images; their name until v6.1."""
        return self.ims

    @property
    def xyxy(self) -> list[Tensor]:
        """Per image (n, 6): x1, y1, x2, y2 in pixels, confidence, class."""
        return self.pred

    @cached_property
    def xywh(self) -> list[Tensor]:
        """Per image (n, 6): centre, width and height in pixels, confidence, class."""
        return [xyxy2xywh(rows) for rows in self.pred]

    @cached_property
    def xyxyn(self) -> list[Tensor]:
        """Per image (n, 6): x1, y1, x2, y2 normalized, confidence, class."""
        return self._normalized(self.pred)

    @cached_property
    def xywhn(self) -> list[Tensor]:
        """Per image (n, 6): centre, width and height normalized, confidence, class."""
        return self._normalized(self.xywh)

    def _normalized(self, boxes: list[Tensor]) -> list[Tensor]:
        sizes = [(w, h, w, h, 1, 1) for h, w in (image.shape[:2] for image in self.ims)]
        return [rows / rows.new_tensor(size) for rows, size in zip(boxes, sizes, strict=True)]

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Detections]:
        return iter(self.tolist())

    def __getitem__(self, index: int) -> Detections:
        return self.tolist()[index]

    def tolist(self) -> list[Detections]:
        """Return a `Detections` for each image."""
        singles = []
        for index, (image, rows, file) in enumerate(zip(self.ims, self.pred, self.files, strict=True)):
            masks = self._frame_masks[index : index + 1]
            single = Detections([image], [rows], [file], self.times, self.names, self.s, masks)
            single.t = self.t
            singles.append(single)
        return singles

    def __str__(self) -> str:
        lines = []
        for number, (image, rows) in enumerate(zip(self.ims, self.pred, strict=True), start=1):
            counts = describe_classes(rows[:, 5].tolist(), self.names)
            lines.append(f"image {number}/{self.n}: {image.shape[0]}x{image.shape[1]} {counts}")
        speeds = ", ".join(f"{value:.1f}ms {stage}" for value, stage in zip(self.t, STAGES, strict=True))
        return "\n".join((*lines, f"Speed: {speeds} per image at shape {self.s}"))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.n} images, {sum(map(len, self.pred))} boxes>"

    def print(self) -> None:
        """Print the number of objects by class for each image, and the speed."""
        print(self)

    def render(self, labels: bool = True) -> list[np.ndarray]:
        """Return copies of the images, RGB, with boxes, and with names and confidences if `labels`."""
        return [cv2.cvtColor(image, cv2.COLOR_BGR2RGB) for image in self._drawn(labels)]

    def save(
        self,
        labels: bool | str | Path = True,
        save_dir: str | Path = "runs/detect/exp",
        exist_ok: bool = False,
    ) -> Path:
        """Save the images with their boxes in a folder, and return it.

        Args:
            labels: draw names and confidences.
            save_dir: the folder; if it exists, the first free one of exp2, exp3, ...
            exist_ok: write to it even if it exists.
        """
        if isinstance(labels, str | Path):  # the first argument until v5.0
            save_dir, labels = labels, True
        folder, names = increment_path(Path(save_dir), exist_ok), UniqueNames()
        for image, file in zip(self._drawn(labels), self.files, strict=True):
            write_image(names.unique_path(folder / file), image)
        LOG.info(f"Saved {self.n} images to {folder}")
        return folder

    def show(self, labels: bool = True) -> None:
        """Show the images with their boxes: in a notebook, else in windows until a key is pressed.

        Raises:
            ConfigError: there is no screen, or this OpenCV cannot show windows.
        """
        if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
            from IPython.display import display
            from PIL import Image

            for image in self.render(labels):
                display(Image.fromarray(image))
            return
        instead = "use results.save() for files, or results.render() for arrays"
        if sys.platform.startswith("linux") and not (os.getenv("DISPLAY") or os.getenv("WAYLAND_DISPLAY")):
            raise ConfigError(f"results.show(): there is no screen here; {instead}")  # OpenCV would abort
        try:
            for image, file in zip(self._drawn(labels), self.files, strict=True):
                cv2.imshow(file, image)
            cv2.waitKey(0)
            cv2.destroyAllWindows()
        except cv2.error as error:
            raise ConfigError(
                f"results.show(): this OpenCV cannot show windows (opencv-python-headless?); {instead}"
            ) from error

    def crop(
        self, save: bool = True, save_dir: str | Path = "runs/detect/exp", exist_ok: bool = False
    ) -> list[dict[str, Any]]:
        """Crop every box from its image, with a margin.

        Args:
            save: write crops/CLASS/FILE.jpg below `save_dir`.
            save_dir: the folder; if it exists, the first free one of exp2, exp3, ...
            exist_ok: write to it even if it exists.

        Returns:
            For each box, image by image: `box` (4,) xyxy in pixels, `conf`, `cls`, `label`, and the crop
            `im`, RGB.
        """
        folder = increment_path(Path(save_dir), exist_ok) if save else Path()
        names, crops = UniqueNames(), []
        for image, rows, file in zip(self.ims, self.pred, self.files, strict=True):
            for row in rows:
                name = self._name(row[5])
                crop = crop_box(row[:4].tolist(), image).copy()
                crops.append(
                    {
                        "box": row[:4],
                        "conf": row[4],
                        "cls": row[5],
                        "label": f"{name} {row[4]:.2f}",
                        "im": crop,
                    }
                )
                if save and crop.size:
                    path = names.unique_path(folder / "crops" / safe_name(name) / file)
                    write_image(path, cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), full_chroma=True)
        if save:
            LOG.info(f"Saved {len(crops)} crops to {folder}")
        return crops

    def pandas(self) -> Tables:
        """Return the detections as data frames: `results.pandas().xyxy[0]`."""
        return Tables(self)

    def to_supervision(self) -> list[supervision.Detections]:
        """Return a `supervision.Detections` for each image, with masks; class names are in its `data`."""
        sv = _import("supervision", "results.to_supervision()")
        results = []
        for index, rows in enumerate(self.pred):
            array = rows.detach().cpu().numpy()
            classes = array[:, 5].astype(int)
            names = np.array([self._name(index) for index in classes], dtype=str)
            results.append(
                sv.Detections(
                    array[:, :4],
                    mask=self.masks[index] if self._frame_masks else None,
                    confidence=array[:, 4],
                    class_id=classes,
                    data={"class_name": names},
                )
            )
        return results

    def _drawn(self, labels: bool) -> Iterator[np.ndarray]:
        """Yield copies of the images in BGR with boxes, the most confident drawn last."""
        for index, (image, rows) in enumerate(zip(self.ims, self.pred, strict=True)):
            bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            if self._frame_masks:
                tints = [colors(int(row[5]), bgr=True) for row in rows.tolist()]
                self._frame_masks[index].blend(bgr, tints)
            annotator = Annotator(bgr)
            for row in rows.tolist()[::-1]:
                label = f"{self._name(row[5])} {row[4]:.2f}" if labels else ""
                annotator.box_label(row[:4], label, colors(int(row[5]), bgr=True))
            yield bgr

    def _name(self, index: float | Tensor) -> str:
        return str(self.names.get(int(index), int(index)))


class Tables:
    """Detections as lists of `pandas.DataFrame`, one per image, made on first use."""

    def __init__(self, results: Detections) -> None:
        self._results = results
        self._pandas = _import("pandas", "results.pandas()")

    @cached_property
    def xyxy(self) -> list[pandas.DataFrame]:
        """Data frames with columns CORNERS, in pixels."""
        return [self._table(rows, CORNERS) for rows in self._results.xyxy]

    @cached_property
    def xyxyn(self) -> list[pandas.DataFrame]:
        """Data frames with columns CORNERS, normalized."""
        return [self._table(rows, CORNERS) for rows in self._results.xyxyn]

    @cached_property
    def xywh(self) -> list[pandas.DataFrame]:
        """Data frames with columns CENTRES, in pixels."""
        return [self._table(rows, CENTRES) for rows in self._results.xywh]

    @cached_property
    def xywhn(self) -> list[pandas.DataFrame]:
        """Data frames with columns CENTRES, normalized."""
        return [self._table(rows, CENTRES) for rows in self._results.xywhn]

    def _table(self, rows: Tensor, columns: tuple[str, ...]) -> pandas.DataFrame:
        array = rows.detach().cpu().double().numpy()
        classes = array[:, 5].astype(int)
        names = [self._results._name(index) for index in classes]
        values = [*array[:, :5].T, classes, self._pandas.Series(names, dtype="str")]
        return self._pandas.DataFrame(dict(zip(columns, values, strict=True)))


def _import(package: str, needed_by: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(f"{needed_by} needs {package}: pip install {package}") from error
