"""Class activation maps for detections and for classes: Grad-CAM and EigenCAM.

Grad-CAM (Selvaraju et al., arXiv:1610.02391) weights the channels of a layer by their gradient of a score,
here the sum over the boxes after NMS. EigenCAM (Muhammad and Yeasin, arXiv:2008.00299) projects the
channels on their first principal component, and needs no score.

Grad-CAM is the default because it explains detections: its maps differ between classes, and between images
with and without objects. EigenCAM shows what a layer reacts to, which is often the background. Gradients
are pooled over the map as in the paper, not multiplied elementwise (LayerCAM, HiResCAM): Detect reads
single cells, so gradients at its inputs are zero except in cells with a box, and the product would show
only those cells.

Of a segmentation model the boxes are explained, not their masks. Of a classification model the logit of a
class is, as in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from studies.explain.layers import Network, run_and_keep
from utils.ops.boxes import xywh2xyxy
from utils.ops.nms import non_max_suppression


class Target(Protocol):
    """What heat maps explain."""

    def find(self, output: Any) -> Tensor:
        """Return what is explained in the output of a model, see `Heat`."""
        ...

    def score(self, output: Any, found: Tensor) -> Tensor:
        """Return the score of what `find` has found, which has a gradient."""
        ...


@dataclass(frozen=True)
class BoxFilter:
    """Boxes: NMS thresholds, and classes (None: all)."""

    confidence: float = 0.25
    iou: float = 0.45
    classes: Sequence[int] | None = None

    def find(self, output: Any) -> Tensor:
        """Return the detections (n, 6) in an output: (decoded, maps), or with prototypes between."""
        decoded, *others = output
        nm = others[0].shape[1] if len(others) > 1 else 0
        classes = None if self.classes is None else list(self.classes)
        return non_max_suppression(decoded.detach(), self.confidence, self.iou, classes, nm=nm)[0][:, :6]

    def score(self, output: Any, found: Tensor) -> Tensor:
        return _score(output[0], found)


@dataclass(frozen=True)
class ClassTarget:
    """A class of a classification model; None: the most probable one."""

    number: int | None = None

    def find(self, output: Tensor) -> Tensor:
        """Return the probability and the number of the class in logits (1, nc): (1, 2)."""
        number = int(output[0].argmax()) if self.number is None else self.number
        return torch.tensor([[float(output[0].detach().softmax(0)[number]), float(number)]])

    def score(self, output: Tensor, found: Tensor) -> Tensor:
        return output[0, int(found[0, 1])]


@dataclass(frozen=True)
class Heat:
    """A heat map, and what it explains.

    Attributes:
        heat: (H, W) float32 in 0-1 over the network's input; None if no value is positive, or for Grad-CAM
            of an image without boxes.
        detections: (n, 6) float32 x1, y1, x2, y2 in pixels of that input, confidence, class; of a
            classification model (1, 2) probability, class.
    """

    heat: np.ndarray | None
    detections: np.ndarray


def gradcam(model: Network, images: Tensor, layers: Sequence[int], target: Target) -> Heat:
    """Compute Grad-CAM of one image (1, 3, H, W) for the score of the target.

    That of boxes is the sum of objectness times class.

    The maps of several layers are added without normalization: all are gradients of the same sum, and a
    level without boxes has none. The paper differentiates the score before its softmax. For boxes logits did
    worse (share of the heat inside the boxes: bus.jpg 55 % against 76 %, three images of blood cells 71-81 %
    against 77-86 %), because their gradient does not vanish when objectness or class is near 1.
    """
    with torch.enable_grad():
        kept, output = run_and_keep(model, images.detach().requires_grad_(), layers)
        detections = target.find(output)
        if not len(detections):
            return Heat(None, detections.cpu().numpy())
        sources = [kept[index] for index in layers]
        gradients = torch.autograd.grad(target.score(output, detections), sources)
    maps = [
        grad_cam_map(source.detach(), gradient) for source, gradient in zip(sources, gradients, strict=True)
    ]
    return Heat(merge(maps, images.shape[2:]), detections.cpu().numpy())


@torch.no_grad()
def eigencam(model: Network, images: Tensor, layers: Sequence[int], target: Target) -> Heat:
    """Compute EigenCAM of one image (1, 3, H, W), which does not depend on the target."""
    kept, output = run_and_keep(model, images, layers)
    maps = [_to_peak(eigen_cam_map(kept[index])) for index in layers]  # levels have different scales
    return Heat(merge(maps, images.shape[2:]), target.find(output).cpu().numpy())


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


def _score(decoded: Tensor, detections: Tensor) -> Tensor:
    """Sum the scores of detections (n, 6), found in `decoded` (1, N, 5 + nc + nm) as equal boxes."""
    corners = xywh2xyxy(decoded[0, :, :4].detach())
    same = (corners[None] == detections[:, None, :4]).all(2)  # (n, N)
    row, kind = same.float().argmax(1), detections[:, 5].long()
    return (decoded[0, row, 4] * decoded[0, row, 5 + kind]).sum()
