"""Activation checkpointing: less memory in training, for a second forward pass of each layer.

Chen et al., Training deep nets with sublinear memory cost, arXiv:1604.06174.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpointed(layer: nn.Module, x: Any) -> Any:
    """Return layer(x) and keep nothing but x for the backward pass, which runs the layer again.

    Gradients and running statistics are those of an ordinary pass.
    """

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), _frozen_statistics(layer)

    return checkpoint(layer, x, use_reentrant=False, context_fn=contexts)


@contextmanager
def _frozen_statistics(layer: nn.Module) -> Iterator[None]:
    """Keep running statistics as they are: the first forward pass has updated them with this batch."""
    norms = [module for module in layer.modules() if isinstance(module, _BatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
