"""Class activation maps for detections: Grad-CAM and EigenCAM.

Grad-CAM (Selvaraju et al., arXiv:1610.02391) weights the channels of a layer by their gradient of a score,
here the sum over the boxes after NMS. EigenCAM (Muhammad and Yeasin, arXiv:2008.00299) projects the
channels on their first principal component, and needs no score.

Grad-CAM is the default because it explains detections: its maps differ between classes, and between images
with and without objects. EigenCAM shows what a layer reacts to, which is often the background. Gradients
are pooled over the map as in the paper, not multiplied elementwise (LayerCAM, HiResCAM): Detect reads
single cells, so gradients at its inputs are zero except in cells with a box, and the product would show
only those cells.

Of a segmentation model the boxes are explained, not their masks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from models.yolo import DetectionModel
from studies.explain.layers import run_and_keep
from utils.ops.boxes import xywh2xyxy
from utils.ops.nms import non_max_suppression


@dataclass(frozen=True)
class BoxFilter:
    """NMS thresholds and classes (None: all) of the boxes to explain."""

    confidence: float = 0.25
    iou: float = 0.45
    classes: Sequence[int] | None = None


@dataclass(frozen=True)
class Heat:
    """A heat map, and the boxes that it explains.

    Attributes:
        heat: (H, W) float32 in 0-1 over the network's input; None if no value is positive, or for Grad-CAM
            of an image without boxes.
        detections: (n, 6) float32 x1, y1, x2, y2 in pixels of that input, confidence, class.
    """

    heat: np.ndarray | None
    detections: np.ndarray


def gradcam(model: DetectionModel, images: Tensor, layers: Sequence[int], box_filter: BoxFilter) -> Heat:
    """Compute Grad-CAM of one image (1, 3, H, W) for the sum of its boxes' scores, objectness times class.

    The maps of several layers are added without normalization: all are gradients of the same sum, and a
    level without boxes has none. The paper differentiates the score before its softmax. Here logits did
    worse (share of the heat inside the boxes: bus.jpg 55 % against 76 %, three images of blood cells 71-81 %
    against 77-86 %), because their gradient does not vanish when objectness or class is near 1.
    """
    with torch.enable_grad():
        kept, output = run_and_keep(model, images.detach().requires_grad_(), layers)
        decoded, detections = output[0], _detect(output, box_filter)
        if not len(detections):
            return Heat(None, detections.cpu().numpy())
        sources = [kept[index] for index in layers]
        gradients = torch.autograd.grad(_score(decoded, detections), sources)
    maps = [
        grad_cam_map(source.detach(), gradient) for source, gradient in zip(sources, gradients, strict=True)
    ]
    return Heat(merge(maps, images.shape[2:]), detections.cpu().numpy())


@torch.no_grad()
def eigencam(model: DetectionModel, images: Tensor, layers: Sequence[int], box_filter: BoxFilter) -> Heat:
    """Compute EigenCAM of one image (1, 3, H, W), which does not depend on its boxes."""
    kept, output = run_and_keep(model, images, layers)
    maps = [_to_peak(eigen_cam_map(kept[index])) for index in layers]  # levels have different scales
    return Heat(merge(maps, images.shape[2:]), _detect(output, box_filter).cpu().numpy())


def grad_cam_map(source: Tensor, gradient: Tensor) -> np.ndarray:
    """Sum channels (1, C, h, w), each weighted by the sum of its gradient; negative values are set to 0.

    The paper takes the mean over the map; the sum makes layers of different sizes comparable.

    Returns:
        (h, w) float32
    """
    weights = gradient.sum((2, 3), keepdim=True)
    return (weights * source).sum(1)[0].clamp(min=0).float().cpu().numpy()


def eigen_cam_map(source: Tensor) -> np.ndarray:
    """Project channels (1, C, h, w) on their first right singular vector; negative values are set to 0.

    The sign of the vector is arbitrary; it is chosen such that the projection has a positive sum.

    Returns:
        (h, w) float32
    """
    channels, height, width = source.shape[1:]
    values = source[0].reshape(channels, -1).T.cpu().double().numpy()  # (h w, C)
    if channels <= len(values):  # the smaller product of the two has the same singular vectors
        projected = values @ np.linalg.eigh(values.T @ values)[1][:, -1]
    else:
        projected = np.linalg.eigh(values @ values.T)[1][:, -1]  # up to a factor
    projected = projected * (np.sign(projected.sum()) or 1.0)
    return projected.clip(0).reshape(height, width).astype(np.float32)


def merge(maps: Sequence[np.ndarray], shape: Sequence[int]) -> np.ndarray | None:
    """Add non-negative maps (h, w), enlarged to `shape`, and scale the sum to a maximum of 1.

    None if no value is positive.
    """
    size = (int(shape[1]), int(shape[0]))
    total = np.sum([cv2.resize(values, size, interpolation=cv2.INTER_LINEAR) for values in maps], axis=0)
    return _to_peak(total) if total.max() > 0 else None


def _to_peak(values: np.ndarray) -> np.ndarray:
    return (values / max(float(values.max()), np.finfo(np.float32).tiny)).astype(np.float32)


METHODS = {"gradcam": gradcam, "eigencam": eigencam}


def _detect(output: Any, box_filter: BoxFilter) -> Tensor:
    """Return the detections (n, 6) in the output of a model: (decoded, maps), or with prototypes between."""
    decoded, *others = output
    nm = others[0].shape[1] if len(others) > 1 else 0
    classes = None if box_filter.classes is None else list(box_filter.classes)
    return non_max_suppression(decoded.detach(), box_filter.confidence, box_filter.iou, classes, nm=nm)[0][
        :, :6
    ]


def _score(decoded: Tensor, detections: Tensor) -> Tensor:
    """Sum the scores of detections (n, 6), found in `decoded` (1, N, 5 + nc + nm) as equal boxes."""
    corners = xywh2xyxy(decoded[0, :, :4].detach())
    same = (corners[None] == detections[:, None, :4]).all(2)  # (n, N)
    row, kind = same.float().argmax(1), detections[:, 5].long()
    return (decoded[0, row, 4] * decoded[0, row, 5 + kind]).sum()
