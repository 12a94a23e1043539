"""The three things to look at: each sees every image once, then says what it found."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from studies.explain.gates import GateMap, find_gates, gate_maps
from studies.explain.heatmap import METHODS, Threshold
from studies.explain.labelled_models import LabelledModel
from studies.explain.layers import describe_layer, find_layers, layer_strides
from studies.explain.map_figures import draw_gates, draw_heat
from studies.explain.model_inputs import ModelInput, ModelInputs
from studies.explain.receptive_field import (
    FieldRow,
    draw_fields,
    field_energy,
    field_table,
    measure,
    write_fields,
)
from studies.explain.visualize_options import VisualizeOptions
from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.base.paths import atomic_write
from utils.sources.frame import Frame

_TITLES = {
    "gradcam": "What speaks for the boxes: Grad-CAM of their scores",
    "eigencam": "What the features have in common: EigenCAM",
}


@dataclass
class VisualizeSummary:
    """What a run made."""

    save_dir: Path
    files: list[Path] = field(default_factory=list)
    images: int = 0
    fields: list[list[FieldRow]] = field(default_factory=list)  # of each model, one for each layer

    def file(self, name: str) -> Path:
        """A path in the run folder, counted as made."""
        self.files.append(self.save_dir / name)
        return self.files[-1]


class Visualizer(Protocol):
    """One of the three; made before the run folder, so that wrong flags are found in time."""

    def __init__(
        self, options: VisualizeOptions, models: Sequence[LabelledModel], views: ModelInputs
    ) -> None: ...

    def look(self, frame: Frame, view: ModelInput, summary: VisualizeSummary) -> None:
        """Work on one image."""
        ...

    def finish(self, summary: VisualizeSummary) -> None:
        """Write what needed all images."""
        ...


class Fields:
    """Effective receptive fields: erf.png and erf.csv, averaged over the images."""

    def __init__(
        self, options: VisualizeOptions, models: Sequence[LabelledModel], views: ModelInputs
    ) -> None:
        self.models, self.views = models, views
        words = options.layer or ["backbone"]
        self.layers = [find_layers(model.model, words) for model in models]
        self.sums: dict[tuple[int, int], np.ndarray] = {}  # by model and layer

    def look(self, frame: Frame, view: ModelInput, summary: VisualizeSummary) -> None:
        images = self.views.full(frame)
        for number, (model, layers) in enumerate(zip(self.models, self.layers, strict=True)):
            for layer, energy in field_energy(model.model, images, layers).items():
                self.sums[number, layer] = self.sums.get((number, layer), 0) + energy

    def finish(self, summary: VisualizeSummary) -> None:
        for number, (model, layers) in enumerate(zip(self.models, self.layers, strict=True)):
            strides = layer_strides(model.model)
            summary.fields.append(
                [
                    FieldRow(
                        model.label,
                        describe_layer(model.model, layer),
                        strides[layer],
                        measure(self.sums[number, layer] / summary.images),
                    )
                    for layer in layers
                ]
            )
        draw_fields(summary.fields, summary.images, summary.file("erf.png"))
        write_fields(summary.fields, summary.file("erf.csv"))
        LOG.info(
            "Effective receptive field: side of the centred square, and area of the brightest pixels, that "
            f"hold 50 / 90 / 99 % of the energy\n{field_table(summary.fields)}"
        )
        height, width = self.views.imgsz
        cut = [
            row for rows in summary.fields for row in rows if row.field.extents[-1].side > min(height, width)
        ]
        if cut:
            names = ", ".join(f"{row.model} {row.layer}" for row in cut)
            LOG.info(f"Cut off by the image's edge, a larger --imgsz shows more: {names}")


class Gates:
    """Attention gates: a figure for each image, and gates.csv."""

    def __init__(
        self, options: VisualizeOptions, models: Sequence[LabelledModel], views: ModelInputs
    ) -> None:
        self.models = [model for model in models if find_gates(model.model)]
        without = [model.label for model in models if model not in self.models]
        if not self.models:
            raise ConfigError(f"--kind gate: no attention gate in {', '.join(without)}; drop it from --kind")
        if without:
            LOG.info(f"No attention gate in {', '.join(without)}; the gates of the others are drawn")
        self.rows: list[list[object]] = []

    def look(self, frame: Frame, view: ModelInput, summary: VisualizeSummary) -> None:
        found = [(model.label, gate_maps(model.model, view.images)) for model in self.models]
        draw_gates(view, found, summary.file(f"gates_{view.name}.png"))
        self.rows += [[view.title, label, *_numbers(gate)] for label, gates in found for gate in gates]

    def finish(self, summary: VisualizeSummary) -> None:
        with atomic_write(summary.file("gates.csv"), "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            kinds = ("map_min", "map_mean", "map_max", "lowest", "highest", "mean_change")
            writer.writerow(["picture", "model", "block", *kinds])
            writer.writerows(self.rows)


def _numbers(gate: GateMap) -> list[object]:
    of_map = gate.factor.min(), gate.factor.mean(), gate.factor.max()
    return [gate.block, *(f"{value:.6g}" for value in (*of_map, gate.lowest, gate.highest, gate.change))]


class Heats:
    """Heat maps for detections: a figure for each image."""

    def __init__(
        self, options: VisualizeOptions, models: Sequence[LabelledModel], views: ModelInputs
    ) -> None:
        self.models, self.method = models, options.method
        self.layers = [find_layers(model.model, options.layer or ["detect"]) for model in models]
        self.keep = Threshold(options.conf_thres, options.iou_thres, options.classes)
        for model in models:
            last = max(model.model.names)
            if wrong := [kind for kind in options.classes or [] if kind > last]:
                raise ConfigError(f"--classes {wrong[0]}: the classes of {model.label} are 0-{last}")

    def look(self, frame: Frame, view: ModelInput, summary: VisualizeSummary) -> None:
        explain = METHODS[self.method]
        found = [
            (model.label, explain(model.model, view.images, layers, self.keep), model.model.names)
            for model, layers in zip(self.models, self.layers, strict=True)
        ]
        draw_heat(view, found, _TITLES[self.method], summary.file(f"cam_{view.name}.png"))

    def finish(self, summary: VisualizeSummary) -> None:
        pass


VISUALIZERS: dict[str, type[Visualizer]] = {"erf": Fields, "gate": Gates, "cam": Heats}


def kinds_that_apply(models: Sequence[LabelledModel]) -> list[str]:
    """What is drawn when nobody says what: all, but gates only where there is one."""
    gated = any(find_gates(model.model) for model in models)
    return [kind for kind in VISUALIZERS if kind != "gate" or gated]
