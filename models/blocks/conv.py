"""Convolutions: the basic block of YOLOv5 (convolution, batch norm, activation) and its variants."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from utils.native.library import is_traced, is_watched
from utils.native.norm_silu import PackedConvolution, fits, norm_silu

_NO_ACTIVATION = nn.Identity()
_activation: ContextVar[nn.Module | None] = ContextVar("activation", default=None)
_csp_activation: ContextVar[nn.Module | None] = ContextVar("csp_activation", default=None)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Make a batch norm with the constants that all YOLOv5 weights were trained with."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03)


@contextmanager
def default_activation(activation: nn.Module, csp: nn.Module | None = None) -> Iterator[None]:
    """Set the default activation of all blocks that are made inside the `with`.

    Args:
        activation: shared by all convolutions.
        csp: the activation of BottleneckCSP between its branches, if another; models before v4 have
            LeakyReLU there.
    """
    token, csp_token = _activation.set(activation), _csp_activation.set(csp)
    try:
        yield
    finally:
        _activation.reset(token)
        _csp_activation.reset(csp_token)


def make_activation(act: bool | nn.Module = True) -> nn.Module:
    """Return the activation that `act` stands for: True the default (SiLU), False none, a module itself."""
    if isinstance(act, nn.Module):
        return act
    if not act:
        return nn.Identity()
    return _activation.get() or nn.SiLU(inplace=True)


def make_csp_activation() -> nn.Module:
    """Return the activation that BottleneckCSP applies to its concatenated branches."""
    return _csp_activation.get() or nn.SiLU()


def same_padding(k: int | tuple[int, int], d: int = 1) -> int | tuple[int, int]:
    """Return the padding that keeps height and width at stride 1, for kernel k with dilation d."""
    if isinstance(k, int):
        return (d * (k - 1) + 1) // 2
    return (d * (k[0] - 1) + 1) // 2, (d * (k[1] - 1) + 1) // 2


class _Packable(nn.Module):
    """Base class of layers that can run with weights in oneDNN's layout, for inference on the CPU."""

    _packed: PackedConvolution | None = None

    def _apply(self, fn: Any, recurse: bool = True) -> _Packable:
        if self._packed is not None:
            self._packed.forget()  # the new weights may have the same memory address
        super()._apply(fn, recurse)
        return self


class Conv(_Packable):
    """Convolution without bias, batch norm, activation.

    Shape:
        (B, c1, H, W) -> (B, c2, H/s, W/s)
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int | tuple[int, int] = 1,
        s: int | tuple[int, int] = 1,
        p: int | tuple[int, int] | None = None,
        g: int = 1,
        d: int = 1,
        act: bool | nn.Module = True,
    ) -> None:
        super().__init__()
        padding = same_padding(k, d) if p is None else p
        self.conv = nn.Conv2d(c1, c2, k, s, padding, dilation=d, groups=g, bias=False)
        self.bn: nn.BatchNorm2d | None = batch_norm(c2)
        self.act = make_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        if self.bn is None:
            conv, act = self.conv, self.act
            if self._packed is not None and self._packed.fits(x, conv, act):
                return self._packed(x, conv, act)
            return act(conv(x))
        x = self.conv(x)
        if fits(x, self.bn, self.act):
            return norm_silu(x, self.bn)
        x = self.bn(x)
        plain = type(self.act) is nn.SiLU and not is_watched(self.act)
        if plain and torch.is_grad_enabled() and not is_traced():
            return F.silu(x)  # in place, autograd would copy its input
        return self.act(x)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled layer, also a fused one of the original, which has no `bn`."""
        super().__setstate__({key: value for key, value in state.items() if key != "forward"})
        self._modules.setdefault("bn", None)

    def forward_fuse(self, x: Tensor) -> Tensor:
        """Run the layer; pickled models of the original that were fused name this method."""
        return self(x)

    def fuse(self) -> None:
        """Fold the batch norm's running statistics into the convolution, for inference."""
        if self.bn is not None:
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.bn.eval())
            self.bn = None
            self._packed = PackedConvolution()


class Projection(_Packable, nn.Conv2d):
    """A 1x1 convolution with bias, without norm and activation.

    Shape:
        (B, c1, H, W) -> (B, c2, H, W)
    """

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__(c1, c2, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self._packed is not None and self._packed.fits(x, self, _NO_ACTIVATION):
            return self._packed(x, self, _NO_ACTIVATION)
        return super().forward(x)

    def fuse(self) -> None:
        """Pack the weights for inference."""
        self._packed = PackedConvolution()


class DWConv(Conv):
    """Depth-wise convolution, with gcd(c1, c2) groups."""

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, d: int = 1, act: bool | nn.Module = True
    ) -> None:
        super().__init__(c1, c2, k, s, None, math.gcd(c1, c2), d, act)


class DWConvTranspose2d(nn.ConvTranspose2d):
    """Depth-wise transposed convolution, with gcd(c1, c2) groups."""

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, padding: int = 0, output_padding: int = 0
    ) -> None:
        groups = math.gcd(c1, c2)
        super().__init__(c1, c2, k, s, padding, output_padding, groups)


class CrossConv(nn.Module):
    """A k x k convolution factored into 1 x k and k x 1, with an optional shortcut where c1 = c2."""

    def __init__(
        self, c1: int, c2: int, k: int = 3, s: int = 1, g: int = 1, e: float = 1.0, shortcut: bool = False
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, (1, k), (1, s))
        self.cv2 = Conv(hidden, c2, (k, 1), (s, 1), g=g)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class MixConv2d(nn.Module):
    """Parallel convolutions of several kernel sizes, concatenated (Tan and Le, MixConv, arXiv:1907.09595).

    Args:
        c1: input channels.
        c2: output channels, of all branches together.
        k: kernel size of each branch.
        s: stride.
        equal_ch: branches of equal width; else of about equally many weights.
    """

    def __init__(
        self, c1: int, c2: int, k: tuple[int, ...] = (1, 3), s: int = 1, equal_ch: bool = True
    ) -> None:
        super().__init__()
        widths = _equal_channels(c2, len(k)) if equal_ch else _equal_weights(c2, k)
        self.m = nn.ModuleList(
            nn.Conv2d(c1, width, size, s, size // 2, groups=math.gcd(c1, width), bias=False)
            for size, width in zip(k, widths, strict=True)
        )
        self.bn = batch_norm(c2)
        self.act = make_activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(torch.cat([branch(x) for branch in self.m], 1)))


def _equal_channels(total: int, parts: int) -> list[int]:
    return [total // parts + (i < total % parts) for i in range(parts)]


def _equal_weights(total: int, kernels: tuple[int, ...]) -> list[int]:
    """Return widths proportional to 1 / k^2, so that all branches have about equally many weights."""
    shares = [1 / k**2 for k in kernels]
    widths = [max(1, round(total * share / sum(shares))) for share in shares]
    widths[0] += total - sum(widths)
    return widths


class GhostConv(nn.Module):
    """Ghost convolution: half of the channels by a convolution, the rest from these by a 5x5 depth-wise one.

    Han et al., GhostNet, arXiv:1911.11907.
    """

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, g: int = 1, act: bool | nn.Module = True
    ) -> None:
        super().__init__()
        hidden = c2 // 2
        self.cv1 = Conv(c1, hidden, k, s, g=g, act=act)
        self.cv2 = Conv(hidden, hidden, 5, 1, g=hidden, act=act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv1(x)
        return torch.cat((y, self.cv2(y)), 1)


class GhostBottleneck(nn.Module):
    """Two ghost convolutions with a shortcut; at stride 2 with a depth-wise convolution between them."""

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1) -> None:
        super().__init__()
        hidden = c2 // 2
        strided = s == 2
        self.conv = nn.Sequential(
            GhostConv(c1, hidden),
            DWConv(hidden, hidden, k, s, act=False) if strided else nn.Identity(),
            GhostConv(hidden, c2, act=False),
        )
        self.shortcut: nn.Module = nn.Identity()
        if strided:
            self.shortcut = nn.Sequential(DWConv(c1, c1, k, s, act=False), Conv(c1, c2, 1, act=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.shortcut(x)
