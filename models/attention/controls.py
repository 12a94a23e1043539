"""Attention without a large kernel, and plain layers of the same size: what large kernels are compared with.

All return the shape of their input and stand wherever a large kernel gate does. With `init: identity` each
returns exactly its input until training changes it: gates of the form sigmoid(z) become 2 sigmoid(z), and
the last weights before z start at zero. With `init: paper` they are what their papers describe.

| block | source | parameters for C channels |
|---|---|---|
| SE | Hu et al., arXiv:1709.01507, section 3 | 2 C^2 / r |
| CBAM | Woo et al., arXiv:1807.06521, section 3 | 2 C^2 / r + 99 |
| ECA | Wang et al., arXiv:1910.03151, section 3.3 | kernel of about log2(C) / 2 |
| CoordAtt | Hou et al., arXiv:2103.02907, section 3.2 | (3 C + 3) m + 2 C, m = max(8, C / r) |
| SimAM | Yang et al., ICML 2021 (PMLR 139), section 3 | 0; 1 with init: identity |
| EMA | Ouyang et al., arXiv:2305.13563, section 3 | 10 n^2 + 4 n, n = C / r |
| Gate1x1 | LSKA without its depth-wise part | C^2 + C |
| Residual1x1 | x + a 1x1 convolution with batch norm and activation | C^2 + 2 C |
| Depthwise | a k x k depth-wise convolution in place of attention | (k^2 + 1) C |
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.attention.lska import bias_of, check_init, check_odd, depthwise
from models.blocks.conv import Conv, Projection, batch_norm
from utils.base.errors import ConfigError


class _Product(nn.Module):
    """Base class of gates: y = x * A(x)."""

    def attention(self, x: Tensor) -> Tensor:
        """Return A(x), which is broadcast to (B, dim, H, W)."""
        raise NotImplementedError  # each gate has its own

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x)


class _SigmoidGate(_Product):
    """Base class of gates whose factors are sigmoid(z).

    Attributes:
        scale: factor of each sigmoid: 2 where z starts at 0, so that the gate starts at 1.
    """

    def __init__(self, init: str) -> None:
        super().__init__()
        check_init(init)
        self.scale = 2.0 if init == "identity" else 1.0

    def gate(self, z: Tensor) -> Tensor:
        """Return scale * sigmoid(z)."""
        gate = z.sigmoid()
        return gate * self.scale if self.scale != 1 else gate

    def start_at_one(self, *last: nn.Module) -> None:
        """With init: identity, set the weights of the layers before each sigmoid to zero."""
        if self.scale != 1:
            for layer in last:
                for value in layer.parameters():
                    nn.init.zeros_(value)


class SE(_SigmoidGate):
    """Squeeze and excitation: a factor for each channel, from the means of all channels.

    Args:
        dim: input and output channels C.
        r: reduction; the hidden layer has C / r channels.
        init: "identity" or "paper".

    Shape:
        (B, dim, H, W) -> (B, dim, H, W)
    """

    def __init__(self, dim: int, r: int = 16, init: str = "identity") -> None:
        super().__init__(init)
        hidden = _reduced(dim, r)
        self.fc1 = nn.Conv2d(dim, hidden, 1, bias=False)
        self.fc2 = nn.Conv2d(hidden, dim, 1, bias=False)
        self.start_at_one(self.fc2)

    def attention(self, x: Tensor) -> Tensor:
        """Return the factor of each channel, (B, dim, 1, 1)."""
        return self.gate(self.mix(x.mean((2, 3), keepdim=True)))

    def mix(self, pooled: Tensor) -> Tensor:
        """Return z of each channel, (B, dim, 1, 1), from values of all channels."""
        mixed: Tensor = self.fc2(F.relu(self.fc1(pooled)))
        return mixed


class CBAM(SE):
    """Channel attention from means and maxima, then spatial attention by a 7 x 7 convolution.

    Args:
        dim: input and output channels C.
        r: reduction; the hidden layer has C / r channels.
        init: "identity" or "paper".

    Shape:
        (B, dim, H, W) -> (B, dim, H, W)
    """

    def __init__(self, dim: int, r: int = 16, init: str = "identity") -> None:
        super().__init__(dim, r, init)
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)
        self.start_at_one(self.spatial)

    def attention(self, x: Tensor) -> Tensor:
        """Return the factor of each value, (B, dim, H, W)."""
        means, peaks = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        channels = self.gate(self.mix(means) + self.mix(peaks))
        x = x * channels
        maps = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), 1)
        return channels * self.gate(self.spatial(maps))


class ECA(_SigmoidGate):
    """Efficient channel attention: a 1-D convolution over the means of neighbouring channels.

    Args:
        dim: input and output channels C; the kernel is the odd number at or above log2(C) / 2 + 1/2.
        init: "identity" or "paper".

    Shape:
        (B, dim, H, W) -> (B, dim, H, W)
    """

    def __init__(self, dim: int, init: str = "identity") -> None:
        super().__init__(init)
        k = int(math.log2(dim) / 2 + 0.5) | 1
        self.conv = nn.Conv1d(1, 1, k, padding=k // 2, bias=False)
        self.start_at_one(self.conv)

    def attention(self, x: Tensor) -> Tensor:
        """Return the factor of each channel, (B, dim, 1, 1)."""
        means = x.mean((2, 3))[:, None]
        return self.gate(self.conv(means)).transpose(1, 2)[..., None]


class CoordAtt(_SigmoidGate):
    """Coordinate attention: a factor for each row and one for each column, from means along the other side.

    Args:
        dim: input and output channels C.
        r: reduction; the hidden layer has max(8, C / r) channels.
        init: "identity" or "paper".

    Shape:
        (B, dim, H, W) -> (B, dim, H, W)
    """

    def __init__(self, dim: int, r: int = 32, init: str = "identity") -> None:
        super().__init__(init)
        hidden = max(8, _reduced(dim, r, least=0))
        self.conv1 = nn.Conv2d(dim, hidden, 1)
        self.bn1 = batch_norm(hidden)
        self.act = nn.Hardswish()
        self.conv_h = nn.Conv2d(hidden, dim, 1)
        self.conv_w = nn.Conv2d(hidden, dim, 1)
        self.start_at_one(self.conv_h, self.conv_w)

    def attention(self, x: Tensor) -> Tensor:
        """Return the factor of each value, (B, dim, H, W)."""
        height, width = x.shape[2:]
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
        mixed = self.act(self.bn1(self.conv1(torch.cat((rows, columns), 2))))
        rows, columns = mixed.split((height, width), 2)
        return self.gate(self.conv_h(rows)) * self.gate(self.conv_w(columns.transpose(2, 3)))


class SimAM(_Product):
    """Attention without weights: the more a value differs from its channel's mean, the larger its factor.

    With `init: identity` the factor is 1 + strength * (2 sigmoid(...) - 1) with one learned `strength`,
    which starts at 0.

    Args:
        dim: input and output channels; not used.
        init: "identity" or "paper".

    Shape:
        (B, dim, H, W) -> (B, dim, H, W)
    """

    def __init__(self, dim: int, init: str = "identity") -> None:
        super().__init__()
        check_init(init)
        self.strength = nn.Parameter(torch.zeros(1)) if init == "identity" else None

    def attention(self, x: Tensor) -> Tensor:
        """Return the factor of each value, (B, dim, H, W)."""
        square = (x - x.mean((2, 3), keepdim=True)).square()
        variance = square.sum((2, 3), keepdim=True) / max(x.shape[2] * x.shape[3] - 1, 1)
        gate = (square / (4 * (variance + 1e-4)) + 0.5).sigmoid()
        return gate if self.strength is None else 1 + self.strength * (2 * gate - 1)


class EMA(_SigmoidGate):
    """Efficient multi-scale attention: coordinate attention and a 3 x 3 convolution weigh each other.

    Channels are processed in r groups with shared weights. (Not the moving average of weights.)

    Args:
        dim: input and output channels C, a multiple of r.
        r: number of groups.
        init: "identity" or "paper".

    Shape:
        (B, dim, H, W) -> (B, dim, H, W)
    """

    def __init__(self, dim: int, r: int = 8, init: str = "identity") -> None:
        super().__init__(init)
        if r < 1 or dim % r:
            raise ConfigError(f"EMA: {dim} channels are not a multiple of r={r}")
        width = dim // r
        self.groups = r
        self.conv1x1 = nn.Conv2d(width, width, 1)
        self.conv3x3 = nn.Conv2d(width, width, 3, padding=1)
        self.gn = nn.GroupNorm(width, width)
        self.start_at_one(self.conv3x3, self.gn)  # both branches start at 0, and so does their sum

    def attention(self, x: Tensor) -> Tensor:
        """Return the factor of each value, (B, dim, H, W)."""
        batch, channels, height, width = x.shape
        groups = x.reshape(batch * self.groups, channels // self.groups, height, width)
        rows, columns = groups.mean(3, keepdim=True), groups.mean(2, keepdim=True).transpose(2, 3)
        rows, columns = self.conv1x1(torch.cat((rows, columns), 2)).split((height, width), 2)
        one = self.gn(groups * rows.sigmoid() * columns.transpose(2, 3).sigmoid())
        two = self.conv3x3(groups)
        weights = _weighted(one, two) + _weighted(two, one)
        return self.gate(weights).expand(-1, channels // self.groups, -1, -1).reshape(x.shape)


def _weighted(by: Tensor, of: Tensor) -> Tensor:
    """Return the map (B, 1, H, W) of `of` with its channels weighted by the softmax of the means of `by`."""
    return (by.mean((2, 3), keepdim=True).softmax(1) * of).sum(1, keepdim=True)


class Gate1x1(_Product):
    """x * conv(x) with a 1x1 convolution: LSKA without its large kernel.

    Args:
        dim: input and output channels.
        init: "identity" or "paper".

    Shape:
        (B, dim, H, W) -> (B, dim, H, W)
    """

    def __init__(self, dim: int, init: str = "identity") -> None:
        super().__init__()
        check_init(init)
        self.conv1 = Projection(dim, dim)
        if init == "identity":
            nn.init.zeros_(self.conv1.weight)
            nn.init.ones_(bias_of(self.conv1))

    def attention(self, x: Tensor) -> Tensor:
        """Return the factor of each value, (B, dim, H, W)."""
        factor: Tensor = self.conv1(x)
        return factor


class Residual1x1(nn.Module):
    """x + Conv(x), a 1x1 convolution with norm and activation: the weights of a gate without a gate.

    Args:
        dim: input and output channels.
        init: "identity": the scale of the batch norm starts at 0; "paper": at 1.

    Shape:
        (B, dim, H, W) -> (B, dim, H, W)
    """

    def __init__(self, dim: int, init: str = "identity") -> None:
        super().__init__()
        check_init(init)
        self.conv = Conv(dim, dim)
        if init == "identity" and self.conv.bn is not None:
            nn.init.zeros_(self.conv.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class Depthwise(nn.Module):
    """A plain k x k depth-wise convolution: a large kernel that is no attention.

    Args:
        dim: input and output channels.
        k: kernel size, odd.
        init: "identity": the kernel starts as 1 in the centre; "paper": PyTorch's default.

    Shape:
        (B, dim, H, W) -> (B, dim, H, W)
    """

    def __init__(self, dim: int, k: int = 11, init: str = "identity") -> None:
        super().__init__()
        check_init(init)
        check_odd(k)
        self.k = k
        self.conv = depthwise(dim, k, k)
        if init == "identity":
            nn.init.dirac_(self.conv.weight, groups=dim)
            nn.init.zeros_(bias_of(self.conv))

    def forward(self, x: Tensor) -> Tensor:
        convolved: Tensor = self.conv(x)
        return convolved


def _reduced(dim: int, r: int, least: int = 1) -> int:
    """Return dim / r.

    Raises:
        ConfigError: fewer than `least` channels would be left.
    """
    if r < 1 or dim // r < least:
        raise ConfigError(f"r={r}: expected a reduction from 1 to {dim}, the number of channels")
    return dim // r
