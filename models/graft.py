"""Move trained weights into a model whose layers are numbered differently.

A layer inserted into a yaml renumbers all later ones, so loading by key loses most of the network.
Here the layers of both models are aligned as two sequences instead: layers of the same kind whose
tensors fit are paired, in order, so that as many tensors as possible arrive.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from models.attention.van import VANStage
from models.registry import registered
from models.van_weights import STAGES, check_stages, stage_tensors
from models.weights import Checkpoint, build_model
from models.yolo import DetectionModel
from utils.base.errors import ConfigError
from utils.ops.flops import on_meta

Shapes = dict[str, tuple[int, ...]]  # keys within the layer -> shapes


@dataclass
class GraftReport:
    """What a graft did, tensor by tensor: keys of the target, except `left_out`."""

    source: str
    target: str
    total: int  # tensors in the source
    transferred: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    in_part: list[str] = field(default_factory=list)  # the head's box and objectness rows, classes aside
    left_out: list[str] = field(default_factory=list)  # keys of the source
    moved: dict[int, int] = field(default_factory=dict)  # source layer -> target layer
    verb: str = "Grafted"

    @property
    def new_layers(self) -> list[int]:
        """Target layers that got nothing."""
        fed = {_layer_of(key)[0] for key in self.transferred}
        return sorted({_layer_of(key)[0] for key in self.new} - fed)

    def __str__(self) -> str:
        share = f"{len(self.transferred)} of {self.total} tensors"
        lines = [f"{self.verb} {share} from {self.source} into {self.target}"]
        if self.new:
            where = sorted({_layer_of(key)[0] for key in self.new})
            lines.append(f"  new: {len(self.new)} tensors in layers {', '.join(map(str, where))}")
        if self.in_part:
            lines.append(f"  in part: {len(self.in_part)} tensors of the head, whose classes are others")
        if self.left_out:
            shown = ", ".join(self.left_out[:4]) + (", ..." if len(self.left_out) > 4 else "")
            lines.append(f"  left out: {len(self.left_out)} tensors of {self.source} ({shown})")
        return "\n".join(lines)


@torch.no_grad()
def graft(model: DetectionModel, checkpoint: Checkpoint, keep_anchors: bool = False) -> GraftReport:
    """Copy a checkpoint's tensors into `model`, layer by aligned layer.

    A head for other classes still gets the rows that find and measure objects of any class. Of a VAN
    classifier the four stages arrive.

    Args:
        model: the target; changed in place.
        checkpoint: the source.
        keep_anchors: leave the target's anchors as they are, unless they equal the source's.

    Returns:
        What arrived, what is new, what was left out.

    Raises:
        ConfigError: a VAN classifier of another size than the target's stages.
    """
    if checkpoint.classifier:
        return _fill_stages(model, checkpoint)
    source = build_model(checkpoint)
    # A module's state_dict shares memory with it: copying into these fills the model.
    old, new = source.state_dict(), model.state_dict()
    report = GraftReport(checkpoint.path.name, model.yaml_file or "the model", total=len(old))
    report.moved = align(source, model)
    for key, value in old.items():
        layer, inner = _layer_of(key)
        target = f"model.{report.moved.get(layer, -1)}.{inner}"
        if inner == "anchors":
            arrived = target in new and _bring_anchors(source, model, keep_anchors)
        else:
            arrived = target in new and new[target].shape == value.shape
        if arrived:
            report.transferred.append(target)
            if inner != "anchors":
                new[target].copy_(value)
        elif target in new and layer == len(source.model) - 1 and _same_anchors(source, model):
            _bring_rows(value, new[target], source, model)
            report.in_part.append(target)
        else:
            report.left_out.append(key)
    arrived_keys = {*report.transferred, *report.in_part}
    report.new = [key for key in new if key not in arrived_keys]
    if model.nc == source.nc and model.names == {i: str(i) for i in range(model.nc)}:
        model.names = dict(source.names)
    return report


def _fill_stages(model: DetectionModel, checkpoint: Checkpoint) -> GraftReport:
    """Copy a VAN classifier's stages into those of the model, in their order."""
    target = model.yaml_file or "the model"
    places = [index for index, layer in enumerate(model.model) if isinstance(layer, VANStage)]
    if not places:
        raise ConfigError(f"{checkpoint.path}: weights of VAN fill rows of VANStage, and {target} has none")
    check_stages(checkpoint.path, checkpoint.state, [model.model[place] for place in places], target)
    new, arrived = model.state_dict(), {}
    for number, place in zip(STAGES, places, strict=False):
        for name, (inner, value) in stage_tensors(checkpoint.state, number).items():
            key = f"model.{place}.{inner}"
            if key in new and new[key].shape == value.shape:
                new[key].copy_(value)
                arrived[name] = key
    report = GraftReport(checkpoint.path.name, target, total=len(checkpoint.state))
    report.transferred = list(arrived.values())
    fed = set(report.transferred)
    report.new = [key for key in new if key not in fed]
    # The head comes last in the file; first in the list, it is named in the report.
    report.left_out = [name for name in reversed(checkpoint.state) if name not in arrived]
    report.moved = dict(enumerate(places))
    return report


@torch.no_grad()
def load_by_key(model: DetectionModel, checkpoint: Checkpoint, keep_anchors: bool = False) -> GraftReport:
    """Copy the tensors whose key and shape agree, as the original does; the counterpart of `graft`.

    A layer inserted into the yaml renumbers all later ones, whose weights are then lost. This is here to
    be measured against.

    Args:
        model: the target; changed in place.
        checkpoint: the source.
        keep_anchors: leave the target's anchors as they are.
    """
    source = build_model(checkpoint)
    old, new = source.state_dict(), model.state_dict()
    target = model.yaml_file or "the model"
    report = GraftReport(checkpoint.path.name, target, total=len(old), verb="Loaded by key")
    for key, value in old.items():
        inner = _layer_of(key)[1]
        if inner == "anchors" and key in new:
            arrived = _bring_anchors(source, model, keep_anchors)
        else:
            arrived = key in new and new[key].shape == value.shape
            if arrived:
                new[key].copy_(value)
        (report.transferred if arrived else report.left_out).append(key)
    report.new = [key for key in new if key not in set(report.transferred)]
    return report


def _same_anchors(source: DetectionModel, model: DetectionModel) -> bool:
    """Whether anchors agree up to the half precision that checkpoints keep of them."""
    a, b = source.head.anchors_px().cpu(), model.head.anchors_px().cpu()
    return a.shape == b.shape and torch.allclose(a, b, rtol=2e-3)


def _bring_anchors(source: DetectionModel, model: DetectionModel, keep: bool) -> bool:
    if source.head.anchors.shape != model.head.anchors.shape:
        return False
    if keep and not _same_anchors(source, model):
        return False
    model.head.set_anchors(source.head.anchors_px())
    return True


def _bring_rows(value: Tensor, into: Tensor, source: DetectionModel, model: DetectionModel) -> None:
    """Copy x, y, w, h and objectness of every anchor: the first five rows of its part of a convolution."""
    theirs = value.view(source.head.na, source.head.no, -1)
    ours = into.view(model.head.na, model.head.no, -1)
    if theirs.shape[2] == ours.shape[2]:
        ours[:, :5] = theirs[:, :5].to(ours.device)


def align(source: DetectionModel, target: DetectionModel) -> dict[int, int]:
    """Pair layers of two models, order kept, such that the paired layers share most tensors.

    Longest common subsequence with the number of fitting tensors as the weight of a pair. Layers that
    work at different resolutions are never paired: yolov5n and yolov5s have blocks of equal shapes
    one stage apart, which mean different things.

    Returns:
        Source layer index -> target layer index.
    """
    a, b = list(source.model), list(target.model)
    shapes_a, shapes_b = _shapes(source), _shapes(target)
    sides_a, sides_b = _sides(source), _sides(target)
    best = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]  # best[i][j]: layers from i and j on
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
    """How many tensors of layer a fit into layer b; 0 when b is not a's kind.

    Same kind: the same class, or a class derived from it, such as C3LSKA from C3.
    """
    known = registered()
    kind_a, kind_b = (known.get(str(layer.type).rpartition(".")[2]) for layer in (a, b))
    if kind_a is None or kind_b is None or not (issubclass(kind_b, kind_a) or issubclass(kind_a, kind_b)):
        return 0
    common = shapes_a.keys() & shapes_b.keys()
    fitting = sum(shapes_a[key] == shapes_b[key] for key in common)
    # A head for other classes shares only its anchors; it is the same head all the same.
    return fitting if fitting == len(common) or "anchors" in shapes_a else 0


def _shapes(model: DetectionModel) -> dict[int, Shapes]:
    shapes: dict[int, Shapes] = defaultdict(dict)
    for key, value in model.state_dict().items():
        layer, inner = _layer_of(key)
        shapes[layer][inner] = tuple(value.shape)
    return shapes


def _sides(model: DetectionModel) -> list[int]:
    """Rows of each layer's output for an image of 256 px; 0 for the head."""
    sides: list[int] = []

    def note(layer: nn.Module, y: Tensor) -> None:
        sides.append(y.shape[2])

    training = model.training
    image = torch.empty(1, model.yaml["ch"], 256, 256, device="meta")
    on_meta(model.eval(), image, False, note)
    model.train(training)
    return sides + [0] * (len(model.model) - len(sides))


def _layer_of(key: str) -> tuple[int, str]:
    """`model.7.conv.weight` -> (7, "conv.weight")."""
    _, layer, inner = key.split(".", 2)
    return int(layer), inner


def output_gap(a: DetectionModel, b: DetectionModel, images: Tensor) -> float:
    """Largest difference between two models' decoded outputs; inf when the shapes differ."""
    with torch.inference_mode():
        one, other = a.eval()(images)[0], b.eval()(images)[0]
    return float((one - other).abs().max()) if one.shape == other.shape else float("inf")
