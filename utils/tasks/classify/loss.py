"""The classification loss: cross entropy with label smoothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from utils.ops.loss import SumCounts


class ClassificationLoss:
    """Cross entropy of logits, mean over the images.

    It is computed in float32, under autocast too.

    Args:
        label_smoothing: part of the target that is spread evenly over all classes (Szegedy et al.,
            arXiv:1512.00567, section 7).
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def __call__(
        self, logits: Tensor, targets: Tensor, sum_counts: SumCounts | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss of a batch.

        Args:
            logits: (B, nc).
            targets: (B, 2) image index, class.
            sum_counts: adds up numbers over all processes; the loss is then this process's part of the mean.

        Returns:
            The loss, and the same as items (1,).
        """
        classes = targets[:, 1].to(logits.device, torch.int64, non_blocking=True)
        (images,) = [len(classes)] if sum_counts is None else sum_counts([len(classes)])
        with torch.autocast(logits.device.type, enabled=False):
            total = functional.cross_entropy(
                logits.float(), classes, reduction="sum", label_smoothing=self.label_smoothing
            )
            loss = total / images
        return loss, loss.detach()[None]

    def refresh(self, model: Any) -> None:
        """Do nothing: the loss has nothing of the model."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, which is empty."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
