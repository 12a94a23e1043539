"""Receptive fields, attention gates and heat maps of several models: one pass over the images, then files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from models.user_blocks import load_blocks
from studies.explain.heatmap import METHODS, BoxFilter, ClassTarget, Target
from studies.explain.labelled_models import (
    LabelledModel,
    ModelInput,
    ModelInputs,
    frames_of,
    load_labelled_models,
    open_images,
)
from studies.explain.layers import GateMap, describe_layer, find_gates, find_layers, gate_maps, layer_strides
from studies.explain.map_figures import draw_gates, draw_heat
from studies.explain.receptive_field import (
    FieldRow,
    draw_fields,
    field_energy,
    field_table,
    measure,
    write_fields,
)
from studies.explain.visualize_options import VisualizeOptions
from utils.base.device import select_device
from utils.base.errors import ConfigError
from utils.base.log import LOG, Bar, color
from utils.base.options import flag_of
from utils.base.paths import atomic_write, check_writable, claim_folder, increment_path, remove_if_empty
from utils.data.images import is_video
from utils.sources.frame import Frame
from utils.tasks.task import Task, get_task

_TITLES = {
    "gradcam": "Grad-CAM of the scores of the boxes",
    "gradcam of a class": "Grad-CAM of the logit of a class",
    "eigencam": "EigenCAM: first principal component of the features",
}


@dataclass
class VisualizeSummary:
    """Results of a run, and the files that it has written."""

    save_dir: Path
    files: list[Path] = field(default_factory=list)
    images: int = 0
    fields: list[list[FieldRow]] = field(default_factory=list)  # of each model, one for each layer

    def file(self, name: str) -> Path:
        """Return a path in the run folder, and add it to `files`."""
        self.files.append(self.save_dir / name)
        return self.files[-1]


def visualize(options: VisualizeOptions) -> VisualizeSummary:
    """Draw what `options.kind` names, for every model.

    Source, models, layers and classes are checked before a run folder is made.

    Raises:
        ConfigError, DataError: see `open_images`, `load_labelled_models`, `find_layers`; or no model has a
            gate.
    """
    check_writable(increment_path(Path(options.project) / options.name, options.exist_ok))
    load_blocks(options.blocks)
    source = open_images(options.source, options.vid_stride)
    device = select_device(options.device)
    models = load_labelled_models(options.checkpoints, options.cfg, device, options.seed, options.labels)
    stride = int(max(model.model.stride.max() for model in models))
    task = get_task(models[0].model.task)
    trained = models[0].model.trained_imgsz
    size = _image_size(options, task, trained, stride)
    LOG.info(f"Images are shown to the models at up to {size[1]}x{size[0]} px")
    inputs = ModelInputs(size, stride, device, task)
    kinds = options.kind or kinds_that_apply(models)
    visualizers = [VISUALIZERS[kind](options, models, inputs) for kind in dict.fromkeys(kinds)]

    save_dir = claim_folder(Path(options.project) / options.name, options.exist_ok)
    summary = VisualizeSummary(save_dir)
    try:
        frames = Bar(frames_of(source, options.max_images), total=_count(source.files, options.max_images))
        for frame in frames:
            item = inputs.make(frame)
            frames.set_text(f"images, now {item.title}")
            summary.images += 1
            for visualizer in visualizers:
                visualizer.process(frame, item, summary)
            frames.set_text(f"{summary.images} images processed")
        for visualizer in visualizers:
            visualizer.finish(summary)
    finally:
        remove_if_empty(save_dir)
    LOG.info(f"{len(summary.files)} files saved to {color(str(save_dir), 'bold')}")
    return summary


def _image_size(options: VisualizeOptions, task: Task, trained: int | None, stride: int) -> tuple[int, int]:
    """Return height and width of the network's input; without --imgsz the default of the task."""
    default = task.size_for(trained)
    height, width = options.imgsz if "imgsz" in options.given else (default, default)
    if not task.draws_boxes and height != width:
        raise ConfigError(f"--imgsz {height} {width}: a {task.noun} sees squares; give one side")
    return task.export_size((height, width), stride)


def _count(files: list[Path], limit: int) -> int | None:
    """Return the number of images that are used, None if it is unknown; log what is left out."""
    if any(map(is_video, files)):
        return None
    if len(files) > limit:
        LOG.info(f"The first {limit} of {len(files)} images are used; change it with --max-images")
    return min(len(files), limit)


class Visualizer(Protocol):
    """Base class; draws one kind of map. Made before the run folder, so that invalid options leave none."""

    def __init__(
        self, options: VisualizeOptions, models: Sequence[LabelledModel], inputs: ModelInputs
    ) -> None: ...

    def process(self, frame: Frame, item: ModelInput, summary: VisualizeSummary) -> None:
        """Process one image."""
        ...

    def finish(self, summary: VisualizeSummary) -> None:
        """Write what depends on all images."""
        ...


class ReceptiveFields:
    """Effective receptive fields, averaged over the images: erf.png and erf.csv."""

    def __init__(
        self, options: VisualizeOptions, models: Sequence[LabelledModel], inputs: ModelInputs
    ) -> None:
        self.models, self.inputs = models, inputs
        self.layers = [find_layers(model.model, options.layer or ["backbone"]) for model in models]
        self.sums: dict[tuple[int, int], np.ndarray] = {}  # by index of the model and layer

    def process(self, frame: Frame, item: ModelInput, summary: VisualizeSummary) -> None:
        images = self.inputs.full(frame)
        for index, (model, layers) in enumerate(zip(self.models, self.layers, strict=True)):
            for layer, energy in field_energy(model.model, images, layers).items():
                self.sums[index, layer] = self.sums.get((index, layer), 0) + energy

    def finish(self, summary: VisualizeSummary) -> None:
        summary.fields += [self._rows(index, summary.images) for index in range(len(self.models))]
        draw_fields(summary.fields, summary.images, summary.file("erf.png"))
        write_fields(summary.fields, summary.file("erf.csv"))
        LOG.info(
            "Effective receptive field: side of the centred square, and area of the brightest pixels, that "
            f"hold 50 / 90 / 99 % of the energy\n{field_table(summary.fields)}"
        )
        shorter = min(self.inputs.imgsz)
        rows = [row for rows in summary.fields for row in rows]
        cropped = [f"{row.model} {row.layer}" for row in rows if row.field.extents[-1].side > shorter]
        if cropped:
            LOG.info(f"Limited by the image size, use a larger --imgsz: {', '.join(cropped)}")

    def _rows(self, index: int, images: int) -> list[FieldRow]:
        label, model = self.models[index].label, self.models[index].model
        strides = layer_strides(model)
        return [
            FieldRow(
                label, describe_layer(model, layer), strides[layer], measure(self.sums[index, layer] / images)
            )
            for layer in self.layers[index]
        ]


class AttentionGates:
    """Attention gates: a figure for each image, and gates.csv."""

    def __init__(
        self, options: VisualizeOptions, models: Sequence[LabelledModel], inputs: ModelInputs
    ) -> None:
        self.models = [model for model in models if find_gates(model.model)]
        without = [model.label for model in models if model not in self.models]
        if not self.models:
            raise ConfigError(f"--kind gate: no attention gate in {', '.join(without)}; drop it from --kind")
        if without:
            LOG.info(f"No attention gate in {', '.join(without)}; the gates of the other models are drawn")
        self.rows: list[list[object]] = []

    def process(self, frame: Frame, item: ModelInput, summary: VisualizeSummary) -> None:
        maps = [(model.label, gate_maps(model.model, item.images)) for model in self.models]
        draw_gates(item, maps, summary.file(f"gates_{item.name}.png"))
        self.rows += [[item.title, label, *_numbers(gate)] for label, gates in maps for gate in gates]

    def finish(self, summary: VisualizeSummary) -> None:
        with atomic_write(summary.file("gates.csv"), "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            numbers = ("map_min", "map_mean", "map_max", "lowest", "highest", "mean_change")
            writer.writerow(["picture", "model", "block", *numbers])
            writer.writerows(self.rows)


def _numbers(gate: GateMap) -> list[object]:
    of_map = gate.factor.min(), gate.factor.mean(), gate.factor.max()
    return [gate.block, *(f"{value:.6g}" for value in (*of_map, gate.lowest, gate.highest, gate.change))]


class HeatMaps:
    """Heat maps for detections, or for a class: a figure for each image."""

    def __init__(
        self, options: VisualizeOptions, models: Sequence[LabelledModel], inputs: ModelInputs
    ) -> None:
        self.models, self.method = models, options.method
        self.layers = [find_layers(model.model, options.layer or ["detect"]) for model in models]
        boxes = inputs.task.draws_boxes
        self.target = _boxes(options) if boxes else _class(options, inputs.task.noun)
        self.title = _TITLES["gradcam of a class" if self.method == "gradcam" and not boxes else self.method]
        for model in models:
            last = max(model.model.names)
            if wrong := [index for index in options.classes or [] if index > last]:
                raise ConfigError(f"--classes {wrong[0]}: the classes of {model.label} are 0-{last}")

    def process(self, frame: Frame, item: ModelInput, summary: VisualizeSummary) -> None:
        compute = METHODS[self.method]
        maps = [
            (model.label, compute(model.model, item.images, layers, self.target), model.model.names)
            for model, layers in zip(self.models, self.layers, strict=True)
        ]
        draw_heat(item, maps, self.title, summary.file(f"cam_{item.name}.png"))

    def finish(self, summary: VisualizeSummary) -> None:
        pass


def _boxes(options: VisualizeOptions) -> Target:
    return BoxFilter(options.conf_thres, options.iou_thres, options.classes)


def _class(options: VisualizeOptions, noun: str) -> Target:
    """Return the class to explain; raise ConfigError for flags of boxes, and for several classes."""
    for name in ("conf_thres", "iou_thres"):
        if name in options.given:
            raise ConfigError(f"{flag_of(type(options), name)}: a {noun} has no boxes; leave it out")
    classes: Sequence[int | None] = options.classes or [None]
    if len(classes) > 1:
        raise ConfigError(f"--classes: heat maps of a {noun} explain one class at a time; give one")
    return ClassTarget(classes[0])


VISUALIZERS: dict[str, type[Visualizer]] = {
    "erf": ReceptiveFields,
    "gate": AttentionGates,
    "cam": HeatMaps,
}


def kinds_that_apply(models: Sequence[LabelledModel]) -> list[str]:
    """Return the default of --kind: all kinds, but gates only if a model has one."""
    gated = any(find_gates(model.model) for model in models)
    return [kind for kind in VISUALIZERS if kind != "gate" or gated]
