"""Attention gates of a model on an image: the factor A(x) in y = x * A(x)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.attention.lska import DESIGNS
from models.yolo import DetectionModel

_DESIGNS = tuple(DESIGNS.values())


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


def find_gates(model: DetectionModel) -> dict[str, nn.Module]:
    """Return all large kernel gates, of any design and inside any block, by their position in words."""
    gates: dict[str, nn.Module] = {}
    for layer in model.model:
        inside = [module for module in layer.modules() if isinstance(module, _DESIGNS)]
        for number, gate in enumerate(inside, start=1):
            gates[_describe(layer, gate, number, len(inside))] = gate
    return gates


def _describe(layer: Any, gate: Any, number: int, count: int) -> str:
    block, design = layer.type.rsplit(".", 1)[-1], type(gate).__name__
    words = f"layer {layer.i}: {block}"
    words += f" {number} of {count}" if count > 1 else ""
    words += "" if design in block else f", {design}"
    return f"{words}, k = {gate.k}"


@torch.no_grad()
def gate_maps(model: DetectionModel, images: Tensor) -> list[GateMap]:
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
