"""How PyTorch is running at the moment."""

from __future__ import annotations

import torch


def is_traced() -> bool:
    """Whether a compiler or an export writes down what runs: then only PyTorch's operators will do."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()
