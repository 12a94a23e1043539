"""The rows of results.csv and curves.csv, which all tables and plots of a comparison are made from."""

from __future__ import annotations

import csv
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studies.compare.metrics import MetricSet, set_with
from studies.compare.statistics import Paired
from utils.base.errors import DataError
from utils.base.paths import atomic_write

RESULTS, CURVES, IMAGES = "results.csv", "curves.csv", "images.csv"
_TEXTS = ("model", "split", "checkpoint", "flags", "start", "run", "commit", "image")
Key = tuple[int, int]  # seed; fold of a cross-validation from 1, or 0
_PAIRED = ("pictures", "difference", "low", "high", "p", "detectable")  # after the name of the metric


@dataclass
class Records:
    """Rows of a comparison.

    Attributes:
        results: a row for each run, checkpoint (best, last) and split (val, test).
        curves: a row for each run and epoch.
        images: a row for each model and image, with the mean of its metric over the runs.
        chosen: name of the metric that conclusions are about; empty: that of the task.
    """

    results: list[dict[str, Any]] = field(default_factory=list)
    curves: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    chosen: str = ""

    @property
    def models(self) -> list[str]:
        """Labels of the models in their order; the first is the baseline."""
        return list(dict.fromkeys(row["model"] for row in self.results))

    @property
    def of_files(self) -> bool:
        """Whether weight files were compared image by image, rather than runs over seeds."""
        return not any("run" in row for row in self.results)

    @property
    def seeds(self) -> list[int]:
        """Seeds in their order."""
        return list(dict.fromkeys(int(row["seed"]) for row in self.results))

    @property
    def metric_set(self) -> MetricSet:
        """The metrics of the models' task."""
        return set_with(self.results[0])

    @property
    def main(self) -> str:
        """Name of the metric that conclusions are about."""
        return self.chosen or self.metric_set.main

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics to compare."""
        compared = self.metric_set.compared
        return compared if self.main in compared else (*compared, self.main)

    @property
    def of_epochs(self) -> str:
        """Name of the metric of curves: the main one where it is measured after each epoch."""
        return self.main if self.main in self.metric_set.epochs else self.metric_set.main

    @property
    def pairs(self) -> list[Key]:
        """Seeds, with their folds, in their order: runs of two models with the same ones are paired."""
        return list(dict.fromkeys(key_of(row) for row in self.results))

    @property
    def folds(self) -> int:
        """Number of folds of a cross-validation; 0 if the splits are those of the dataset."""
        return len({fold for _, fold in self.pairs if fold})

    @property
    def classes(self) -> list[str]:
        """Names of the classes that have labels."""
        prefix, first = f"{self.metric_set.by_class}/", self.models[0]  # others have columns of differences
        rows = (row for row in self.results if row["model"] == first)
        names = (key for row in rows for key in row if key.startswith(prefix))
        return [name.removeprefix(prefix) for name in dict.fromkeys(names)]

    def splits(self) -> list[str]:
        """Return the names of the measured splits."""
        return list(dict.fromkeys(row["split"] for row in self.results))

    def metric(self, model: str, name: str, split: str = "val", checkpoint: str = "best") -> dict[Key, float]:
        """Return a column of a model's rows by seed and fold."""
        return {
            key_of(row): row[name]
            for row in self.results
            if (row["model"], row["split"], row["checkpoint"]) == (model, split, checkpoint) and name in row
        }

    def paired_over_images(self, model: str, name: str) -> Paired | None:
        """Return the difference to the first model where weights were compared image by image."""
        found = [self.info(model, f"{name} {part}") for part in _PAIRED]
        return None if found[0] is None else Paired(int(found[0]), *found[1:])

    def of_class(self, model: str, name: str, split: str = "val") -> dict[Key, float]:
        """Return the AP, or accuracy, of a class by seed and fold, for best.pt."""
        return self.metric(model, f"{self.metric_set.by_class}/{name}", split)

    def info(self, model: str, name: str) -> Any:
        """Return a value that all rows of a model share, such as its parameters; None if unknown."""
        return next((row[name] for row in self.results if row["model"] == model and name in row), None)

    def curve(self, model: str, key: Key) -> list[float]:
        """Return the metric `of_epochs` after each epoch of a run."""
        rows = [row for row in self.curves if row["model"] == model and key_of(row) == key]
        return [row[self.of_epochs] for row in sorted(rows, key=lambda row: row["epoch"])]

    def of_images(self, model: str, split: str) -> dict[str, float]:
        """Return the metric of each image alone, see `metrics_by_image`."""
        rows = (row for row in self.images if (row["model"], row["split"]) == (model, split))
        return {row["image"]: row["metric"] for row in rows}

    def add_latency(self, quartiles: Sequence[tuple[float, float, float]]) -> None:
        """Add the latency of each model, as median, lower and upper quartile in ms, to its rows."""
        for model, (median, low, high) in zip(self.models, quartiles, strict=True):
            for row in self.results:
                if row["model"] == model:
                    row |= {"latency": median, "latency_low": low, "latency_high": high}

    def write(self, folder: Path) -> None:
        """Write the csv files."""
        _write(folder / RESULTS, self.results)
        for name, rows in ((CURVES, self.curves), (IMAGES, self.images)):
            if rows:
                _write(folder / name, rows)


def read_records(folder: Path) -> Records:
    """Read the csv files that `Records.write` wrote.

    Raises:
        DataError: a file is missing or damaged.
    """
    curves, images = (_read(file) if (file := folder / name).is_file() else [] for name in (CURVES, IMAGES))
    return Records(_read(folder / RESULTS), curves, images)


def key_of(row: Mapping[str, Any]) -> Key:
    """Return the seed and the fold of a row; the fold is 0 without a cross-validation."""
    return int(row["seed"]), int(row.get("fold", 0))


def rows_of_run(
    label: str, key: Key, measured: dict[str, Any], flags: Sequence[str], start: str
) -> list[dict[str, Any]]:
    """Return the rows of results.csv for one run, from its measured.json."""
    shared = {
        "flags": shlex.join(flags),
        "start": start,
        "run": measured["key"][:16],
        "commit": str((measured.get("identity") or {}).get("commit") or "")[:12],
        "parameters": measured["parameters"],
        "gflops": measured["gflops"],
        "minutes": measured.get("minutes", 0.0),
    }
    rows = []
    for checkpoint, splits in measured["figures"].items():
        for split, found in splits.items():
            row = {"model": label, **_key_columns(key), "split": split, "checkpoint": checkpoint}
            rows.append(row | metric_columns(found) | shared)
    return rows


def paired_columns(name: str, pair: Paired) -> dict[str, float]:
    """Return the columns of results.csv for a difference over images."""
    values = (pair.n, pair.mean, pair.low, pair.high, pair.p, pair.detectable)
    return {f"{name} {part}": value for part, value in zip(_PAIRED, values, strict=True)}


def metric_columns(found: Mapping[str, Any]) -> dict[str, float]:
    """Return the columns of results.csv for one evaluation, see `metrics_of`."""
    known = set_with(found)
    columns = {name: found[key] for name, key in known.columns.items()}
    details = (*known.sizes.values(), *known.errors.values())
    columns |= {name: found[name] for name in details if name in found}
    return columns | {f"{known.by_class}/{name}": value for name, value in found[known.by_class].items()}


def curves_of_run(label: str, key: Key, measured: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of curves.csv for one run, from its measured.json."""
    rows = []
    for epoch in measured["epochs"]:
        row = {"model": label, **_key_columns(key), "epoch": int(epoch["epoch"]) + 1}
        known = set_with(epoch)
        row |= {name: epoch[known.columns[name]] for name in known.epochs}
        rows.append(row | {"loss": epoch["loss"]})
    return rows


def image_rows(label: str, by_run: Sequence[Mapping[str, Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Return the rows of images.csv for one model.

    Args:
        label: of the model.
        by_run: of each run, split -> path of an image -> its metric.
    """
    rows = []
    for split in dict.fromkeys(split for run in by_run for split in run):
        values: dict[str, list[float]] = {}
        for run in by_run:
            for path, value in run.get(split, {}).items():
                values.setdefault(path, []).append(value)
        root = os.path.commonpath([str(Path(path).parent) for path in values]) if values else ""
        for path, of_path in values.items():
            mean = sum(of_path) / len(of_path)
            name = Path(path).relative_to(root).as_posix()
            rows.append({"model": label, "split": split, "image": name, "metric": mean, "runs": len(of_path)})
    return rows


def _key_columns(key: Key) -> dict[str, int]:
    seed, fold = key
    return {"seed": seed, "fold": fold} if fold else {"seed": seed}


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_write(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {k: _written(v) if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )


def _written(value: float) -> str:
    return f"{value:.0f}" if value.is_integer() else f"{value:.6g}"  # counts, such as parameters, exactly


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_typed(row) for row in csv.DictReader(file)]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; give the folder of a comparison") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{path}: damaged ({error})") from error


def _typed(row: dict[str, str]) -> dict[str, Any]:
    return {key: value if key in _TEXTS else float(value) for key, value in row.items() if value != ""}
