"""Find layers of a model by number or by name, attention gates among them, and capture their outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.attention.gates import GATES
from models.attention.lska_blocks import LSKAttention
from models.yolo import ClassificationModel, DetectionModel
from utils.base.errors import ConfigError
from utils.ops.meta import on_meta

_PURE_ATTENTION = (*GATES.values(), LSKAttention)
_WITH_FACTOR = tuple(block for block in GATES.values() if hasattr(block, "attention"))
Network = DetectionModel | ClassificationModel


def find_layers(model: Network, words: Sequence[str]) -> list[int]:
    """Return the indices of the layers that the words of `--layer` name, without duplicates.

    A word is an index; `backbone`: see `end_of_backbone`; `head` or `detect`: all inputs of the head; `p3`,
    `p4`, ...: the input of Detect or Segment that has stride 8, 16, ... Names find corresponding layers in
    models with and without attention, whose indices differ.

    Raises:
        ConfigError: the model has no such layer; the message lists those it has.
    """
    indices = [index for word in words for index in _layers_of(model, word)]
    return list(dict.fromkeys(indices))


def _layers_of(model: Network, word: str) -> list[int]:
    inputs, levels = head_inputs(model), {}
    if isinstance(model, DetectionModel):
        strides = map(int, model.stride)
        levels = {f"p{stride.bit_length() - 1}": i for stride, i in zip(strides, inputs, strict=True)}
    if word.isascii() and word.isdigit() and int(word) < len(model.model) - 1:
        return [int(word)]
    if word.lower() == "backbone":
        return [end_of_backbone(model)]
    if word.lower() in ("head", "detect"):
        return inputs
    if word.lower() in levels:
        return [levels[word.lower()]]
    known = ", ".join(["backbone", "head" if not levels else "detect", *levels])
    raise ConfigError(f"--layer {word}: {model.yaml_file} has the layers 0-{len(model.model) - 2}, {known}")


def head_inputs(model: Network) -> list[int]:
    """Return the indices of the layers that the head reads, in the order of its levels."""
    head: Any = model.model[-1]
    sources = head.f if isinstance(head.f, list) else [head.f]
    return [source % head.i for source in sources]


def end_of_backbone(model: Network) -> int:
    """Return the last backbone layer at its largest stride: SPPF, or attention right after it.

    Attention is included even if the yaml lists it as the first layers of the head.
    """
    strides = layer_strides(model)
    rows = range(len(model.yaml.get("backbone") or ()))
    largest = max((strides[i] for i in rows if i in strides), default=0)
    last = max((i for i in rows if strides.get(i) == largest), default=0)
    while _is_attention(model.model[last + 1]):
        last += 1
    return last


def _is_attention(layer: Any) -> bool:
    blocks = layer if isinstance(layer, nn.Sequential) else [layer]
    return layer.f == -1 and all(isinstance(block, _PURE_ATTENTION) for block in blocks)


def layer_strides(model: Network) -> dict[int, int]:
    """Return the stride in pixels of every layer whose output is a map."""
    side = 8 * int(model.stride.max())
    strides: dict[int, int] = {}

    def note(layer: Any, output: Tensor) -> None:
        if output.ndim == 4:
            strides[layer.i] = round(side / output.shape[-2])

    on_meta(model, torch.empty(1, model.yaml["ch"], side, side, device="meta"), False, False, note)
    model.forget_grids()  # they have no data
    return strides


def describe_layer(model: Network, index: int) -> str:
    """Return the index and type of a layer: `layer 9: SPPF`."""
    layer: Any = model.model[index]
    return f"layer {index}: {layer.type.rsplit('.', 1)[-1]}"


def run_and_keep(model: Network, images: Tensor, layers: Iterable[int]) -> tuple[dict[int, Tensor], Any]:
    """Run the model; return (the output of each of `layers` by index, the output of the model).

    Raises:
        ConfigError: the output of a layer is not a map (B, C, h, w).
    """
    wanted = set(layers)
    kept: dict[int, Tensor] = {}

    def keep(layer: Any, output: Tensor) -> None:
        if layer.i in wanted:
            kept[layer.i] = output

    output = model(images, visualize=keep)
    for index in wanted:
        if index not in kept or kept[index].ndim != 4:
            raise ConfigError(f"--layer {index}: {describe_layer(model, index)} has no map as output")
    return kept, output


@dataclass(frozen=True)
class GateMap:
    """Factor of one gate on one image.

    Attributes:
        block: position of the gate: `layer 10: LSKA, k = 11`.
        factor: (h, w) float32, A(x) averaged over channels; 1 for an untrained gate with identity init.
        lowest, highest: extremes of A(x) over channels and positions.
        change: mean of |A(x) - 1| over channels and positions. Factors above and below 1 cancel in
            `factor`, but not here.
    """

    block: str
    factor: np.ndarray
    lowest: float
    highest: float
    change: float


def find_gates(model: Network) -> dict[str, nn.Module]:
    """Return all attention gates, of any design and inside any block, by their position in words."""
    gates: dict[str, nn.Module] = {}
    for layer in model.model:
        inside = [module for module in layer.modules() if isinstance(module, _WITH_FACTOR)]
        for number, gate in enumerate(inside, start=1):
            gates[_describe(layer, gate, number, len(inside))] = gate
    return gates


def _describe(layer: Any, gate: Any, number: int, count: int) -> str:
    block, design = layer.type.rsplit(".", 1)[-1], type(gate).__name__
    words = f"layer {layer.i}: {block}"
    words += f" {number} of {count}" if count > 1 else ""
    words += "" if design in block else f", {design}"
    return f"{words}, k = {gate.k}" if hasattr(gate, "k") else words


@torch.no_grad()
def gate_maps(model: Network, images: Tensor) -> list[GateMap]:
    """Run one image (1, 3, H, W), and return the factor of each gate."""
    gates = find_gates(model)
    factors: dict[nn.Module, Tensor] = {}

    def keep_factor(gate: Any, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        factors[gate] = gate.attention(inputs[0])

    hooks = [gate.register_forward_hook(keep_factor) for gate in gates.values()]
    try:
        model(images)
    finally:
        for hook in hooks:
            hook.remove()
    return [_summarize(block, factors[gate][0].float().cpu()) for block, gate in gates.items()]


def _summarize(block: str, factor: Tensor) -> GateMap:
    """Reduce the factors (C, h, w) of one gate to a map and numbers."""
    change = float((factor - 1).abs().mean())
    return GateMap(block, factor.mean(0).numpy(), float(factor.min()), float(factor.max()), change)
