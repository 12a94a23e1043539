"""YOLOv5's `utils.segment`: loss, loader, metrics and plots of segmentation, over ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from utils.compat import training
from utils.compat.metrics import ap_per_class
from utils.compat.metrics import fitness as box_fitness
from utils.plots import batches
from utils.tasks.segment.loss import SegmentationLoss
from utils.tasks.segment.rasterize import MaskFormat
from utils.tasks.segment.task import SegmentTask

KEYS = list(SegmentTask().columns[1:])  # of results.csv


class ComputeLoss(training.ComputeLoss):
    """The training loss of a segmentation model: `loss, items = ComputeLoss(model)(output, targets, masks)`.

    Args:
        model: with its hyperparameters in `hyp`.
        autobalance: adapt the weights of the levels.
        overlap: masks are one map per image, else one for each target.
    """

    def __init__(self, model: Any, autobalance: bool = False, overlap: bool = False) -> None:
        super().__init__(model, autobalance)
        arguments = self.anchors, model.stride, self.nc, self.hyp, autobalance
        self._masks = SegmentationLoss(*arguments, overlap=overlap)
        self.overlap = overlap

    def __call__(  # type: ignore[override]
        self, preds: tuple[Sequence[Tensor], Tensor], targets: Tensor, masks: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the loss (1,) times the batch size, and box, mask, objectness and class loss (4,)."""
        loss, items = self._masks(preds, targets, masks)
        return loss.reshape(1), items


def create_dataloader(
    path: Any,
    imgsz: int,
    batch_size: int,
    stride: int,
    *arguments: Any,
    mask_downsample_ratio: int = 1,
    overlap_mask: bool = False,
    **options: Any,
) -> tuple[training.CompatLoader, training.LoadImagesAndLabels]:
    """Return a loader of images, targets, paths, shapes and masks, and its dataset.

    Args:
        path: as the rest, see `utils.compat.training.create_dataloader`.
        imgsz: side of the network's input.
        batch_size: images per batch.
        stride: batch shapes are multiples of it.
        *arguments: the following ones by position.
        mask_downsample_ratio: the input is this many times as large as the masks.
        overlap_mask: one map per image, else a mask for each target.
        **options: further ones by name.
    """
    options["masks"] = MaskFormat(mask_downsample_ratio, overlap_mask)
    return training.create_dataloader(path, imgsz, batch_size, stride, *arguments, **options)


def polygon2mask(
    img_size: Sequence[int], polygons: Any, color: int = 1, downsample_ratio: int = 1
) -> np.ndarray:
    """Return the mask (h, w) uint8 of one polygon (1, 2 k), x and y in turn, of an image (height, width)."""
    points = [np.asarray(polygons, np.float32).reshape(-1, 2)]
    return polygons2masks(img_size, points, color, downsample_ratio)[0]


def polygons2masks(
    img_size: Sequence[int], polygons: Sequence[Any], color: int = 1, downsample_ratio: int = 1
) -> np.ndarray:
    """Return the masks (n, h, w) uint8 of n polygons (k, 2)."""
    points = [np.asarray(polygon, np.float32).reshape(-1, 2) for polygon in polygons]
    masks = MaskFormat(downsample_ratio, overlap=False).draw(points, img_size)[0] * color
    return masks.astype(np.uint8)


def polygons2masks_overlap(
    img_size: Sequence[int], segments: Sequence[Any], downsample_ratio: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return a map (h, w) of all polygons (k, 2), small ones on top, and their order (n,) in it."""
    points = [np.asarray(segment, np.float32).reshape(-1, 2) for segment in segments]
    masks, order = MaskFormat(downsample_ratio, overlap=True).draw(points, img_size)
    return masks[0], order


def ap_per_class_box_and_mask(
    tp_m: Any,
    tp_b: Any,
    conf: Any,
    pred_cls: Any,
    target_cls: Any,
    plot: bool = False,
    save_dir: Any = ".",
    names: Any = (),
) -> dict[str, dict[str, Any]]:
    """Return p, r, ap, f1 and ap_class of boxes and of masks, (c,) or (c, 10) each."""
    results = {}
    for kind, tp in (("boxes", tp_b), ("masks", tp_m)):
        _, _, p, r, f1, ap, classes = ap_per_class(
            tp, conf, pred_cls, target_cls, plot, save_dir=save_dir, names=names
        )
        results[kind] = {"p": p, "r": r, "ap": ap, "f1": f1, "ap_class": classes}
    return results


def fitness(x: Any) -> Any:
    """Return the fitness of rows (n, 8+): P, R, mAP50 and mAP50-95 of boxes, then of masks."""
    rows = np.asarray(x)
    return box_fitness(rows[:, :4]) + box_fitness(rows[:, 4:8])


def plot_images_and_masks(
    images: Any,
    targets: Any,
    masks: Any,
    paths: Any = None,
    fname: Any = "images.jpg",
    names: Mapping[int, str] | None = None,
) -> None:
    """Draw at most 16 images (B, 3, H, W) with boxes (n, 6 or 7) and masks as a mosaic, and write it.

    Args:
        images: RGB.
        targets: image index, class, box, and perhaps confidence.
        masks: (B, h, w) maps, where the i-th target of an image has the value i, from 1; or (n, h, w).
        paths: files, for the captions.
        fname: image to write.
        names: of the classes.
    """
    rows, planes = np.asarray(targets), np.asarray(masks)
    owners = rows[:, 0].astype(int)
    maps = len(planes) == len(images) and (len(planes) != len(rows) or planes.max(initial=0) > 1)
    shown = []
    for index in range(min(len(images), batches.SUBPLOTS)):
        own = np.flatnonzero(owners == index)
        numbers = np.arange(1, len(own) + 1)[:, None, None]
        shown.append(planes[index] == numbers if maps else planes[own] > 0)
    batches.plot_images(images, targets, paths, Path(fname), names, masks=shown)
