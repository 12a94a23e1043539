"""The detection model, built from a yaml. As a script: print a model's layers and size.

python models/yolo.py --cfg yolov5s-LSKA.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
from models.base_model import BaseModel, LayerCallback
from models.blocks.conv import default_activation
from models.config import (
    LayerRow,
    make_divisible,
    read_activation,
    read_config,
    read_rows,
    warn_about_unread,
    words_of,
)
from models.dry_run import SIDE, dry_run
from models.head import Detect
from models.tta import augmented_forward
from models.user_blocks import origin_of_blocks
from utils.base.errors import ConfigError
from utils.base.limits import CLASSES, LAYERS, PARAMETERS
from utils.base.yolov5_names import resolve, serve
from utils.tasks.classify.head import Classify, ClassifyLinear, TorchVision
from utils.tasks.segment.head import Proto, Segment

registry.register(registry.detection_head, Detect)
registry.register(registry.segmentation_head, Segment)
registry.register(registry.classification_head, Classify, ClassifyLinear)
registry.register(registry.whole_classifier, TorchVision)
# Where the original has them, by which pickles and programs find them.
Detect.__module__ = Segment.__module__ = "models.yolo"
Proto.__module__ = Classify.__module__ = ClassifyLinear.__module__ = TorchVision.__module__ = "models.common"


class DetectionModel(BaseModel):
    """YOLOv5: a backbone and head described by a yaml, the last layer of which is `Detect` or `Segment`.

    Args:
        cfg: path of a yaml, bare name of one below models/, or its content.
        ch: image channels, where the yaml has no `ch`.
        nc: number of classes; replaces the yaml's.
        anchors: per level, (w, h) pairs in pixels, or their number; replaces the yaml's.

    Shape:
        (B, ch, H, W) float 0-1, H and W multiples of the largest stride ->
        what the head returns; `Detect` in training: levels x (B, A, h, w, 5 + nc) logits; eval:
        ((B, N, 5 + nc) decoded, logits)

    Raises:
        ConfigError: the yaml does not describe a model; the message names file and layer.
    """

    def __init__(
        self,
        cfg: str | Path | dict[str, Any] = "yolov5s.yaml",
        ch: int = 3,
        nc: int | None = None,
        anchors: list[list[float]] | int | None = None,
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
            raise ConfigError(f"{self.yaml_file}: the last layer must be Detect or Segment")
        self.nc = self.yaml["nc"]
        self.names = {i: str(i) for i in range(self.nc)}
        self.head.set_strides(self._measure_strides())
        self.head.init_biases()

    @property
    def head(self) -> Detect:
        """The detection head, which is the last layer."""
        last = self.model[-1]
        assert isinstance(last, Detect)
        return last

    @property
    def task(self) -> str:
        """Name of the task, which the head decides: detect or segment."""
        return self.head.task

    @property
    def stride(self) -> Tensor:
        """Pixels per cell of each level, (nl,) on the CPU."""
        return self.head.stride

    @stride.setter
    def stride(self, strides: Tensor) -> None:
        self.head.stride = strides

    def forward(
        self,
        x: Tensor,
        augment: bool = False,
        profile: bool = False,
        visualize: LayerCallback | str | Path | bool | None = None,
    ) -> Any:
        """Run the model.

        Args:
            x: images.
            augment: test-time augmentation; returns (decoded, None).
            profile: accepted for compatibility; models/yolo.py --line-profile times the layers.
            visualize: called with each layer and its output; or a folder for feature maps.

        Returns:
            Logits in training mode, else (decoded, logits); shapes as in the class's docstring.
        """
        if augment:
            if self.task != "detect":  # the coefficients of a view belong to its own prototypes
                raise ConfigError("--augment: test-time augmentation has no masks; leave it out")
            stride = int(self.stride.max())
            return augmented_forward(lambda view: self.run_layers(view)[0], x, stride, self.head.nl), None
        return self.run_layers(x, visualize if callable(visualize) else _feature_writer(visualize))

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a pickled model, of ours or of the original since v5.0."""
        super().__setstate__(state)
        self.__dict__.pop("stride", None)  # the head has it
        self.__dict__.setdefault("nc", self.head.nc)
        self.__dict__.setdefault("names", [str(index) for index in range(self.head.nc)])
        for module in self.modules():
            if isinstance(module, nn.Upsample):
                module.__dict__.setdefault("recompute_scale_factor", None)  # torch 1.11 and later need it

    def autoshape(self) -> nn.Module:
        """Return AutoShape around the model, a method of v5.0."""
        wrapped: nn.Module = resolve("models.autoshape:AutoShape", "AutoShape")(self)
        return wrapped

    def forget_grids(self) -> None:
        self.head.forget_grids()

    @contextmanager
    def undecoded(self) -> Iterator[None]:
        head = self.head
        training, head.training = head.training, True
        try:
            yield
        finally:
            head.training = training

    def _apply(self, fn: Any, recurse: bool = True) -> DetectionModel:
        super()._apply(fn, recurse)
        self.forget_grids()
        return self

    def _measure_strides(self) -> list[float]:
        training = self.training
        try:
            with self.eval().undecoded():  # in training mode batch norms would count this pass
                output = dry_run(self)
        finally:
            self.train(training)
        return [SIDE / level.shape[-2] for level in self.head.maps_of(output)]


class ClassificationModel(BaseModel):
    """A backbone that a yaml describes, with `Classify` as its last layer; or the first layers of a detector.

    Args:
        cfg: path of a yaml, bare name of one below models/, or its content. That of a detector is cut.
        model: a detector to cut, whose weights are copied; instead of `cfg`.
        nc: number of classes; replaces the yaml's. Of a detector to cut 1000 by default.
        cutoff: number of layers of a detector to keep, of which `Classify` takes the place of the last one.
        ch: image channels, where the yaml has no `ch`.

    Shape:
        (B, ch, H, W) normalized images -> (B, nc) logits

    Raises:
        ConfigError: the yaml does not describe a model, or it cannot be cut there.
    """

    def __init__(
        self,
        cfg: str | Path | dict[str, Any] | None = None,
        model: Any = None,
        nc: int | None = None,
        cutoff: int | None = 10,
        ch: int = 3,
    ) -> None:
        super().__init__()
        if model is not None:
            model = model if isinstance(model, BaseModel) else model.model  # of DetectMultiBackend
            nc = nc or 1000
        source = model.yaml if model is not None else cfg or "yolov5s-cls.yaml"
        self.yaml, self.yaml_file = read_config(source)
        if task_of(self.yaml) != Classify.task:
            self.yaml = cut_config(self.yaml, cutoff or 10, self.yaml_file)
        self.yaml["ch"] = self.yaml.get("ch", ch)
        if nc is not None:
            self.yaml["nc"] = nc
        self.model, self.save = parse_model(self.yaml, [self.yaml["ch"]], origin=self.yaml_file)
        self.nc = self.yaml["nc"]
        self.names = {i: str(i) for i in range(self.nc)}
        if model is None and not isinstance(self.model[0], TorchVision):  # some of those take one size only
            dry_run(self.eval())
            self.train()
        if model is not None:
            if "model.0.conv.bias" in model.state_dict():
                self.fuse()
            own, last = self.state_dict(), f"model.{len(self.model) - 1}."
            kept = {k: v for k, v in model.state_dict().items() if k in own and not k.startswith(last)}
            self.load_state_dict(kept, strict=False)

    @property
    def task(self) -> str:
        """Name of the task."""
        return "classify"

    @property
    def stride(self) -> Tensor:
        """The largest stride, (1,): image sizes are multiples of it."""
        return torch.tensor([32.0])

    def forward(
        self,
        x: Tensor,
        augment: bool = False,
        profile: bool = False,
        visualize: LayerCallback | str | Path | bool | None = None,
    ) -> Tensor:
        """Return logits (B, nc) of images; `augment` and `profile` are accepted, without effect."""
        writer = visualize if callable(visualize) else _feature_writer(visualize)
        logits: Tensor = self.run_layers(x, writer)
        return logits


class SegmentationModel(DetectionModel):
    """A model whose last layer is `Segment`."""

    def __init__(
        self, cfg: str | Path | dict[str, Any] = "yolov5s-seg.yaml", *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(cfg, *args, **kwargs)
        if self.task != "segment":
            raise ConfigError(f"{self.yaml_file}: the last layer must be Segment")


Model = DetectionModel  # its name before v6.2


def make_model(cfg: str | Path | dict[str, Any], **options: Any) -> Any:
    """Make the model of a yaml, of the class that its last layer asks for; `options` are that class's."""
    config, name = read_config(cfg)
    config["yaml_file"] = name
    task = task_of(config)
    if task == Classify.task:
        return ClassificationModel(config, **{key: options[key] for key in ("nc", "ch") if key in options})
    return (SegmentationModel if task == Segment.task else DetectionModel)(config, **options)


def task_of(config: dict[str, Any]) -> str:
    """Return the task of a model from its yaml: that of the last row's block, detect if it is unclear."""
    rows = config.get("head")
    last = rows[-1] if isinstance(rows, list) and rows else None
    name = last[2] if isinstance(last, list) and len(last) == 4 else None
    heads = (Segment, Classify, ClassifyLinear, TorchVision)
    return next((head.task for head in heads if head.__name__ == name), Detect.task)


def cut_config(config: dict[str, Any], cutoff: int, origin: str) -> dict[str, Any]:
    """Return the yaml of a classifier: the first `cutoff` layers of a detector, the last one replaced.

    Raises:
        ConfigError: there is no such layer, or it is none that a classifier can replace.
    """
    rows = [*config["backbone"], *config["head"]]
    if not 1 <= cutoff < len(rows):
        raise ConfigError(f"--cutoff {cutoff}: expected 1 to {len(rows) - 1} layers of {origin}")
    replaced = rows[cutoff - 1]
    if replaced[2] in ("nn.Upsample", "Concat"):
        raise ConfigError(f"--cutoff {cutoff}: layer {cutoff - 1} is {replaced[2]}, which cannot be replaced")
    kept = {key: value for key, value in config.items() if key not in ("backbone", "head", "anchors")}
    return kept | {"backbone": rows[: cutoff - 1], "head": [[-1, 1, Classify.__name__, ["nc"]]]}


def parse_model(
    d: dict[str, Any], ch: list[int], origin: str = "model yaml"
) -> tuple[nn.Sequential, list[int]]:
    """Build the layers of a model yaml.

    Args:
        d: content of the yaml.
        ch: channels of the image, as a list of one.
        origin: name of the yaml, for errors.

    Returns:
        The layers, and the indices of those whose output a later layer reads again.

    Raises:
        ConfigError: a row that cannot be built; the message names file and layer.
        DataError: more layers or parameters than `utils.base.limits` allows; nothing is built then.
    """
    origin = origin or "model yaml"
    rows = read_rows(d, origin)
    LAYERS.check(sum(row.repeats for row in rows), origin)
    CLASSES.check(d["nc"], origin)
    warn_about_unread(rows, origin)
    if blocks := origin_of_blocks(words_of(rows), d.get("blocks"), origin):
        d["blocks"] = blocks
    plans = _plan_rows(rows, d, ch, origin)
    if sum(plan.most_parameters for _, plan in plans) > PARAMETERS.value:
        with suppress(ConfigError), torch.device("meta"):  # errors of rows are reported below
            _build_rows(plans, d, origin)  # without memory: is it too large?
    save = [
        source % row.index
        for row in rows
        for source in (row.yaml_from if isinstance(row.yaml_from, list) else [row.yaml_from])
        if source != -1
    ]
    return _build_rows(plans, d, origin), sorted(save)


def _plan_rows(
    rows: Sequence[LayerRow], d: dict[str, Any], ch: list[int], origin: str
) -> list[tuple[LayerRow, registry.LayerPlan]]:
    plans: list[tuple[LayerRow, registry.LayerPlan]] = []
    keywords = {key: d[key] for key in ("init",) if key in d}
    for row in rows:
        in_channels = tuple(plans[j][1].out_channels if j >= 0 else ch[-1] for j in row.sources)
        listed = isinstance(row.yaml_from, list)
        try:
            context = registry.LayerContext(in_channels, row.repeats, listed, _width_scaling(d), keywords)
            plans.append((row, registry.plan(row.name, context, row.args)))
        except ConfigError as error:
            raise ConfigError(f"{origin}: layer {row.index} ({row.name}): {error}") from error
    return plans


def _build_rows(
    plans: Sequence[tuple[LayerRow, registry.LayerPlan]], d: dict[str, Any], origin: str
) -> nn.Sequential:
    layers: list[nn.Module] = []
    parameters = 0
    activation = _activation(d, "activation", origin) or nn.SiLU(inplace=True)
    csp_activation = _activation(d, "csp_activation", origin)
    with default_activation(activation, csp_activation):
        for row, plan in plans:
            try:
                layer = _annotate(plan.build(), plan, row)
            except ConfigError as error:
                raise ConfigError(f"{origin}: layer {row.index} ({row.name}): {error}") from error
            layers.append(layer)
            parameters += sum(p.numel() for p in layer.parameters())
            PARAMETERS.check(parameters, f"{origin}: up to layer {row.index} ({row.name})")
    return nn.Sequential(*layers)


def _activation(d: dict[str, Any], key: str, origin: str) -> nn.Module | None:
    """Return the activation that a key of a yaml names; None without that key."""
    text = d.get(key)
    if text and not isinstance(text, str):
        raise ConfigError(f"{origin}: {key} is {text!r:.40}; expected text, such as nn.ReLU()")
    return read_activation(text) if text else None


def _feature_writer(folder: str | Path | bool | None) -> LayerCallback | None:
    """Return a callback that writes feature maps to a folder; None without one."""
    if isinstance(folder, bool) or not folder:
        return None
    path = Path(folder)
    from utils.plots.figure import plot_features

    def write(layer: Any, output: Tensor) -> None:
        plot_features(output, layer.type, layer.i, path)

    return write


def _width_scaling(d: dict[str, Any]) -> Callable[[int], int]:
    gain, divisor = float(d.get("width_multiple", 1.0)), int(d.get("channel_multiple", 8))
    return lambda channels: make_divisible(channels * gain, divisor)


def _annotate(layer: nn.Module, plan: registry.LayerPlan, row: LayerRow) -> nn.Module:
    """Set the attributes that forward passes and tables read: index, sources, type, parameters."""
    module = plan.block.__module__
    if module.startswith("models."):  # where users' scripts import it from, and checkpoints name it
        module = "models.yolo" if issubclass(plan.block, Detect) else "models.common"
    described: Any = layer
    described.i, described.f = row.index, row.yaml_from
    described.type = f"{module}.{plan.block.__name__}"
    described.np = sum(p.numel() for p in layer.parameters())
    described.repeats, described.args = row.repeats, str(list(plan.args))
    return layer


__all__ = [
    "BaseModel",
    "ClassificationModel",
    "Detect",
    "DetectionModel",
    "Model",
    "Segment",
    "SegmentationModel",
    "make_model",
    "models",
    "parse_model",
    "read_config",
    "task_of",
]
__getattr__, __dir__, _old_names = serve("models.yolo")  # the original's module has more names
__all__ += _old_names

if __name__ == "__main__":
    profile.main(make_model)
