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
from studies.explain.labelled_models import Subject
from studies.explain.layers import describe_layer, find_layers, layer_strides
from studies.explain.map_figures import draw_gates, draw_heat
from studies.explain.model_inputs import View, Views
from studies.explain.receptive_field import Row, draw_fields, field_energy, field_table, measure, write_fields
from studies.explain.visualize_options import Options
from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.base.paths import atomic_write
from utils.sources.files import Frame

_TITLES = {
    "gradcam": "What speaks for the boxes: Grad-CAM of their scores",
    "eigencam": "What the features have in common: EigenCAM",
}


@dataclass
class Summary:
    """What a run made."""

    save_dir: Path
    files: list[Path] = field(default_factory=list)
    images: int = 0
    fields: list[list[Row]] = field(default_factory=list)  # of each model, one for each layer

    def file(self, name: str) -> Path:
        """A path in the run folder, counted as made."""
        self.files.append(self.save_dir / name)
        return self.files[-1]


class Part(Protocol):
    """One of the three; made before the run folder, so that wrong flags are found in time."""

    def __init__(self, options: Options, subjects: Sequence[Subject], views: Views) -> None: ...

    def look(self, frame: Frame, view: View, summary: Summary) -> None:
        """Work on one image."""
        ...

    def finish(self, summary: Summary) -> None:
        """Write what needed all images."""
        ...


class Fields:
    """Effective receptive fields: erf.png and erf.csv, averaged over the images."""

    def __init__(self, options: Options, subjects: Sequence[Subject], views: Views) -> None:
        self.subjects, self.views = subjects, views
        words = options.layer or ["backbone"]
        self.layers = [find_layers(subject.model, words) for subject in subjects]
        self.sums: dict[tuple[int, int], np.ndarray] = {}  # by model and layer

    def look(self, frame: Frame, view: View, summary: Summary) -> None:
        images = self.views.full(frame)
        for number, (subject, layers) in enumerate(zip(self.subjects, self.layers, strict=True)):
            for layer, energy in field_energy(subject.model, images, layers).items():
                self.sums[number, layer] = self.sums.get((number, layer), 0) + energy

    def finish(self, summary: Summary) -> None:
        for number, (subject, layers) in enumerate(zip(self.subjects, self.layers, strict=True)):
            strides = layer_strides(subject.model)
            summary.fields.append(
                [
                    Row(
                        subject.label,
                        describe_layer(subject.model, layer),
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

    def __init__(self, options: Options, subjects: Sequence[Subject], views: Views) -> None:
        self.subjects = [subject for subject in subjects if find_gates(subject.model)]
        without = [subject.label for subject in subjects if subject not in self.subjects]
        if not self.subjects:
            raise ConfigError(f"--kind gate: no attention gate in {', '.join(without)}; drop it from --kind")
        if without:
            LOG.info(f"No attention gate in {', '.join(without)}; the gates of the others are drawn")
        self.rows: list[list[object]] = []

    def look(self, frame: Frame, view: View, summary: Summary) -> None:
        found = [(subject.label, gate_maps(subject.model, view.images)) for subject in self.subjects]
        draw_gates(view, found, summary.file(f"gates_{view.name}.png"))
        self.rows += [[view.title, label, *_numbers(gate)] for label, gates in found for gate in gates]

    def finish(self, summary: Summary) -> None:
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

    def __init__(self, options: Options, subjects: Sequence[Subject], views: Views) -> None:
        self.subjects, self.method = subjects, options.method
        self.layers = [find_layers(subject.model, options.layer or ["detect"]) for subject in subjects]
        self.keep = Threshold(options.conf_thres, options.iou_thres, options.classes)
        for subject in subjects:
            last = max(subject.model.names)
            if wrong := [kind for kind in options.classes or [] if kind > last]:
                raise ConfigError(f"--classes {wrong[0]}: the classes of {subject.label} are 0-{last}")

    def look(self, frame: Frame, view: View, summary: Summary) -> None:
        explain = METHODS[self.method]
        found = [
            (subject.label, explain(subject.model, view.images, layers, self.keep), subject.model.names)
            for subject, layers in zip(self.subjects, self.layers, strict=True)
        ]
        draw_heat(view, found, _TITLES[self.method], summary.file(f"cam_{view.name}.png"))

    def finish(self, summary: Summary) -> None:
        pass


PARTS: dict[str, type[Part]] = {"erf": Fields, "gate": Gates, "cam": Heats}


def kinds_that_apply(subjects: Sequence[Subject]) -> list[str]:
    """What is drawn when nobody says what: all, but gates only where there is one."""
    gated = any(find_gates(subject.model) for subject in subjects)
    return [kind for kind in PARTS if kind != "gate" or gated]
