"""Forget what is inside a layer after its forward pass, and compute it again for the backward one.

Chen et al., Training deep nets with sublinear memory cost, arXiv:1604.06174.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recomputed(layer: nn.Module, x: Any) -> Any:
    """layer(x), for which only x is kept until the backward pass. Gradients and statistics are the same."""

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _statistics_held(layer)

    return checkpoint(layer, x, use_reentrant=False, context_fn=contexts)


@contextmanager
def _statistics_held(layer: nn.Module) -> Iterator[None]:
    """Batch norms normalise as in training, but their running statistics stay: they have seen this batch."""
    norms = [module for module in layer.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
