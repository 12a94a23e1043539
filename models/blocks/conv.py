"""Convolution, norm and activation: the brick everything else is laid with."""

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

from utils.native.convolution import PackedConvolution
from utils.native.library import is_traced, is_watched
from utils.native.norm_silu import fits, norm_silu

_NOTHING = nn.Identity()  # in place of an activation
_activation: ContextVar[nn.Module | None] = ContextVar("activation", default=None)
_csp_activation: ContextVar[nn.Module | None] = ContextVar("csp_activation", default=None)


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch norm with the constants that all YOLOv5 weights were trained with."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.03)


@contextmanager
def default_activation(activation: nn.Module, csp: nn.Module | None = None) -> Iterator[None]:
    """Blocks made inside the `with` share this activation; `csp` is BottleneckCSP's own, if another.

    Models before v4 had LeakyReLU there, whatever their convolutions had.
    """
    token, csp_token = _activation.set(activation), _csp_activation.set(csp)
    try:
        yield
    finally:
        _activation.reset(token)
        _csp_activation.reset(csp_token)


def make_activation(act: bool | nn.Module = True) -> nn.Module:
    """True: the default of the moment (SiLU); False: none; a module: that one."""
    if isinstance(act, nn.Module):
        return act
    if not act:
        return nn.Identity()
    return _activation.get() or nn.SiLU(inplace=True)


def make_csp_activation() -> nn.Module:
    """The activation between BottleneckCSP's branches."""
    return _csp_activation.get() or nn.SiLU()


def same_padding(k: int | tuple[int, int], d: int = 1) -> int | tuple[int, int]:
    """Padding that keeps the size at stride 1, for kernel k dilated by d."""
    if isinstance(k, int):
        return (d * (k - 1) + 1) // 2
    return (d * (k[0] - 1) + 1) // 2, (d * (k[1] - 1) + 1) // 2


class _Packable(nn.Module):
    """A layer that inference on the CPU may run with weights in oneDNN's order."""

    _packed: PackedConvolution | None = None

    def _apply(self, fn: Any, recurse: bool = True) -> _Packable:
        if self._packed is not None:
            self._packed.forget()  # another precision may come to lie at the same address
        super()._apply(fn, recurse)
        return self


class Conv(_Packable):
    """Conv2d without bias, batch norm, activation.

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
            return F.silu(x)  # in place it would keep a copy of its input for the backward pass
        return self.act(x)

    def fuse(self) -> None:
        """Fold the batch norm's running statistics into the convolution, for inference."""
        if self.bn is not None:
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.bn.eval())
            self.bn = None
            self._packed = PackedConvolution()


class Projection(_Packable, nn.Conv2d):
    """A 1x1 convolution with bias, alone.

    Shape:
        (B, c1, H, W) -> (B, c2, H, W)
    """

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__(c1, c2, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self._packed is not None and self._packed.fits(x, self, _NOTHING):
            return self._packed(x, self, _NOTHING)
        return super().forward(x)

    def fuse(self) -> None:
        """Prepare for inference."""
        self._packed = PackedConvolution()


class DWConv(Conv):
    """Depth-wise convolution: as many groups as c1 and c2 have in common."""

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, d: int = 1, act: bool | nn.Module = True
    ) -> None:
        super().__init__(c1, c2, k, s, None, math.gcd(c1, c2), d, act)


class DWConvTranspose2d(nn.ConvTranspose2d):
    """Depth-wise transposed convolution."""

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, padding: int = 0, output_padding: int = 0
    ) -> None:
        groups = math.gcd(c1, c2)
        super().__init__(c1, c2, k, s, padding, output_padding, groups)


class CrossConv(nn.Module):
    """A k x k convolution as 1 x k, then k x 1, with a shortcut where sizes agree."""

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
    """Convolutions of several kernel sizes side by side (Tan and Le, MixConv, arXiv:1907.09595)."""

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
    """Widths for which every branch has about the same number of weights: inverse to k squared."""
    shares = [1 / k**2 for k in kernels]
    widths = [max(1, round(total * share / sum(shares))) for share in shares]
    widths[0] += total - sum(widths)
    return widths


class GhostConv(nn.Module):
    """A convolution whose second half of channels is a 5x5 depth-wise view of the first."""

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
    """Two ghost convolutions, a depth-wise one between them at stride 2, and a shortcut."""

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
