"""The detection model, built from a yaml. As a script: print a model's layers and size.

python models/yolo.py --cfg yolov5s-LSKA.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # the project, not models/
    from models import profile

    profile.check_flags()  # answers --help before the heavy imports

import torch
from torch import Tensor, nn

import models.common
from models import registry
from models.activation_checkpointing import checkpointed
from models.blocks.conv import Conv, Projection, default_activation
from models.config import LayerRow, make_divisible, read_activation, read_config, read_rows
from models.head import Detect
from models.tta import augmented_forward
from utils.base.errors import ConfigError
from utils.ops.flops import gflops, on_meta

registry.register(registry.detects, Detect)

Watch = Callable[[nn.Module, Tensor], None]


class DetectionModel(nn.Module):
    """YOLOv5: a backbone and head read from a yaml, ending in `Detect`.

    Args:
        cfg: path or bare name of a yaml below models/, or its content.
        ch: channels of the image, unless the yaml has `ch`.
        nc: classes, in place of the yaml's.
        anchors: anchors, in place of the yaml's.
        strides: of the levels, where they are known; measuring them costs most of a second.

    Shape:
        (B, ch, H, W) float 0-1, H and W multiples of the largest stride ->
        training: levels x (B, A, h, w, 5 + nc) logits; eval: ((B, N, 5 + nc) decoded, logits)

    Raises:
        ConfigError: the yaml does not describe a model; the message names file and layer.
    """

    def __init__(
        self,
        cfg: str | Path | dict[str, Any] = "yolov5s.yaml",
        ch: int = 3,
        nc: int | None = None,
        anchors: list[list[float]] | int | None = None,
        strides: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.yaml, self.yaml_file = read_config(cfg)
        self.yaml["ch"] = self.yaml.get("ch", ch)
        if nc is not None:
            self.yaml["nc"] = nc
        if anchors is not None:
            self.yaml["anchors"] = anchors
        self.model, self.save = parse_model(self.yaml, [self.yaml["ch"]], origin=self.yaml_file)
        if not isinstance(self.model[-1], Detect):
            raise ConfigError(f"{self.yaml_file}: the last layer must be Detect")
        self.nc: int = self.yaml["nc"]
        self.names = {i: str(i) for i in range(self.nc)}
        self.hyp: dict[str, Any] | None = None
        self.checkpoint_activations = False  # in training, keep what is between layers only
        known = strides if strides and len(strides) == self.head.nl else None
        self.head.set_strides(known or self._measure_strides())
        self.head.start_biases()

    @property
    def head(self) -> Detect:
        """The last layer."""
        last = self.model[-1]
        assert isinstance(last, Detect)
        return last

    @property
    def stride(self) -> Tensor:
        """Pixels per cell of each level, (nl,) on the CPU."""
        return self.head.stride

    def forward(self, x: Tensor, augment: bool = False, visualize: Watch | None = None) -> Any:
        """Run the model.

        Args:
            x: images.
            augment: average over scales and flips; gives (decoded, None).
            visualize: called with each layer and its output.
        """
        if augment:
            stride = int(self.stride.max())
            return augmented_forward(lambda view: self.run_layers(view)[0], x, stride, self.head.nl), None
        return self.run_layers(x, visualize)

    def run_layers(self, x: Tensor, visualize: Watch | None = None) -> Any:
        """One plain pass through the layers."""
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

    def fuse(self) -> DetectionModel:
        """Fold every batch norm that follows a convolution into it, for inference."""
        for module in self.modules():
            if isinstance(module, Conv | Projection):
                module.fuse()
        return self

    def info(self, imgsz: int | tuple[int, int] = 640) -> str:
        """One line of figures: layers, parameters, gradients, GFLOPs of one image of `imgsz`."""
        leaves = sum(1 for module in self.modules() if not any(module.children()))
        size = sum(p.numel() for p in self.parameters())
        gradients = sum(p.numel() for p in self.parameters() if p.requires_grad)
        name = Path(self.yaml_file).stem.replace("yolo", "YOLO") if self.yaml_file else "Model"
        return (
            f"{name} summary: {leaves} layers, {size:,} parameters, {gradients:,} gradients, "
            f"{self.gflops(imgsz):.1f} GFLOPs"
        )

    def gflops(self, imgsz: int | tuple[int, int] = 640) -> float:
        """Operations of one image in units of 1e9; a multiply-add counts as two."""
        h, w = (imgsz, imgsz) if isinstance(imgsz, int) else imgsz
        return gflops(self, torch.empty(1, self.yaml["ch"], h, w, device="meta"))

    def _apply(self, fn: Any, recurse: bool = True) -> DetectionModel:
        super()._apply(fn, recurse)
        self.head.forget_grids()
        return self

    def _measure_strides(self) -> list[float]:
        side = 256
        training = self.training
        self.eval()  # batch norms count what they see, even shapes
        self.head.train()
        try:
            maps = on_meta(self, torch.empty(1, self.yaml["ch"], side, side, device="meta"))
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            raise ConfigError(f"{self.yaml_file}: the layers do not fit together ({error})") from error
        finally:
            self.train(training)
        return [side / m.shape[-2] for m in maps]


Model = DetectionModel  # the name in checkpoints before v6.2


def parse_model(
    d: dict[str, Any], ch: list[int], origin: str = "model yaml"
) -> tuple[nn.Sequential, list[int]]:
    """Build a yaml's layers; return them and the indices of those that are read again later.

    Raises:
        ConfigError: a row that can't be built; names file and layer.
    """
    layers: list[nn.Module] = []
    out: list[int] = []  # channels that leave each layer so far
    save: list[int] = []
    origin = origin or "model yaml"
    activation = read_activation(d["activation"]) if d.get("activation") else nn.SiLU(inplace=True)
    options = {key: d[key] for key in ("init",) if key in d}
    csp = read_activation(d["csp_activation"]) if d.get("csp_activation") else None
    with default_activation(activation, csp):
        for row in read_rows(d, origin):
            arriving = tuple(out[j] if j >= 0 else ch[-1] for j in row.sources)
            try:
                site = registry.Site(arriving, row.repeats, _width(d), options)
                block, made, keywords = registry.plan(row.name, site, row.args)
                layers.append(_label(registry.build(block, made, keywords), block, made, row))
            except ConfigError as error:
                raise ConfigError(f"{origin}: layer {row.index} ({row.name}): {error}") from error
            out.append(made.out_channels)
            written = row.written if isinstance(row.written, list) else [row.written]
            save += [source % row.index for source in written if source != -1]
    return nn.Sequential(*layers), sorted(save)


def _width(d: dict[str, Any]) -> Callable[[int], int]:
    gain, divisor = float(d.get("width_multiple", 1.0)), int(d.get("channel_multiple", 8))
    return lambda channels: make_divisible(channels * gain, divisor)


def _label(layer: nn.Module, block: type[nn.Module], made: registry.BlockPlan, row: LayerRow) -> nn.Module:
    """Attach what forward passes, tables and checkpoints look at: index, sources, type, parameters."""
    home = "models.yolo" if block is Detect else "models.common"
    ours = block.__module__.startswith("models.")
    described: Any = layer
    described.i, described.f = row.index, row.written
    described.type = f"{home if ours else block.__module__}.{block.__name__}"
    described.np = sum(p.numel() for p in layer.parameters())
    described.repeats, described.args = row.repeats, str(list(made.args))
    return layer


__all__ = ["Detect", "DetectionModel", "Model", "models", "parse_model", "read_config"]

if __name__ == "__main__":
    profile.main(DetectionModel)
