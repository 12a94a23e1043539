"""YOLOv5's `utils.metrics`: IoU, average precision, confusion matrix, fitness."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.base.names import class_names
from utils.ops import boxes, metrics, precision


def fitness(x: Any) -> Any:
    """Return the fitness of rows (n, 4+) of P, R, mAP50, mAP50-95."""
    x = np.atleast_2d(np.asarray(x))
    return (x[:, :4] * [0.0, 0.0, 0.1, 0.9]).sum(1)


def ap_per_class(
    tp: np.ndarray,
    conf: np.ndarray,
    pred_cls: np.ndarray,
    target_cls: np.ndarray,
    plot: bool = False,
    save_dir: Any = ".",
    names: Any = (),
    eps: float = 1e-16,
    prefix: str = "",
) -> tuple[np.ndarray, ...]:
    """Return true and false positives, P, R, F1 (c,), AP (c, 10) and the classes (c,) that have labels."""
    tp, conf, pred_cls, target_cls = (np.asarray(values) for values in (tp, conf, pred_cls, target_cls))
    known = names if isinstance(names, Mapping) else class_names(list(names))
    result = precision.ap_per_class(tp, conf, pred_cls, target_cls, known)
    if plot:
        _plot(result, Path(save_dir), prefix)
    return result.tp, result.fp, result.p, result.r, result.f1, result.ap, result.classes


def _plot(result: precision.APResult, folder: Path, prefix: str) -> None:
    plot_pr_curve(result.px, result.prec_values, result.ap, folder / f"{prefix}PR_curve.png", result.names)
    for name, curve in (("F1", result.f1_curve), ("P", result.p_curve), ("R", result.r_curve)):
        plot_mc_curve(result.px, curve, folder / f"{prefix}{name}_curve.png", result.names, ylabel=name)


def plot_pr_curve(px: Any, py: Any, ap: Any, save_dir: Any = Path("pr_curve.png"), names: Any = ()) -> None:
    """Write the precision-recall curves (c, 1000) of all classes."""
    from utils.plots.curves import plot_pr_curve as plot

    plot(px, np.asarray(py).reshape(-1, len(px)), ap, Path(save_dir), _texts(names))


def plot_mc_curve(
    px: Any,
    py: Any,
    save_dir: Any = Path("mc_curve.png"),
    names: Any = (),
    xlabel: str = "Confidence",
    ylabel: str = "Metric",
) -> None:
    """Write the curves (c, 1000) of a metric over the confidence."""
    from utils.plots.curves import plot_mc_curve as plot

    plot(px, np.asarray(py).reshape(-1, len(px)), Path(save_dir), _texts(names), xlabel, ylabel)


def _texts(names: Any) -> list[str]:
    return [str(name) for name in (names.values() if isinstance(names, Mapping) else names)]


class ConfusionMatrix(metrics.ConfusionMatrix):
    """Confusion matrix (nc + 1, nc + 1): rows predicted, columns true, the last of each is the background."""

    def process_batch(self, detections: Any, labels: Any) -> None:
        """Add one image: detections (n, 6) or None, labels (m, 5) class, xyxy; tensors or arrays."""
        found = None if detections is None else torch.as_tensor(detections)
        super().process_batch(found, torch.as_tensor(labels))

    def plot(self, normalize: bool = True, save_dir: Any = "", names: Any = ()) -> None:
        """Write confusion_matrix.png to a folder."""
        from utils.plots.curves import plot_confusion_matrix

        texts = _texts(names) or [str(index) for index in range(self.nc)]
        plot_confusion_matrix(self.matrix, Path(save_dir) / "confusion_matrix.png", texts, normalize)

    def print(self) -> None:
        """Print the rows."""
        for row in self.matrix:
            print(" ".join(map(str, row)))


def bbox_iou(
    box1: Tensor,
    box2: Tensor,
    xywh: bool = True,
    GIoU: bool = False,
    DIoU: bool = False,
    CIoU: bool = False,
    eps: float = 1e-7,
    x1y1x2y2: bool | None = None,
) -> Tensor:
    """Return the IoU of boxes, or GIoU, DIoU, CIoU.

    Until v6.1 the third argument was `x1y1x2y2`, box1 was (4,) and box2 (n, 4); with that keyword the result
    is (n,), else (n, 1).
    """
    old = x1y1x2y2 is not None
    if old:
        xywh = not x1y1x2y2
        box1, box2 = (box1.T if box1.ndim == 2 and box1.shape[0] == 4 else box1), box2
        box1 = box1.expand(len(box2), 4) if box1.ndim == 1 else box1
    kind: boxes.Kind = "ciou" if CIoU else "diou" if DIoU else "giou" if GIoU else "iou"
    result = boxes.bbox_iou(box1, box2, xywh, kind, eps)
    return result.reshape(-1) if old else result.reshape(*result.shape[: box2.ndim - 1], 1)


def bbox_iou_xyxy(box1: Tensor, box2: Tensor, x1y1x2y2: bool = True, **kinds: Any) -> Tensor:
    """Return the IoU (n,) of a box (4,) and boxes (n, 4) xyxy, as in `utils.general` until v5.0."""
    return bbox_iou(box1, box2, x1y1x2y2=x1y1x2y2, **kinds)


def wh_iou(wh1: Tensor, wh2: Tensor, eps: float = 1e-7) -> Tensor:
    """Return the IoU (n, m) of sizes (n, 2) and (m, 2) whose centres coincide."""
    inter = torch.minimum(wh1[:, None], wh2[None]).prod(2)
    return inter / (wh1.prod(1)[:, None] + wh2.prod(1)[None] - inter + eps)
