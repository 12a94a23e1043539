"""Measure models: accuracy of finished runs and of weight files, size, latency.

`python -m studies.compare.measure FOLDER` measures a finished run, for `studies.jobs` in a subprocess.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.compare.metrics import metrics_of, metrics_of_epoch, named, results_by_part
from studies.compare.records import Records, metric_columns, paired_columns
from studies.compare.run_plan import MEASURED, RUN
from studies.compare.statistics import LEVEL, POWER, Paired
from studies.jobs.job import DEVICE, Job
from utils.base import script
from utils.base.errors import ConfigError, DataError
from utils.base.log import Bar
from utils.base.options import changed
from utils.base.paths import atomic_write
from utils.base.seeds import generator
from utils.ops.metrics import compute_ap
from utils.tasks.task import get_task

if TYPE_CHECKING:
    from utils.val.accumulator import DetectionMatches

_BOOTSTRAP, _PERMUTATION = 78, 79  # random number streams
_WARM_UP = 3  # rounds
Quartiles = tuple[float, float, float]  # median, lower, upper


class Scorer:
    """mAP of a set in which every image has an integer weight; a weight of zero leaves an image out.

    Detections are sorted and grouped by class once.
    """

    def __init__(self, matches: DetectionMatches) -> None:
        order = np.argsort(-matches.confidence, kind="stable")
        correct, found, image = matches.correct[order], matches.found[order], matches.image[order]
        self.classes = np.unique(matches.true)
        self._detections = [(correct[found == cls], image[found == cls]) for cls in self.classes]
        self._labels = [matches.true_image[matches.true == cls] for cls in self.classes]

    def __call__(self, weights: np.ndarray, label_weights: np.ndarray | None = None) -> np.ndarray:
        """Return (mAP50, mAP50-95) over the classes that have labels in the weighted set.

        Args:
            weights: (images,) how often the detections of each image count.
            label_weights: (images,) how often its labels count; None: as often.
        """
        label_weights = weights if label_weights is None else label_weights
        found = []
        for (correct, image), labels in zip(self._detections, self._labels, strict=True):
            count = label_weights[labels].sum()
            if count:
                found.append(_average_precision(correct, weights[image], count))
        if not found:
            return np.zeros(2)
        mean = np.mean(found, axis=0)
        return np.array([mean[0], mean.mean()])


def _average_precision(correct: np.ndarray, weights: np.ndarray, labels: float) -> np.ndarray:
    kept = weights > 0
    correct, weights = correct[kept], weights[kept]
    if not len(weights):
        return np.zeros(correct.shape[1])
    right = (correct * weights[:, None]).cumsum(0)
    return compute_ap(right / labels, right / weights.cumsum()[:, None])[0]


def compare_images(
    a: DetectionMatches, b: DetectionMatches, resamples: int = 2000, seed: int = 0, comparisons: int = 1
) -> tuple[Paired, Paired]:
    """Compare two models on the same images.

    Args:
        a: matches of the baseline.
        b: matches of the other model, images in the same order.
        resamples: number of bootstrap resamples, and of permutations.
        seed: of the random numbers.
        comparisons: number of comparisons that share the significance level.

    Returns:
        The differences of mAP50 and of mAP50-95.

    Raises:
        ValueError: the images differ.
    """
    from scipy import stats

    if a.images != b.images or not np.array_equal(a.true, b.true):
        raise ValueError("the models were not measured on the same images")
    map_a, map_b, n = Scorer(a), Scorer(b), a.images
    every_image = np.ones(n, int)
    observed = map_b(every_image) - map_a(every_image)
    boot = np.empty((resamples, 2))
    draw = generator(seed, _BOOTSTRAP)
    for index in Bar(range(resamples), "bootstrap over images"):
        weights = np.bincount(draw.integers(n, size=n), minlength=n)
        boot[index] = map_b(weights) - map_a(weights)
    p = _permutation_test(a, b, observed, resamples, seed)
    low, high = np.quantile(boot, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    standard_errors = stats.norm.isf(LEVEL / comparisons / 2) + stats.norm.ppf(POWER)
    detectable = standard_errors * boot.std(0, ddof=1)
    made = [Paired(n, *map(float, values)) for values in zip(observed, low, high, p, detectable, strict=True)]
    return made[0], made[1]


def _permutation_test(
    a: DetectionMatches, b: DetectionMatches, observed: np.ndarray, times: int, seed: int
) -> np.ndarray:
    """Return the share of permutations whose difference is at least as large as observed; (2,)."""
    both, n = Scorer(_concatenate(a, b)), a.images
    hits = np.zeros(2)
    draw = generator(seed, _PERMUTATION)
    labels = np.repeat([1, 0], n)  # both halves have the same labels; count them once
    for _ in Bar(range(times), "permutations of the two models"):
        swap = draw.integers(2, size=n)
        first, second = np.concatenate((1 - swap, swap)), np.concatenate((swap, 1 - swap))
        difference = both(second, labels) - both(first, labels)
        hits += np.abs(difference) >= np.abs(observed) - 1e-12
    return (hits + 1) / (times + 1)


def _concatenate(a: DetectionMatches, b: DetectionMatches) -> DetectionMatches:
    """Return the detections of both models, those of b with image indices that follow those of a."""
    from utils.val.accumulator import DetectionMatches as Both

    return Both(
        correct=np.concatenate((a.correct, b.correct)),
        confidence=np.concatenate((a.confidence, b.confidence)),
        found=np.concatenate((a.found, b.found)),
        image=np.concatenate((a.image, b.image + a.images)),
        true=np.concatenate((a.true, b.true)),
        true_image=np.concatenate((a.true_image, b.true_image + a.images)),
        images=a.images + b.images,
    )


if TYPE_CHECKING:
    from studies.compare.compare_options import CompareOptions
    from utils.val.accumulator import EvalResult
    from utils.val.val_options import ValOptions


def measure_run(folder: Path) -> None:
    """Measure best.pt and last.pt of a run as val.py does, and write measured.json.

    Raises:
        DataError: the folder holds no finished run.
    """
    from models.weights import read_checkpoint
    from utils.val.measure import measure
    from utils.val.val_options import options_from

    run = json.loads((folder / RUN).read_text(encoding="utf-8"))
    task = get_task(run.get("task", Job.task))
    trained = task.parse_train_options(run["train"])
    device = folder / DEVICE
    options = options_from(
        {
            "data": trained.data,
            "imgsz": trained.imgsz,
            "batch_size": trained.batch_size * 2,
            "single_cls": trained.single_cls,
            "device": device.read_text().strip() if device.is_file() else "",
            "workers": trained.workers,
        },
        task.val_options(),
    )
    metrics: dict[str, Any] = {}
    for name in ("best", "last"):
        path = folder / "weights" / f"{name}.pt"
        if not path.is_file():
            raise DataError(f"{path}: missing, although the training has ended")
        for split in run["splits"]:
            result = measure(changed(options, weights=path, task=split))
            metrics.setdefault(name, {})[split] = metrics_of(result)
    last = read_checkpoint(folder / "weights" / "last.pt")
    content = {
        "label": run["label"],
        "seed": run["seed"],
        "key": run["key"],
        "figures": metrics,
        "epochs": _epochs(folder),
        "identity": last.metadata.get("git"),
        "versions": last.metadata.get("versions"),
        **model_size(folder / "weights" / "best.pt", trained.imgsz),
    }
    with atomic_write(folder / MEASURED, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)


def _epochs(folder: Path) -> list[dict[str, float]]:
    """Read mAP and loss of each epoch from results.csv."""
    with (folder / "results.csv").open(newline="") as file:
        return [
            metrics_of_epoch({key.strip(): float(value) for key, value in row.items()})
            for row in csv.DictReader(file)
        ]


def measure_files(options: CompareOptions, val: ValOptions) -> Records:
    """Measure weight files as val.py does, and compare each with the first one, image by image.

    Args:
        options: of compare.py.
        val: options of val.py; its weights are the files.

    Raises:
        ConfigError: the labels do not fit the files.
        DataError: a file is missing or damaged.
    """
    from studies.explain.labelled_models import unique_labels
    from utils.val.measure import measure

    labels = options.labels or unique_labels([Path(file) for file in val.weights])
    if len(labels) != len(val.weights) or len(set(labels)) != len(labels):
        raise ConfigError(f"--labels: expected {len(val.weights)} different names, one for each file")
    split = val.task if val.task in ("train", "test") else "val"
    results = [measure(changed(val, weights=file)) for file in val.weights]
    records = Records()
    for label, file, result in zip(labels, val.weights, results, strict=True):
        row: dict[str, Any] = {"model": label, "seed": 0, "split": split, "checkpoint": "best", "flags": file}
        row |= metric_columns(metrics_of(result))
        size = model_size(Path(file), val.imgsz) if file.endswith(".pt") else {}
        records.results.append(row | size)
    for row, result in zip(records.results[1:], results[1:], strict=True):
        row |= _paired_with(results[0], result, options.resamples, comparisons=len(results) - 1)
    if options.rounds:
        files = [Path(file) for file in val.weights]
        records.add_latency(measure_latency(files, val.imgsz, val.device, options.rounds))
    return records


def _paired_with(
    baseline: EvalResult, result: EvalResult, resamples: int, comparisons: int
) -> dict[str, float]:
    """Return the columns of results.csv for the differences of a result to that of the first file."""
    columns: dict[str, float] = {}
    of_baseline = results_by_part(baseline)
    for part, one in results_by_part(result).items():
        a, b = of_baseline[part].matches, one.matches
        assert a is not None and b is not None
        pairs = compare_images(a, b, resamples, comparisons=comparisons)
        for metric, pair in zip(("mAP50", "mAP50-95"), pairs, strict=True):
            columns |= paired_columns(named(part, metric), pair)
    return columns


def model_size(weights: Path, imgsz: int) -> dict[str, float]:
    """Return parameters, and GFLOPs at `imgsz` rounded up to the stride."""
    from models.weights import build_model, read_checkpoint
    from utils.data.letterbox import check_img_size

    model = build_model(read_checkpoint(weights))
    side = check_img_size(imgsz, stride=int(model.stride.max()))
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": parameters, "gflops": round(model.gflops(side), 4)}


def measure_latency(files: Sequence[Path], imgsz: int, device: str = "", rounds: int = 50) -> list[Quartiles]:
    """Measure the forward time of each model for one image, fused as in detect.py.

    The models take turns, so that a slow moment of the machine affects all of them.

    Args:
        files: weights.
        imgsz: side of the square image, rounded up to the largest stride.
        device: as `--device`.
        rounds: how often each model runs; the first model changes from round to round.

    Returns:
        For each file the median, lower and upper quartile in ms.
    """
    import torch

    from models.backends import load_backend
    from utils.base.device import select_device
    from utils.base.timing import Stopwatch
    from utils.data.letterbox import check_img_size

    chosen = select_device(device, verbose=False)
    models = [load_backend([str(file)], chosen) for file in files]
    side = check_img_size(imgsz, stride=max(int(model.stride) for model in models))
    image = torch.rand(1, 3, side, side, device=chosen).to(memory_format=torch.channels_last)
    times: list[list[float]] = [[] for _ in models]
    clock = Stopwatch(chosen)
    with torch.inference_mode():
        for turn in range(_WARM_UP + rounds):
            for position in range(len(models)):
                index = (position + turn) % len(models)
                with clock:
                    models[index](image)
                if turn >= _WARM_UP:
                    times[index].append(clock.last * 1e3)
    quartiles = [np.percentile(one, [50, 25, 75]) for one in times]
    return [(float(median), float(low), float(high)) for median, low, high in quartiles]


def main() -> None:
    """Measure the run in the folder that the command line names."""
    if len(sys.argv) != 2:
        raise ConfigError("usage: python -m studies.compare.measure FOLDER")
    measure_run(Path(sys.argv[1]))


if __name__ == "__main__":
    script.main(main)
