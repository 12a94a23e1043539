"""Run a model without memory before it is used: layers that do not fit, or exceed a limit, are errors."""

from __future__ import annotations

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
