"""Memory formats of maps."""

from __future__ import annotations

import torch
from torch import Tensor


def memory_format(x: Tensor) -> torch.memory_format:
    """Return channels last, or contiguous for maps that are both or neither."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


def dense(x: Tensor) -> Tensor:
    """Return x without gaps in memory."""
    return x.contiguous(memory_format=memory_format(x))
