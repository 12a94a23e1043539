"""Evaluate a classification model: top-1 and top-5 accuracy, by class too, and the confusion matrix."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.base.paths import atomic_write
from utils.base.timing import Stopwatch
from utils.loggers.callbacks import Callbacks
from utils.plots.batches import SUBPLOTS, plot_images
from utils.plots.curves import plot_confusion_matrix
from utils.plots.painter import Painter
from utils.tasks.classify.top import TOP, top_classes
from utils.tasks.classify.transforms import normalize
from utils.val.accumulator import ValResult
from utils.val.evaluate import EvalConfig, Evaluator, Gather, Loss
from utils.val.outputs import PLOTTED_BATCHES, EvalOutputs, OutputOptions
from utils.val.runner import Found, ModelRunner

if TYPE_CHECKING:
    from utils.data.loader import Batch

HEADER = ("%24s" + "%12s" * 3) % ("Class", "Images", "top1_acc", "top5_acc")
LOSS_HEADER = f"{HEADER}{'val_loss':>12}"  # while training


@dataclass(frozen=True)
class ClassMatches:
    """All predictions of a dataset, from which the metrics of any subset of its images can be computed."""

    true: np.ndarray  # (N,) class of each image
    top: np.ndarray  # (N, k) classes of each prediction, the most probable first; k = 5, or fewer classes
    paths: list[str]

    @property
    def hits(self) -> np.ndarray:
        """Whether the first class, and any of the k, is the true one: (N, 2) bool."""
        right = self.top == self.true[:, None]
        return np.stack((right[:, 0], right.any(1)), 1)

    def confusion(self, nc: int) -> np.ndarray:
        """Count the images by predicted (rows) and true class (columns), (nc, nc)."""
        counts = np.bincount(self.top[:, 0] * nc + self.true, minlength=nc * nc)
        return counts.reshape(nc, nc)


@dataclass(frozen=True)
class ClassifyResult(ValResult):
    """Metrics of one validation; of a class without images they are NaN."""

    names: dict[int, str]
    matches: ClassMatches
    top1: float
    top5: float
    loss: float = 0.0  # mean over the images; 0 where it is not measured
    speeds: tuple[float, float, float] = (0.0, 0.0, 0.0)  # ms per image: pre-process, inference, post-process

    @property
    def seen(self) -> int:
        """Number of images."""
        return len(self.matches.true)

    @property
    def results(self) -> tuple[float, ...]:
        """(loss, top-1, top-5), the order of results.csv."""
        return (self.loss, self.top1, self.top5)

    @property
    def metrics(self) -> tuple[float, ...]:
        """(top-1, top-5)."""
        return (self.top1, self.top5)

    @property
    def label_counts(self) -> np.ndarray:
        """Images of each class, (nc,)."""
        return np.bincount(self.matches.true, minlength=len(self.names))

    @property
    def by_class(self) -> np.ndarray:
        """Top-1 and top-5 of each class, (nc, 2)."""
        sums = np.zeros((len(self.names), 2))
        np.add.at(sums, self.matches.true, self.matches.hits)
        with np.errstate(invalid="ignore"):
            accuracy: np.ndarray = sums / self.label_counts[:, None]
        return accuracy

    @property
    def class_accuracy(self) -> dict[str, float]:
        """Top-1 of each class that has images, by its name."""
        own = self.by_class[:, 0].tolist()
        return {name: own[index] for index, name in self.names.items() if not math.isnan(own[index])}

    @property
    def class_quality(self) -> np.ndarray:
        """Top-1 of each class, (nc,), the overall one for a class without images; for --image-weights."""
        own = self.by_class[:, 0]
        return np.where(np.isnan(own), self.top1, own)

    def fitness(self) -> float:
        """Return the number by which the best model is chosen: top-1."""
        return self.top1

    def log(self, per_class: bool) -> None:
        """Log the row `all` and, with `per_class`, one row for each class."""
        measured = (*self.metrics, self.loss) if self.loss else self.metrics
        LOG.info(_row("all", self.seen, measured))
        for index, values in enumerate(self.by_class) if per_class else ():
            LOG.info(_row(self.names[index], int(self.label_counts[index]), values))

    def warn(self, standalone: bool) -> None:
        """Say what top-5 means where there are no more than five classes."""
        if standalone and len(self.names) <= TOP:
            LOG.info(f"top5_acc is 1 by definition: there are only {len(self.names)} classes")

    def __iter__(self) -> Iterator[Any]:
        """Unpack as the original's return value: top-1, top-5, loss."""
        return iter((self.top1, self.top5, self.loss))


def _row(name: str, images: int, values: Sequence[float]) -> str:
    return f"{name:>24}{images:>12}" + "".join(f"{value:12.3g}" for value in values)


class ClassifyOutputs(EvalOutputs):
    """Files of a validation: predictions.csv, the confusion matrix, and the first batches."""

    def __init__(self, options: OutputOptions | None, names: dict[int, str]) -> None:
        self.options = options
        self.names = names
        self.painter = Painter()

    def predictions(self, index: int, batch: Batch, top: Tensor) -> None:
        """Draw one of the first batches; `top` (B, k) are the classes predicted for it."""
        if self.options is None or not self.options.plots or index >= PLOTTED_BATCHES:
            return
        true = [self.names[number] for number in batch.targets[:, 1].int().tolist()]
        found = [self.names[number] for number in top[:, 0].tolist()]
        for kind, captions in (
            ("labels", true),
            ("pred", [f"{a} - {b}" for a, b in zip(true, found, strict=True)]),
        ):
            file = self.options.folder / f"val_batch{index}_{kind}.jpg"
            self.painter.draw(plot_images, batch.images[:SUBPLOTS], (), captions, file)

    def finish(self, result: ClassifyResult) -> ClassifyResult:  # type: ignore[override]
        """Write what needs all images."""
        if self.options is None:
            return result
        folder, names = self.options.folder, [*self.names.values()]
        write_predictions(folder / "predictions.csv", result)
        if self.options.plots:
            counts, file = result.matches.confusion(len(names)), folder / "confusion_matrix.png"
            self.painter.draw(plot_confusion_matrix, counts, file, names)
            self.painter.rest()
            self.painter.wait()
        return result

    def close(self) -> None:
        """Drop what is not drawn yet."""
        self.painter.close()


def write_predictions(path: Path, result: ClassifyResult) -> None:
    """Write a row for each image: its path, its class, and the classes predicted for it."""
    matches, names = result.matches, result.names
    with atomic_write(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("image", "class", *(f"top{k + 1}" for k in range(matches.top.shape[1]))))
        for image, true, top in zip(matches.paths, matches.true.tolist(), matches.top.tolist(), strict=True):
            table.writerow((image, names[true], *(names[index] for index in top)))


@dataclass
class _Seen:
    """Predictions so far, in lists of batches."""

    true: list[Tensor]
    top: list[Tensor]
    paths: list[list[str]]
    loss: float = 0.0  # sum over the images


class ClassifyEvaluator(Evaluator):
    """One pass over a dataset: inference, and the five best classes of each image."""

    outputs_class: ClassVar[type[EvalOutputs]] = ClassifyOutputs

    def __init__(
        self,
        runner: ModelRunner,
        names: dict[int, str],
        config: EvalConfig,
        outputs: EvalOutputs,
        loss: Loss | None,
        callbacks: Callbacks,
    ) -> None:
        self.runner = runner
        self.names = names
        self.outputs = outputs
        self.loss = loss
        self.header = HEADER if loss is None else LOSS_HEADER
        self.callbacks = callbacks
        self.seconds = [0.0, 0.0, 0.0]  # pre-process, inference, post-process
        self.seen = _Seen([], [], [])

    def predict(self, batch: Batch, part: slice) -> Found:
        """Return the best classes of some images of a batch; called by several threads at the same time."""
        clocks = [Stopwatch(self.runner.device) for _ in self.seconds]
        with clocks[0]:
            images = normalize(self.runner.prepare(batch.images[part]))
        with clocks[1]:
            logits = self.runner(images).float()
        if logits.shape[1] != len(self.names):
            raise ConfigError(
                f"the model has {logits.shape[1]} classes, the dataset {len(self.names)}: "
                "evaluate it on the dataset that it was trained on"
            )
        with clocks[2]:
            top = top_classes(logits)[..., 1].long().cpu()
        raw = None if self.loss is None else logits
        return Found([*top], raw, seconds=tuple(clock.total for clock in clocks))

    def add(self, index: int, batch: Batch, found: Found) -> None:
        """Add the classes that were found in a batch, and its loss."""
        self.seconds = [a + b for a, b in zip(self.seconds, found.seconds, strict=True)]
        if self.loss is not None:
            self.seen.loss += float(self.loss(found.raw, batch.targets)[1]) * len(batch.paths)
        top = torch.stack(found.images)
        self.seen.true.append(batch.targets[:, 1].long())
        self.seen.top.append(top)
        self.seen.paths.append(batch.paths)
        assert isinstance(self.outputs, ClassifyOutputs)
        self.outputs.predictions(index, batch, top)

    def merge(self, gather: Gather) -> None:
        """Merge the predictions of n processes, of which process i has the batches i, i + n, i + 2n, ..."""
        parts: list[_Seen] = gather(self.seen)
        if len(parts) < 2:
            return
        merged = _Seen([], [], [], sum(part.loss for part in parts))
        for turn in range(max(len(part.true) for part in parts)):
            for part in parts:
                if turn < len(part.true):
                    merged.true.append(part.true[turn])
                    merged.top.append(part.top[turn])
                    merged.paths.append(part.paths[turn])
        self.seen = merged

    def result(self) -> ClassifyResult:  # type: ignore[override]
        """Compute the metrics of all batches."""
        paths = [path for batch in self.seen.paths for path in batch]
        matches = ClassMatches(torch.cat(self.seen.true).numpy(), torch.cat(self.seen.top).numpy(), paths)
        top1, top5 = (float(value) for value in matches.hits.mean(0))
        first, second, third = (seconds / len(paths) * 1e3 for seconds in self.seconds)
        speeds = first, second, third
        return ClassifyResult(self.names, matches, top1, top5, self.seen.loss / len(paths), speeds)
