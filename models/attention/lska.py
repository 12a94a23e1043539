"""Large kernel attention in four designs (Lau, Po and Rehman, LSKA, arXiv:2309.01439, section 3).

Each convolves a k x k neighbourhood of every pixel depth-wise, mixes the channels with a 1x1
convolution, and multiplies its input by the result. They differ in how the k x k kernel is decomposed,
and so in how the cost grows with k:

| design | depth-wise kernels | weights for C channels |
|---|---|---|
| LKATrivial | k x k | k^2 C |
| LSKATrivial | 1 x k, k x 1 | 2k C |
| LKA (Guo et al., arXiv:2202.09741) | near x near, far x far dilated by d | (near^2 + far^2) C |
| LSKA | 1 x near, near x 1, 1 x far, far x 1 dilated by d | 2 (near + far) C |

with near = 2d - 1 and far = (k - d + 1) / d: both in a row have a receptive field of exactly k.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn

from models.blocks.conv import Projection
from utils.base.errors import ConfigError
from utils.native.chain import separable_chain

_TAPS = ("conv0", "conv0h", "conv_spatial", "conv_spatial_h")  # names of depth-wise convolutions


def default_dilation(k: int) -> int:
    """Return the dilation of the published kernels: 2 up to k = 11, then 3."""
    return 2 if k <= 11 else 3


def taps(k: int, dilation: int) -> tuple[int, int]:
    """Decompose kernel k into (near, far) taps.

    Raises:
        ConfigError: (k - dilation + 1) / dilation is not an odd integer.
    """
    if dilation < 1 or not is_legal(k, dilation):
        sizes = [n for n in range(1, k + 4 * max(dilation, 1) + 2) if is_legal(n, max(dilation, 1))]
        near = sorted(sorted(sizes, key=lambda n: abs(n - k))[:2])
        raise ConfigError(
            f"large kernel attention: k={k} cannot be split with dilation {dilation}; "
            f"the nearest sizes that can are {' and '.join(map(str, near))}"
        )
    return 2 * dilation - 1, (k - dilation + 1) // dilation


def is_legal(k: int, dilation: int) -> bool:
    """Return whether k = (2d - 1) + d (far - 1) has a solution with odd far."""
    far, rest = divmod(k - dilation + 1, dilation)
    return rest == 0 and far > 0 and far % 2 == 1


def kernel_of(state: Mapping[str, Tensor], prefix: str) -> tuple[int, int | None] | None:
    """Return k and the dilation of a gate from the shapes of its tensors; None if there is no gate.

    Args:
        state: tensors of a model by key.
        prefix: of the keys of the layer that contains the gate, such as `model.10.`.
    """
    sides = {
        name: max(tensor.shape[2:])
        for key, tensor in state.items()
        if key.startswith(prefix) and (name := key.removesuffix(".weight").rpartition(".")[2]) in _TAPS
    }
    near = sides.get("conv0h") or sides.get("conv0")
    far = sides.get("conv_spatial_h") or sides.get("conv_spatial")
    if near is None:
        return None
    if far is None:  # a trivial design
        return near, None
    dilation = (near + 1) // 2
    return near + (far - 1) * dilation, dilation


class _Gate(nn.Module, ABC):
    """Base class of the designs: y = x * A(x), where A ends in a 1x1 convolution.

    Args:
        dim: input and output channels.
        k: kernel size, the side of the neighbourhood.
        dilation: of the far taps; None: as published for k. The trivial designs ignore it.
        init: "identity": A(x) = 1 until training changes it, so that inserting the block into a trained
            network does not change its outputs; "paper": PyTorch's default, as the authors use.

    Shape:
        (B, dim, H, W) -> (B, dim, H, W)
    """

    conv1: nn.Conv2d

    def __init__(self, dim: int, k: int = 11, dilation: int | None = None, init: str = "identity") -> None:
        super().__init__()
        check_init(init)
        self.k = k
        self.dilation = default_dilation(k) if dilation is None else dilation
        # Attribute names are the keys of published weights: do not rename them.
        self.make_convolutions(dim)
        self.conv1 = Projection(dim, dim)
        if init == "identity":
            nn.init.zeros_(self.conv1.weight)
            nn.init.ones_(bias_of(self.conv1))

    @abstractmethod
    def make_convolutions(self, dim: int) -> None:
        """Make the depth-wise convolutions."""

    @abstractmethod
    def convolve(self, x: Tensor) -> Tensor:
        """Run the depth-wise convolutions."""

    def attention(self, x: Tensor) -> Tensor:
        """Return A(x), the factor of each value of x."""
        return self.conv1(self.convolve(x))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.attention(x)


class LSKA(_Gate):
    """Large separable kernel attention: four 1-D kernels; the cost is linear in k."""

    def make_convolutions(self, dim: int) -> None:
        near, far = taps(self.k, self.dilation)
        self.conv0h = depthwise(dim, 1, near)
        self.conv0v = depthwise(dim, near, 1)
        self.conv_spatial_h = depthwise(dim, 1, far, self.dilation)
        self.conv_spatial_v = depthwise(dim, far, 1, self.dilation)

    def convolve(self, x: Tensor) -> Tensor:
        stages = (self.conv0h, self.conv0v, self.conv_spatial_h, self.conv_spatial_v)
        return separable_chain(x, stages)


class LKA(_Gate):
    """Large kernel attention: two 2-D kernels; the cost is quadratic in k, with a small factor."""

    def make_convolutions(self, dim: int) -> None:
        near, far = taps(self.k, self.dilation)
        self.conv0 = depthwise(dim, near, near)
        self.conv_spatial = depthwise(dim, far, far, self.dilation)

    def convolve(self, x: Tensor) -> Tensor:
        return self.conv_spatial(self.conv0(x))


class LSKATrivial(_Gate):
    """A pair of 1-D kernels without dilation."""

    def make_convolutions(self, dim: int) -> None:
        check_odd(self.k)
        self.conv0h = depthwise(dim, 1, self.k)
        self.conv0v = depthwise(dim, self.k, 1)

    def convolve(self, x: Tensor) -> Tensor:
        return separable_chain(x, (self.conv0h, self.conv0v))


class LKATrivial(_Gate):
    """One k x k kernel; the cost is quadratic in k."""

    def make_convolutions(self, dim: int) -> None:
        check_odd(self.k)
        self.conv0 = depthwise(dim, self.k, self.k)

    def convolve(self, x: Tensor) -> Tensor:
        return self.conv0(x)


DESIGNS: dict[str, type[_Gate]] = {
    "LSKA": LSKA,
    "LKA": LKA,
    "LSKATrivial": LSKATrivial,
    "LKATrivial": LKATrivial,
}


def depthwise(dim: int, height: int, width: int, dilation: int = 1) -> nn.Conv2d:
    """Make a depth-wise convolution with bias that keeps H and W."""
    padding = (dilation * (height // 2), dilation * (width // 2))
    return nn.Conv2d(dim, dim, (height, width), padding=padding, dilation=dilation, groups=dim)


def check_init(init: str) -> None:
    """Raise ConfigError unless init is identity or paper."""
    if init not in ("identity", "paper"):
        raise ConfigError(f"large kernel attention: init is {init!r}; expected identity or paper")


def check_odd(k: int) -> None:
    """Raise ConfigError unless a kernel size is odd."""
    if k < 1 or k % 2 == 0:
        raise ConfigError(f"large kernel attention: k={k} must be odd; {k - 1} and {k + 1} are nearest")


def bias_of(convolution: nn.Conv2d) -> Tensor:
    """Return the bias of a convolution that has one."""
    assert convolution.bias is not None
    return convolution.bias
