"""How PyTorch is running at the moment, and who looks on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

_transforms: Callable[[], bool] = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
_modes: Callable[[], int] = getattr(torch._C, "_len_torch_dispatch_stack", lambda: 0)


def is_traced() -> bool:
    """Whether only PyTorch's own operators will do.

    A compiler or an export writes down what runs, or torch.func transforms it, or a mode watches operators.
    """
    return torch.compiler.is_compiling() or torch.jit.is_tracing() or _transforms() or _modes() > 0


def is_watched(*modules: nn.Module) -> bool:
    """Whether somebody has asked to be told when one of the modules runs: then it has to."""
    for m in modules:  # a generator would take longer than the looking
        if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks:
            return True
    return False
