"""Functions on boxes with the signatures of YOLOv5's `utils.general`; the arithmetic is that of utils/ops."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np
from torch import Tensor

import utils.compat.unpickling  # noqa: F401 - torch.load reads files with models from here on
from utils.ops import boxes as ours
from utils.ops import nms


def non_max_suppression(
    prediction: Any,
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    classes: int | Sequence[int] | None = None,
    agnostic: bool = False,
    multi_label: bool = False,
    labels: Sequence[Tensor] = (),
    max_det: int = 300,
    nm: int = 0,
    merge: bool = False,
    fast: bool = False,
) -> list[Tensor]:
    """Return per image (n, 6 + nm) x1, y1, x2, y2, confidence, class, mask coefficients; best first.

    Args:
        prediction: decoded boxes (B, N, 5 + nc + nm), or the output of a model, whose first element they are.
        conf_thres: confidence threshold.
        iou_thres: NMS IoU threshold.
        classes: classes to return; None for all, an empty list for none.
        agnostic: class-agnostic NMS.
        multi_label: several classes per box.
        labels: per image (n, 5) true boxes to add.
        max_det: maximum detections per image.
        nm: number of mask coefficients.
        merge: of v1 and v2, without effect.
        fast: of v1 and v2, without effect.

    Raises:
        AssertionError: a threshold outside 0-1.
    """
    for name, value in (("confidence", conf_thres), ("IoU", iou_thres)):
        if not 0 <= value <= 1:
            raise AssertionError(f"{name} threshold {value}: expected a number from 0 to 1")
    decoded = prediction[0] if isinstance(prediction, list | tuple) else prediction
    listed: Any = [classes] if isinstance(classes, Integral) else classes
    chosen = None if listed is None else [int(index) for index in listed]
    return nms.non_max_suppression(
        decoded, conf_thres, iou_thres, chosen, agnostic, multi_label, labels, max_det, nm
    )


def scale_boxes(
    img1_shape: Sequence[float], boxes: Any, img0_shape: Sequence[float], ratio_pad: Any = None
) -> Any:
    """Map boxes (n, 4+) from pixels of the letterboxed input to pixels of the image, in place; return them.

    Raises:
        RuntimeError: a tensor of integers, which cannot hold the result.
    """
    if isinstance(boxes, Tensor) and not boxes.is_floating_point():
        raise RuntimeError(f"boxes of {boxes.dtype} cannot be scaled in place; convert them with .float()")
    shape = tuple(float(side) for side in img0_shape[:2])
    return ours.scale_boxes(img1_shape, boxes, shape, ratio_pad)


def scale_coords(
    img1_shape: Sequence[float], coords: Any, img0_shape: Sequence[float], ratio_pad: Any = None
) -> Any:
    """Map boxes as `scale_boxes` does; its name until v6.2."""
    return scale_boxes(img1_shape, coords, img0_shape, ratio_pad)


def clip_coords(boxes: Any, img_shape: Sequence[float]) -> Any:
    """Clip boxes as `clip_boxes` does; its name until v6.2."""
    return clip_boxes(boxes, img_shape)


def scale_segments(
    img1_shape: Sequence[float],
    segments: np.ndarray,
    img0_shape: Sequence[float],
    ratio_pad: Any = None,
    normalize: bool = False,
) -> np.ndarray:
    """Map points (n, 2) as `scale_boxes` does, in place; `normalize` divides by the size of the image."""
    segments[:] = ours.scale_segments(img1_shape, segments, img0_shape, ratio_pad, normalize)
    return segments


def clip_boxes(boxes: Any, shape: Sequence[float]) -> Any:
    """Clip boxes (n, 4+) xyxy to an image of `shape` (height, width), in place, and return them."""
    return ours.clip_boxes(boxes, shape)


def xyxy2xywh(x: Any) -> Any:
    """Return boxes (..., 4+) as centre and size; arrays of integers keep their type."""
    return _same_type(ours.xyxy2xywh(x), x)


def xywh2xyxy(x: Any) -> Any:
    """Return boxes (..., 4+) as corners; arrays of integers keep their type."""
    return _same_type(ours.xywh2xyxy(x), x)


def _same_type(result: Any, x: Any) -> Any:
    if isinstance(x, Tensor):
        return result.to(x.dtype)
    return result.astype(x.dtype)
