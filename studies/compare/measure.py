"""Measure models: accuracy of finished runs and of weight files, size, latency.

`python -m studies.compare.measure FOLDER` measures a finished run, for `studies.jobs` in a subprocess.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.compare.evaluation import matched_parts, metrics_by_image, metrics_of
from studies.compare.metrics import metrics_of_epoch
from studies.compare.paired_images import compare_images, pair_of
from studies.compare.records import Records, image_rows, metric_columns, paired_columns
from studies.compare.run_plan import MEASURED, RUN
from studies.jobs.job import DEVICE, Job
from utils.base import script
from utils.base.errors import ConfigError, DataError
from utils.base.options import changed
from utils.base.paths import atomic_write
from utils.tasks.task import get_task

if TYPE_CHECKING:
    from studies.compare.compare_options import CompareOptions
    from utils.val.accumulator import ValResult
    from utils.val.val_options import ValOptions

_WARM_UP = 3  # rounds
Quartiles = tuple[float, float, float]  # median, lower, upper


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
            "device": device.read_text().strip() if device.is_file() else "",
            "workers": trained.workers,
            "blocks": trained.blocks,
            **({"single_cls": True} if trained.single_cls else {}),
        },
        task.val_options(),
    )
    metrics: dict[str, Any] = {}
    images: dict[str, Any] = {}
    for name in ("best", "last"):
        path = folder / "weights" / f"{name}.pt"
        if not path.is_file():
            raise DataError(f"{path}: missing, although the training has ended")
        for split in run["splits"]:
            result = measure(changed(options, weights=path, task=split))
            metrics.setdefault(name, {})[split] = metrics_of(result)
            if name == "best":
                images[split] = metrics_by_image(result)
    last = read_checkpoint(folder / "weights" / "last.pt")
    content = {
        "label": run["label"],
        "seed": run["seed"],
        "key": run["key"],
        "figures": metrics,
        "images": images,
        "epochs": _epochs(folder),
        "identity": last.metadata.get("git"),
        "versions": last.metadata.get("versions"),
        **model_size(folder / "weights" / "best.pt", trained.imgsz),
    }
    with atomic_write(folder / MEASURED, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)


def _epochs(folder: Path) -> list[dict[str, float]]:
    """Read metrics and loss of each epoch from results.csv."""
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
    from utils.val.measure import measure

    labels = labels_of(options, val.weights)
    results = [measure(changed(val, weights=file)) for file in val.weights]
    records = records_of_files(dict(zip(labels, val.weights, strict=True)), results, val, options.resamples)
    for row, file in zip(records.results, val.weights, strict=True):
        row |= model_size(Path(file), val.imgsz) if file.endswith(".pt") else {}
    if options.rounds:
        files = [Path(file) for file in val.weights]
        records.add_latency(measure_latency(files, val.imgsz, val.device, options.rounds))
    return records


def labels_of(options: CompareOptions, files: Sequence[str]) -> list[str]:
    """Return the names of models: `--labels`, or those of their files.

    Raises:
        ConfigError: not one name for each file.
    """
    from studies.explain.labelled_models import unique_labels

    labels = options.labels or unique_labels([Path(file) for file in files])
    if len(labels) != len(files) or len(set(labels)) != len(labels):
        raise ConfigError(f"--labels: expected {len(files)} different names, one for each file")
    return labels


def records_of_files(
    files: Mapping[str, str], results: Sequence[ValResult], val: ValOptions, resamples: int
) -> Records:
    """Return the records of models of one run each, compared with the first one image by image.

    Args:
        files: label -> file.
        results: of each.
        val: options of val.py.
        resamples: number of bootstrap resamples.
    """
    split = val.task if val.task in ("train", "test") else "val"
    records = Records()
    for (label, file), result in zip(files.items(), results, strict=True):
        row: dict[str, Any] = {"model": label, "seed": 0, "split": split, "checkpoint": "best", "flags": file}
        records.results.append(row | metric_columns(metrics_of(result)))
        records.images += image_rows(label, [{split: metrics_by_image(result)}])
    for row, result in zip(records.results[1:], results[1:], strict=True):
        row |= _paired_with(results[0], result, resamples, comparisons=len(results) - 1)
    return records


def _paired_with(
    baseline: ValResult, result: ValResult, resamples: int, comparisons: int
) -> dict[str, float]:
    """Return the columns of results.csv for the differences of a result to that of the first file."""
    columns: dict[str, float] = {}
    for names, a, b in matched_parts(baseline, result):
        pairs = compare_images(pair_of(a, b), resamples, comparisons=comparisons)
        for name, pair in zip(names, pairs, strict=True):
            columns |= paired_columns(name, pair)
    return columns


def model_size(weights: Path, imgsz: int) -> dict[str, float]:
    """Return parameters, and GFLOPs at `imgsz`, for detectors rounded up to the stride."""
    from models.weights import build_model, read_checkpoint

    model = build_model(read_checkpoint(weights))
    side, _ = get_task(model.task).export_size((imgsz, imgsz), int(model.stride.max()))
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": parameters, "gflops": round(model.gflops(side), 4)}


def measure_latency(files: Sequence[Path], imgsz: int, device: str = "", rounds: int = 50) -> list[Quartiles]:
    """Measure the forward time of each model for one image, fused as in detect.py.

    The models take turns, so that a slow moment of the machine affects all of them.

    Args:
        files: weights.
        imgsz: side of the square image, for detectors rounded up to the largest stride.
        device: as `--device`.
        rounds: how often each model runs; the first model changes from round to round.

    Returns:
        For each file the median, lower and upper quartile in ms.
    """
    import torch

    from models.backends import load_backend
    from utils.base.device import select_device
    from utils.base.timing import Stopwatch

    chosen = select_device(device, verbose=False)
    models = [load_backend([str(file)], chosen) for file in files]
    stride = max(int(model.stride) for model in models)
    side, _ = get_task(models[0].task).export_size((imgsz, imgsz), stride)
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
