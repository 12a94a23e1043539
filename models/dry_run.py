"""Run a model without memory before it is used: layers that do not fit, or exceed a limit, are errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from models.base_model import BaseModel, describe_layer
from models.registry import MISFITS
from utils.base.errors import ConfigError, first_line
from utils.base.limits import ACTIVATIONS
from utils.ops.meta import on_meta

SIDE = 256  # pixels of the image
_SMALL, _WIDE = 65, 8192  # kernels, and channels of one layer
# Blocks that keep the size of a map, whatever their arguments are.
_KEEP = frozenset(
    (
        *("C3", "BottleneckCSP", "C3SPP", "SPP", "SPPF", "SPPFLSKA", "SPPF_LSKA", "C3LSKA", "C3_LSKA"),
        *("LSKA", "LKA", "LSKATrivial", "LKATrivial", "LSKAttention", "SE", "CBAM", "ECA", "CoordAtt"),
        *("SimAM", "EMA", "Gate1x1", "Residual1x1", "Depthwise"),
    )
)
_WIDER = 8  # as much wider a layer may be inside
_HIDDEN = 1280  # channels in a classifier, see `Classify`
_HEADS = ("Detect", "Segment", "Classify", "ClassifyLinear")


def dry_run(model: BaseModel) -> Any:
    """Run a model on the meta device, in the mode it is in, and return its output.

    Raises:
        ConfigError: a layer does not fit to what it reads; the message names it.
        DataError: a layer, or a part of one, returns more values than `utils.base.limits` allows.
    """
    shapes: dict[int, tuple[int, ...]] = {}
    name = model.yaml_file or "model yaml"

    def note(layer: Any, output: Tensor) -> None:
        shapes[layer.i] = tuple(output.shape[1:])

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        values = sum(each.numel() for each in output if isinstance(each, Tensor)) if _listed(output) else 0
        if isinstance(output, Tensor):
            values = output.numel()
        if values > ACTIVATIONS.value:
            layer: Any = model.model[min(len(shapes), len(model.model) - 1)]
            ACTIVATIONS.check(values, f"{name}: layer {layer.i} ({layer.type.rpartition('.')[2]})")

    image = torch.empty(1, model.yaml["ch"], SIDE, SIDE, device="meta")
    hook = register_module_forward_hook(count)
    try:
        return on_meta(model, image, False, False, note)
    except MISFITS as error:
        layer = describe_layer(model.model[min(len(shapes), len(model.model) - 1)], shapes)
        raise ConfigError(f"{name}: {layer}, which does not work ({first_line(error)})") from error
    finally:
        hook.remove()


def _listed(output: Any) -> bool:
    return isinstance(output, list | tuple)


def is_ordinary(config: Mapping[str, Any]) -> bool:
    """Return whether a model yaml has only layers of which it is plain that they fit, and how large they are.

    Such models need no `dry_run`, the first of which takes a second in each process.
    """
    scales: list[int] = []  # log2 of the stride of each layer
    for index, row in enumerate([*config["backbone"], *config["head"]]):
        source, _, name, written = row
        args = written if isinstance(written, list) else [written]
        listed = source if isinstance(source, list) else [source]
        read = {scales[index + one if one < 0 else one] if scales else 0 for one in listed}
        name = name.removeprefix("torch.").removeprefix("nn.")
        step = _step(name, args)
        if step is None or (len(read) > 1 and name not in _HEADS[:2]):
            return False
        scales.append(min(read) + step)
        width = args[0] if args and isinstance(args[0], int) else 1
        if name in _HEADS:
            width = max(_HIDDEN, 4 * (config["nc"] + 5))
        values = width * max(config.get("width_multiple", 1.0), 1.0) * SIDE**2 / 4 ** scales[-1]
        if scales[-1] < 0 or width > _WIDE or values > ACTIVATIONS.value / _WIDER:
            return False
    return True


def _step(name: str, args: list[Any]) -> int | None:
    """Return by how much a layer increases log2 of the stride; None if it is not certain."""
    if name in _HEADS or name in ("Concat", "TorchVision"):  # whole models of torchvision are as they are
        return 0
    if name == "Upsample":
        return -1 if args in ([None, 2, "nearest"], ["None", 2, "nearest"]) else None
    if not all(map(_is_small, args[1:])):
        return None
    if name in _KEEP:
        return 0
    if name == "Conv" and (len(args) <= 3 or (len(args) == 4 and _keeps_size(args[1], args[3]))):
        return _log2(args[2] if len(args) > 2 else 1)
    if name == "Focus" and len(args) <= 2:
        return 1
    if name == "VANStage" and len(args) <= 4:
        return _log2(args[2] if len(args) > 2 else 2)
    return None


def _keeps_size(kernel: Any, padding: Any) -> bool:
    return padding is None or (
        isinstance(kernel, int) and isinstance(padding, int) and padding <= kernel // 2
    )


def _is_small(value: Any) -> bool:
    """Return whether an argument makes a layer at most `_WIDER` times as wide inside."""
    if isinstance(value, list | dict):
        return all(map(_is_small, value.values() if isinstance(value, dict) else value))
    if isinstance(value, float):
        return 0 <= value <= _WIDER
    return value is None or isinstance(value, str) or (isinstance(value, int) and 0 <= value <= _SMALL)


def _log2(stride: Any) -> int | None:
    if not isinstance(stride, int) or stride not in (1, 2, 4, 8):
        return None
    return int(math.log2(stride))
