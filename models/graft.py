"""Transfer trained weights into a model whose layers are numbered differently.

A layer inserted into a yaml renumbers all later ones, so loading by key loses most of the network. Here
the two sequences of layers are aligned instead: layers of the same class whose tensors have the same
shapes are paired, in order, so that as many tensors as possible are transferred.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from models.attention.van import VANStage
from models.head import Detect
from models.registry import registered
from models.van_weights import STAGES, check_stages, stage_tensors
from models.weights import Checkpoint, VANCheckpoint, build_model
from models.yolo import BaseModel, DetectionModel
from utils.base.errors import ConfigError
from utils.ops.meta import on_meta

Shapes = dict[str, tuple[int, ...]]  # key within the layer -> shape


@dataclass
class GraftReport:
    """Result of a transfer, tensor by tensor. All keys are the target's, except those of `left_out`."""

    source: str
    target: str
    total: int  # tensors in the source
    transferred: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    in_part: list[str] = field(default_factory=list)  # those channels of the head that both models have
    left_out: list[str] = field(default_factory=list)  # keys of the source
    moved: dict[int, int] = field(default_factory=dict)  # source layer -> target layer
    verb: str = "Grafted"

    def __str__(self) -> str:
        share = f"{len(self.transferred)} of {self.total} tensors"
        lines = [f"{self.verb} {share} from {self.source} into {self.target}"]
        if self.new:
            layers = sorted({_layer_of(key)[0] for key in self.new})
            lines.append(f"  new: {len(self.new)} tensors in layers {', '.join(map(str, layers))}")
        if self.in_part:
            lines.append(f"  in part: {len(self.in_part)} tensors of the head, which has other outputs")
        if self.left_out:
            shown = ", ".join(self.left_out[:4]) + (", ..." if len(self.left_out) > 4 else "")
            lines.append(f"  left out: {len(self.left_out)} tensors of {self.source} ({shown})")
        return "\n".join(lines)


@torch.no_grad()
def graft(model: BaseModel, checkpoint: Checkpoint, keep_anchors: bool = False) -> GraftReport:
    """Copy the tensors of a checkpoint into `model`, layer by aligned layer.

    A head with other outputs gets the channels that both have: those of box and objectness always, those
    of the classes if there are as many, mask coefficients if there are as many. From a VAN classifier the
    four stages are copied.

    Args:
        model: the target; changed in place.
        checkpoint: the source.
        keep_anchors: keep the target's anchors, unless they equal the source's.

    Raises:
        ConfigError: a VAN classifier of another size than the target's stages.
    """
    if isinstance(checkpoint, VANCheckpoint):
        return _graft_stages(model, checkpoint)
    source = build_model(checkpoint)
    # A state_dict shares memory with its module: copying into `new` fills the model.
    old, new = source.state_dict(), model.state_dict()
    report = GraftReport(checkpoint.path.name, model.yaml_file or "the model", total=len(old))
    report.moved = align(source, model)
    # Only the convolutions of a detection head are copied in part, not mask prototypes or linear layers.
    outputs = f"model.{len(source.model) - 1}.m." if isinstance(source, DetectionModel) else None
    for key, value in old.items():
        layer, inner = _layer_of(key)
        target = f"model.{report.moved.get(layer, -1)}.{inner}"
        if inner == "anchors":
            fits = target in new and _copy_anchors(source, model, keep_anchors)
        else:
            fits = target in new and new[target].shape == value.shape
        if fits:
            report.transferred.append(target)
            if inner != "anchors":
                new[target].copy_(value)
        elif target in new and outputs and key.startswith(outputs) and _same_anchors(source, model):
            _copy_head_channels(value, new[target], source.head, cast("Detect", model.head))
            report.in_part.append(target)
        else:
            report.left_out.append(key)
    filled = {*report.transferred, *report.in_part}
    report.new = [key for key in new if key not in filled]
    if model.nc == source.nc and model.names == {i: str(i) for i in range(model.nc)}:
        model.names = dict(source.names)
    return report


def _graft_stages(model: BaseModel, checkpoint: VANCheckpoint) -> GraftReport:
    """Copy the stages of a VAN classifier into those of the model, in their order."""
    target = model.yaml_file or "the model"
    layers = [index for index, layer in enumerate(model.model) if isinstance(layer, VANStage)]
    if not layers:
        raise ConfigError(f"{checkpoint.path}: VAN weights need VANStage rows, and {target} has none")
    check_stages(checkpoint.path, checkpoint.state, [model.model[layer] for layer in layers], target)
    new, copied, classifies = model.state_dict(), {}, model.task == "classify"
    for number, layer in zip(STAGES, layers, strict=False):
        for name, (inner, value) in stage_tensors(checkpoint.state, number, classifies).items():
            key = f"model.{layer}.{inner}"
            if key in new and new[key].shape == value.shape:
                new[key].copy_(value)
                copied[name] = key
    for part in ("weight", "bias"):
        name, key = f"head.{part}", f"model.{layers[-1] + 1}.linear.{part}"
        if name in checkpoint.state and key in new and new[key].shape == checkpoint.state[name].shape:
            new[key].copy_(checkpoint.state[name])
            copied[name] = key
    report = GraftReport(checkpoint.path.name, target, total=len(checkpoint.state))
    report.transferred = list(copied.values())
    filled = set(report.transferred)
    report.new = [key for key in new if key not in filled]
    # The head is last in the file; reversed, it is among the few keys that the report prints.
    report.left_out = [name for name in reversed(checkpoint.state) if name not in copied]
    report.moved = dict(enumerate(layers))
    return report


@torch.no_grad()
def load_by_key(model: BaseModel, checkpoint: Checkpoint, keep_anchors: bool = False) -> GraftReport:
    """Copy the tensors whose key and shape agree, as YOLOv5 does: the baseline of `graft`.

    The weights of all layers behind an inserted one are lost.

    Args:
        model: the target; changed in place.
        checkpoint: the source.
        keep_anchors: keep the target's anchors, unless they equal the source's.
    """
    source = build_model(checkpoint)
    old, new = source.state_dict(), model.state_dict()
    target = model.yaml_file or "the model"
    report = GraftReport(checkpoint.path.name, target, total=len(old), verb="Loaded by key")
    for key, value in old.items():
        inner = _layer_of(key)[1]
        if inner == "anchors" and key in new:
            fits = _copy_anchors(source, model, keep_anchors)
        else:
            fits = key in new and new[key].shape == value.shape
            if fits:
                new[key].copy_(value)
        (report.transferred if fits else report.left_out).append(key)
    report.new = [key for key in new if key not in set(report.transferred)]
    return report


def _same_anchors(source: Any, model: Any) -> bool:
    """Return whether both are detectors, whose anchors agree up to the FP16 rounding of checkpoints."""
    if not (isinstance(source, DetectionModel) and isinstance(model, DetectionModel)):
        return False
    a, b = source.head.anchors_px().cpu(), model.head.anchors_px().cpu()
    return a.shape == b.shape and torch.allclose(a, b, rtol=2e-3)


def _copy_anchors(source: Any, model: Any, keep: bool) -> bool:
    if source.head.anchors.shape != model.head.anchors.shape:
        return False
    if keep and not _same_anchors(source, model):
        return False
    model.head.set_anchors(source.head.anchors_px())
    return True


def _copy_head_channels(value: Tensor, into: Tensor, source: Detect, target: Detect) -> None:
    """Copy the output channels of each anchor that mean the same in both heads, in one convolution."""
    from_rows = value.view(source.na, source.no, -1)
    to_rows = into.view(target.na, target.no, -1)
    if from_rows.shape[2] != to_rows.shape[2]:
        return
    boxes = 5 + source.nc if source.nc == target.nc else 5
    to_rows[:, :boxes] = from_rows[:, :boxes].to(to_rows.device)
    if source.linear and source.linear == target.linear:
        to_rows[:, -target.linear :] = from_rows[:, -source.linear :].to(to_rows.device)


def align(source: BaseModel, target: BaseModel) -> dict[int, int]:
    """Pair the layers of two models, in order, such that the pairs have most tensors in common.

    The longest common subsequence, with the number of fitting tensors as the weight of a pair. Layers at
    different resolutions are never paired: yolov5n and yolov5s have blocks of equal shapes in adjacent
    stages, which learn different features.

    Returns:
        Source layer index -> target layer index.
    """
    a, b = list(source.model), list(target.model)
    shapes_a, shapes_b = _shapes(source), _shapes(target)
    sides_a, sides_b = _sides(source), _sides(target)
    best = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]  # best[i][j]: weight of layers a[i:] and b[j:]
    gains = [
        [_gain(x, shapes_a[i], y, shapes_b[j]) if sides_a[i] == sides_b[j] else 0 for j, y in enumerate(b)]
        for i, x in enumerate(a)
    ]
    for i in range(len(a) - 1, -1, -1):
        for j in range(len(b) - 1, -1, -1):
            paired = best[i + 1][j + 1] + gains[i][j] if gains[i][j] else 0
            best[i][j] = max(paired, best[i + 1][j], best[i][j + 1])
    pairs, i, j = {}, 0, 0
    while i < len(a) and j < len(b):
        if gains[i][j] and best[i][j] == best[i + 1][j + 1] + gains[i][j]:
            pairs[i], i, j = j, i + 1, j + 1
        elif best[i][j] == best[i + 1][j]:
            i += 1
        else:
            j += 1
    return pairs


def _gain(a: nn.Module, shapes_a: Shapes, b: nn.Module, shapes_b: Shapes) -> int:
    """Return how many tensors of layer a fit into layer b; 0 unless one's class is derived from the other's.

    C3LSKA, for example, is derived from C3.
    """
    known = registered()
    class_a, class_b = (known.get(str(layer.type).rpartition(".")[2]) for layer in (a, b))
    if (
        class_a is None
        or class_b is None
        or not (issubclass(class_b, class_a) or issubclass(class_a, class_b))
    ):
        return 0
    common = shapes_a.keys() & shapes_b.keys()
    fitting = sum(shapes_a[key] == shapes_b[key] for key in common)
    # Of a head for other classes some tensors do not fit, but it is still the counterpart.
    head = "anchors" in shapes_a or (hasattr(class_a, "task") and _differ_in_outputs(shapes_a, shapes_b))
    return fitting if fitting == len(common) or head else 0


def _differ_in_outputs(a: Shapes, b: Shapes) -> bool:
    """Return whether the tensors of two classification heads differ in nothing but their first dimension."""
    return a.keys() == b.keys() and all(shape[1:] == b[key][1:] for key, shape in a.items())


def _shapes(model: BaseModel) -> dict[int, Shapes]:
    shapes: dict[int, Shapes] = defaultdict(dict)
    for key, value in model.state_dict().items():
        layer, inner = _layer_of(key)
        shapes[layer][inner] = tuple(value.shape)
    return shapes


def _sides(model: BaseModel) -> list[int]:
    """Return the height of each layer's output for an image of 256 px; 0 for the head."""
    sides: list[int] = []

    def record_side(layer: nn.Module, y: Tensor) -> None:
        sides.append(y.shape[2] if y.dim() == 4 else 0)

    training = model.training
    image = torch.empty(1, model.yaml["ch"], 256, 256, device="meta")
    with model.eval().undecoded():
        on_meta(model, image, False, False, record_side)
    model.train(training)
    return sides + [0] * (len(model.model) - len(sides))


def _layer_of(key: str) -> tuple[int, str]:
    """Split a key into layer and name: `model.7.conv.weight` -> (7, "conv.weight")."""
    _, layer, inner = key.split(".", 2)
    return int(layer), inner


def output_gap(a: BaseModel, b: BaseModel, images: Tensor) -> float:
    """Return the largest difference of two models' outputs; inf if their shapes differ.

    Compared are decoded boxes, and the mask prototypes of segmentation models.
    """
    if a.task != b.task:
        return float("inf")
    count = 2 if a.task == "segment" else 1
    with torch.inference_mode():
        one, other = a.eval()(images), b.eval()(images)
    pairs = [(one, other)] if a.task == "classify" else list(zip(one[:count], other[:count], strict=True))
    if any(one.shape != other.shape for one, other in pairs):
        return float("inf")
    return max(float((one - other).abs().max()) for one, other in pairs)
