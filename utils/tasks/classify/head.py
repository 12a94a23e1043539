"""Classification heads: that of YOLOv5, that of VAN, and whole models of torchvision."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.blocks.conv import Conv
from utils.base.errors import ConfigError

HIDDEN = 1280  # channels of the convolution, as in EfficientNet-B0


class Classify(nn.Module):
    """Classifier of a map: convolution to 1280 channels, global average pool, dropout, linear layer.

    Its batch norm has PyTorch's default constants (eps 1e-5, momentum 0.1), with which official weights
    were trained; those of the other layers are 1e-3 and 0.03.

    Args:
        c1: input channels; the sum of those of several maps.
        c2: number of classes.
        k: kernel size of the convolution.
        s: its stride.
        p: its padding; by default as large as keeps the size.
        g: its groups.
        dropout_p: probability of dropout before the linear layer.

    Shape:
        (B, c1, h, w), or a list of maps that are concatenated -> (B, c2) logits
    """

    task = "classify"

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 1,
        s: int = 1,
        p: int | None = None,
        g: int = 1,
        dropout_p: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv = Conv(c1, HIDDEN, k, s, p, g)
        assert self.conv.bn is not None
        self.conv.bn.eps, self.conv.bn.momentum = 1e-5, 0.1
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(p=dropout_p, inplace=True)
        self.linear = nn.Linear(HIDDEN, c2)

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        joined = x if isinstance(x, Tensor) else torch.cat(list(x), 1)
        logits: Tensor = self.linear(self.drop(self.pool(self.conv(joined)).flatten(1)))
        return logits


class ClassifyLinear(nn.Module):
    """Classifier of a map as in VAN and ResNet: global average pool, dropout, linear layer.

    Args:
        c1: input channels.
        c2: number of classes.
        dropout_p: probability of dropout before the linear layer.

    Shape:
        (B, c1, h, w) -> (B, c2) logits
    """

    task = "classify"

    def __init__(self, c1: int, c2: int, dropout_p: float = 0.0) -> None:
        super().__init__()
        self.drop = nn.Dropout(p=dropout_p)
        self.linear = nn.Linear(c1, c2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.drop(x.mean((2, 3))))
        return logits


class TorchVision(nn.Module):
    """A classifier of torchvision, with a new last layer.

    Args:
        nc: number of classes.
        name: a name of `torchvision.models`, such as resnet18.

    Shape:
        (B, 3, H, W) normalized images -> (B, nc) logits

    Raises:
        ConfigError: torchvision has no such classifier; the message names similar ones.
    """

    task = "classify"

    def __init__(self, nc: int, name: str) -> None:
        super().__init__()
        self.name = name
        self.model = make_torchvision(name)
        replace_last(self.model, nc)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return logits


def make_torchvision(name: str) -> nn.Module:
    """Return a classifier of torchvision with random weights.

    Raises:
        ConfigError: there is none of this name.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"it has {', '.join(known)}"
        raise ConfigError(f"--model {name}: torchvision has no classifier of this name; {hint}")
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):  # their auxiliary classifiers return more than logits
        options = {"aux_logits": False, "init_weights": True, "transform_input": True}
    model: nn.Module = models.get_model(name, weights=None, **options)
    return model


def replace_last(model: nn.Module, nc: int) -> None:
    """Replace the last linear layer by one with `nc` outputs; the last convolution where none is linear."""
    name, last = [*model.named_children()][-1]
    inside = [*last.named_modules()]
    found = next((each for each in reversed(inside) if isinstance(each[1], nn.Linear)), None)
    found = found or next((each for each in reversed(inside) if isinstance(each[1], nn.Conv2d)), None)
    assert found is not None, "every classifier of torchvision ends in a linear layer or a convolution"
    inner, layer = found
    path = f"{name}.{inner}" if inner else name
    parent, _, attribute = path.rpartition(".")
    new: nn.Module
    if isinstance(layer, nn.Linear):
        new = nn.Linear(layer.in_features, nc, layer.bias is not None)
    else:
        assert isinstance(layer, nn.Conv2d)
        kernel: Any = layer.kernel_size
        stride: Any = layer.stride
        new = nn.Conv2d(layer.in_channels, nc, kernel, stride, bias=layer.bias is not None)
    setattr(model.get_submodule(parent), attribute, new)
