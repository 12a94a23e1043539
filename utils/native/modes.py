"""In which way PyTorch is running at the moment."""

from __future__ import annotations

import torch


def is_traced() -> bool:
    """Whether a compiler or an export writes down what runs: then only PyTorch's operators will do."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def may_overwrite() -> bool:
    """Whether a map that nobody else has may be reused: without gradients, and not `is_traced`."""
    return not (torch.is_grad_enabled() or is_traced())
