"""Non-maximum suppression (NMS): select detections from the decoded boxes of the head.

There is no time limit. NMS processes candidates from the best down and stops at `max_det` detections, so
that thousands of weak candidates are never compared with each other.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.base.errors import ConfigError
from utils.native.nms import can_keep, keep_boxes
from utils.ops.boxes import xywh2xyxy

MAX_CANDIDATES = 30_000  # per image, those with the highest scores; the original has the same limit
_LARGEST = 1e6  # pixels; larger coordinates are clipped, for the comparison of boxes only

_Candidates = tuple[Tensor, Tensor, Tensor]  # row, class, score: each (n,)


@torch.no_grad()
def non_max_suppression(
    decoded: Tensor,
    conf_thres: float = 0.25,
    iou_thres: float = 0.45,
    classes: Sequence[int] | None = None,
    agnostic: bool = False,
    multi_label: bool = False,
    labels: Sequence[Tensor] = (),
    max_det: int = 300,
    nm: int = 0,
) -> list[Tensor]:
    """Drop boxes with low confidence, then boxes that overlap a better one of the same class.

    Rows with NaN or inf are dropped. Boxes with equal scores keep the order of `decoded`.

    Args:
        decoded: (B, N, 5 + nc + nm), boxes as xywh in pixels; not modified.
        conf_thres: confidence threshold, of the objectness and of objectness x class score.
        iou_thres: NMS IoU threshold: a box with a greater IoU to a better one is dropped.
        classes: classes to return; None for all.
        agnostic: class-agnostic NMS: boxes of different classes suppress each other too.
        multi_label: return a box for each class above the threshold, not only for its best class.
        labels: per image (n, 5) class, xywh in pixels: true boxes, added with score 1.
        max_det: maximum detections per image.
        nm: number of mask coefficients at the end of each row; they are multiplied by objectness.

    Returns:
        Per image (n, 6 + nm) float32: x1, y1, x2, y2, score, class, coefficients; best first.

    Raises:
        ConfigError: a threshold is outside 0-1.
    """
    _check_threshold("conf-thres", conf_thres)
    _check_threshold("iou-thres", iou_thres)
    nc = decoded.shape[2] - 5 - nm
    detections = []
    for image, rows in enumerate(_confident_rows(decoded, conf_thres)):
        if len(labels):
            rows = torch.cat((rows, _label_rows(labels[image], rows, nc)))
        row, cls, score = _best_first(
            _candidates(rows, nc, conf_thres, multi_label and nc > 1), classes, MAX_CANDIDATES
        )
        xyxy = xywh2xyxy(rows[:, :4])[row]
        kept = _suppress(xyxy, score, torch.zeros_like(cls) if agnostic else cls, iou_thres, max_det)
        chosen = rows[row[kept]]
        parts = (xyxy[kept], score[kept, None], cls[kept, None].float(), chosen[:, 5 + nc :] * chosen[:, 4:5])
        detections.append(torch.cat(parts, 1))
    return detections


def _check_threshold(flag: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"--{flag} {value}: expected a number from 0 to 1")


def _confident_rows(decoded: Tensor, conf_thres: float) -> list[Tensor]:
    """Return the finite rows of each image whose objectness is above the threshold, in float32."""
    confident = decoded[..., 4] > conf_thres
    counts = confident.sum(1).tolist()
    indices = _nonzero(confident)[1].split(counts)  # once for the whole batch
    return [_finite(rows[index].float()) for rows, index in zip(decoded, indices, strict=True)]


def _finite(rows: Tensor) -> Tensor:
    """Drop rows with NaN or inf. Fast path: if min and max are finite, every row is."""
    if len(rows) == 0 or torch.stack(rows.aminmax()).isfinite().all():
        return rows
    return rows[rows.isfinite().all(1)]


def _nonzero(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return row and column of each true element of a mask (n, m), sorted by row."""
    if mask.device.type == "cpu":  # numpy is several times faster on flat arrays
        index = torch.from_numpy(np.flatnonzero(mask.numpy()))
        row = index.div(mask.shape[1], rounding_mode="floor")
        return row, index - row * mask.shape[1]
    row, column = mask.nonzero(as_tuple=True)
    return row, column


def _label_rows(labels: Tensor, like: Tensor, nc: int) -> Tensor:
    """Convert true boxes (n, 5) to rows of predictions with confidence 1."""
    rows = like.new_zeros(len(labels), like.shape[1])
    rows[:, :4] = labels[:, 1:5]
    rows[:, 4] = 1
    rows[:, 5 : 5 + nc].scatter_(1, labels[:, :1].to(rows.device, torch.long), 1)
    return rows


def _candidates(rows: Tensor, nc: int, conf_thres: float, multi_label: bool) -> _Candidates:
    """Return pairs of row and class above the confidence threshold: the best class of each row, or all."""
    scores = rows[:, 5 : 5 + nc] * rows[:, 4:5]
    if multi_label:
        row, cls = _nonzero(scores > conf_thres)
        return row, cls, scores[row, cls]
    best, cls = scores.max(1)
    row = (best > conf_thres).nonzero()[:, 0]
    return row, cls[row], best[row]


def _best_first(candidates: _Candidates, classes: Sequence[int] | None, limit: int) -> _Candidates:
    """Sort candidates by score, the best first; keep those of `classes`, and at most `limit`."""
    row, cls, score = candidates
    if classes is not None:
        wanted = torch.isin(cls, torch.tensor(list(classes), device=cls.device))
        row, cls, score = row[wanted], cls[wanted], score[wanted]
    if len(score) > limit:
        strongest = score.topk(limit, sorted=False).indices.sort().values
        row, cls, score = row[strongest], cls[strongest], score[strongest]
    order = score.sort(descending=True, stable=True).indices
    return row[order], cls[order], score[order]


def _suppress(xyxy: Tensor, score: Tensor, group: Tensor, iou_thres: float, max_det: int) -> Tensor:
    """Return the indices (n,) of the boxes that NMS keeps; boxes of different groups are independent.

    The input is sorted, and a box can only be suppressed by a better one, so the result for the first
    boxes is final. Hence only the best few are processed, and more while there are less than `max_det`.
    """
    device = xyxy.device
    if device.type == "mps":  # has neither float64 nor the kernel
        xyxy, score, group = xyxy.cpu(), score.cpu(), group.cpu()
    # Shift each group far away from the others, in float64: float32 has not enough digits for that.
    shifted = xyxy.double().clamp(-_LARGEST, _LARGEST) + 3 * _LARGEST * group[:, None]
    if can_keep(shifted):
        return keep_boxes(shifted, iou_thres, max_det)
    score = score.double()
    count = 4 * max_det
    while True:
        kept = _nms_kernel()(shifted[:count], score[:count], iou_thres)
        if len(kept) >= max_det or count >= len(score):
            return kept[:max_det].to(device)
        count *= 4


@cache
def _nms_kernel() -> Callable[[Tensor, Tensor, float], Tensor]:
    """Return the NMS of torchvision: (boxes_xyxy, scores, threshold) -> indices, best score first.

    Only its library is loaded, which takes a millisecond; `import torchvision` takes a second.
    """
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        raise ConfigError("NMS needs torchvision: pip install torchvision")
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        for library in Path(package.origin).parent.glob(f"_C*{suffix}"):
            torch.ops.load_library(str(library))
            return torch.ops.torchvision.nms
    from torchvision.ops import nms  # the library has another name on this system

    return nms
