"""The base class of all models: layers in a row, some of whose outputs later layers read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from models.activation_checkpointing import checkpointed
from models.blocks.conv import Conv, Projection
from utils.base.log import LOG
from utils.ops.flops import gflops

M = TypeVar("M", bound="BaseModel")
LayerCallback = Callable[[nn.Module, Tensor], None]


def describe_layer(layer: Any, shapes: Mapping[int, Sequence[int]]) -> str:
    """Return the number, name and sources of a layer, such as `layer 12 (Concat) reads layer 4 (64x16x16)`.

    Args:
        layer: of a model.
        shapes: outputs (C, H, W) of the layers before it, by number.
    """
    sources = layer.f if isinstance(layer.f, list) else [layer.f]
    numbers = [source if source >= 0 else layer.i + source for source in sources]
    sizes = {n: "x".join(map(str, shapes.get(n, ()))) for n in numbers}
    read = (f"layer {n} ({sizes[n]})" if n >= 0 else "the image" for n in numbers)
    return f"layer {layer.i} ({layer.type.rpartition('.')[2]}) reads {' and '.join(read)}"


class BaseModel(nn.Module):
    """The layers of a model yaml; subclasses build them, and say what they mean.

    Attributes:
        yaml: content of the yaml.
        yaml_file: its name.
        model: the layers.
        save: indices of the layers whose output is read again.
        nc: number of classes.
        names: their names by index.
    """

    # Defaults of attributes that models unpickled by torch.load may lack.
    yaml_file = ""
    hyp: dict[str, Any] | None = None
    trained_imgsz: int | None = None  # image size of its training, if its file says it
    checkpoint_activations = False  # training keeps the outputs of layers only, not what is inside
    inplace = True
    yaml: dict[str, Any]
    model: nn.Sequential
    save: list[int]
    nc: int
    names: dict[int, str]

    @property
    def task(self) -> str:
        """Name of the task: detect, segment or classify."""
        raise NotImplementedError

    @property
    def stride(self) -> Tensor:
        """Strides of the levels; height and width of images are multiples of the largest."""
        raise NotImplementedError

    def run_layers(self, x: Tensor, visualize: LayerCallback | None = None) -> Any:
        """Run the layers once, without test-time augmentation."""
        kept: dict[int, Tensor] = {}
        reused = set(self.save)
        checkpointing = self.checkpoint_activations and self.training and torch.is_grad_enabled()
        for layer in self.model:
            index: Any = layer.i
            source: Any = layer.f
            given: Any = x
            if isinstance(source, list):
                given = [x if j == -1 else kept[j % index] for j in source]
            elif source != -1:
                given = kept[source % index]
            x = checkpointed(layer, given) if checkpointing and layer is not self.model[-1] else layer(given)
            if index in reused:
                kept[index] = x
            if visualize is not None and isinstance(x, Tensor):
                visualize(layer, x)
        return x

    def fuse(self: M) -> M:
        """Fold every batch norm that follows a convolution into it, for inference."""
        for module in self.modules():
            if isinstance(module, Conv | Projection):
                module.fuse()
        return self

    def forget_grids(self) -> None:
        """Drop what a head has cached for its anchors."""

    def info(self, verbose: bool = False, img_size: int | tuple[int, int] = 640) -> None:
        """Log a summary line; `verbose` also a row for each parameter."""
        if verbose:
            for name, p in self.named_parameters():
                LOG.info(f"{name:40s} {p.requires_grad!s:>5} {p.numel():9d} {list(p.shape)}")
        LOG.info(self.summary(img_size))

    def summary(self, imgsz: int | tuple[int, int] = 640) -> str:
        """Return a summary line: layers, parameters, gradients, GFLOPs for one image of `imgsz`."""
        leaves = sum(1 for module in self.modules() if not any(module.children()))
        size = sum(p.numel() for p in self.parameters())
        gradients = sum(p.numel() for p in self.parameters() if p.requires_grad)
        name = Path(self.yaml_file).stem.replace("yolo", "YOLO") if self.yaml_file else "Model"
        text = f"{name} summary: {leaves} layers, {size:,} parameters, {gradients:,} gradients"
        try:
            return f"{text}, {self.gflops(imgsz):.1f} GFLOPs"
        except (AssertionError, RuntimeError):  # vit_b_16 and others of torchvision take one size only
            return text

    def gflops(self, imgsz: int | tuple[int, int] = 640) -> float:
        """Return the operations for one image, in units of 1e9; a multiply-add counts as two."""
        h, w = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
        with self.undecoded():
            return gflops(self, torch.empty(1, self.yaml["ch"], h, w, device="meta"))

    def undecoded(self) -> AbstractContextManager[None]:
        """Within this context, a head that decodes its maps returns them as they are, in any mode."""
        return nullcontext()
