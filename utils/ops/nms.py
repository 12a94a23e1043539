"""Non-maximum suppression: from all boxes of the head to the few that are detections.

There is no time limit. What keeps it fast is that suppression works from the best candidate down and
stops at `max_det` detections, so thousands of weak candidates are never compared with each other.
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
from utils.ops.boxes import xywh2xyxy

MAX_CANDIDATES = 30_000  # of an image, the best by score; the original has the same limit
_LARGEST = 1e6  # pixels; coordinates beyond are cut for the comparison of boxes only

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
    """Drop weak boxes, then every box that overlaps a better one of its class.

    Rows that hold NaN or infinity are dropped. Equal scores keep the order of `decoded`.

    Args:
        decoded: (B, N, 5 + nc + nm), boxes as xywh in pixels; never changed.
        conf_thres: objectness, and objectness x class score, must be greater.
        iou_thres: a box that overlaps a better one by more is dropped.
        classes: the only classes to report; None for all.
        agnostic: boxes of different classes suppress each other too.
        multi_label: a box may be reported once for each class, not only for its best.
        labels: for each image (n, 5) class, xywh in pixels: true boxes that join with score 1.
        max_det: most detections of an image.
        nm: mask coefficients at the end of each row; like class scores they come out times objectness.

    Returns:
        For each image (n, 6 + nm): x1, y1, x2, y2, score, class, coefficients; best first; float32.

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
        raise ConfigError(f"--{flag} {value}: a number from 0 to 1 is needed")


def _confident_rows(decoded: Tensor, conf_thres: float) -> list[Tensor]:
    """Per image the finite rows with enough objectness, float32; found for the whole batch at once."""
    confident = decoded[..., 4] > conf_thres
    counts = confident.sum(1).tolist()
    indices = _places(confident)[1].split(counts)
    return [_finite(rows[index].float()) for rows, index in zip(decoded, indices, strict=True)]


def _finite(rows: Tensor) -> Tensor:
    """The rows without NaN or infinity; that there are none, as nearly always, the extremes tell at once."""
    if len(rows) == 0 or torch.stack(rows.aminmax()).isfinite().all():
        return rows
    return rows[rows.isfinite().all(1)]


def _places(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of each true element of a mask (n, m), row by row."""
    if mask.device.type == "cpu":  # where numpy looks over flat arrays several times as fast
        place = torch.from_numpy(np.flatnonzero(mask.numpy()))
        row = place.div(mask.shape[1], rounding_mode="floor")
        return row, place - row * mask.shape[1]
    row, column = mask.nonzero(as_tuple=True)
    return row, column


def _label_rows(labels: Tensor, like: Tensor, nc: int) -> Tensor:
    """Write true boxes (n, 5) as rows of certain predictions."""
    rows = like.new_zeros(len(labels), like.shape[1])
    rows[:, :4] = labels[:, 1:5]
    rows[:, 4] = 1
    rows[:, 5 : 5 + nc].scatter_(1, labels[:, :1].to(rows.device, torch.long), 1)
    return rows


def _candidates(rows: Tensor, nc: int, conf_thres: float, multi_label: bool) -> _Candidates:
    """Pair rows with the classes that they may be."""
    scores = rows[:, 5 : 5 + nc] * rows[:, 4:5]
    if multi_label:
        row, cls = _places(scores > conf_thres)
        return row, cls, scores[row, cls]
    best, cls = scores.max(1)
    row = (best > conf_thres).nonzero()[:, 0]
    return row, cls[row], best[row]


def _best_first(candidates: _Candidates, classes: Sequence[int] | None, limit: int) -> _Candidates:
    """Sort by falling score, of the wanted classes only, at most `limit`."""
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
    """Indices (n,) of the boxes that survive, best first; boxes of different groups never meet.

    The input is sorted, and a box can only be suppressed by a better one: the survivors among the first
    boxes are final. So the best few are tried alone, and more only while detections are missing.
    """
    device = xyxy.device
    if device.type == "mps":  # neither float64 nor the kernel exist there
        xyxy, score, group = xyxy.cpu(), score.cpu(), group.cpu()
    # float64: groups are told apart by moving each far away, and float32 has no digits for that.
    apart = xyxy.double().clamp(-_LARGEST, _LARGEST) + 3 * _LARGEST * group[:, None]
    score = score.double()
    tried = 4 * max_det
    while True:
        kept = _nms_kernel()(apart[:tried], score[:tried], iou_thres)
        if len(kept) >= max_det or tried >= len(score):
            return kept[:max_det].to(device)
        tried *= 4


@cache
def _nms_kernel() -> Callable[[Tensor, Tensor, float], Tensor]:
    """torchvision's NMS: (boxes_xyxy, scores, threshold) -> indices by falling score.

    Its library is loaded by itself, in a millisecond; `import torchvision` takes a second.
    """
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        raise ConfigError("suppression of boxes needs torchvision: pip install torchvision")
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        for library in Path(package.origin).parent.glob(f"_C*{suffix}"):
            torch.ops.load_library(str(library))
            return torch.ops.torchvision.nms
    from torchvision.ops import nms  # the library has another name here

    return nms
