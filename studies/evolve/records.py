"""What an evolution knows: each candidate's folder is the truth, tables and yamls are made from them."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from utils.base.errors import DataError
from utils.base.paths import atomic_write
from utils.base.yaml_io import plain, write_yaml
from utils.train.hyp import Hyp
from utils.train.run_dir import METRICS

TRIAL, RESULT, RUN = "trial.json", "result.json", "run"


@dataclass(frozen=True)
class Trial:
    """A candidate that is to be trained."""

    index: int
    hyp: Hyp
    flags: tuple[str, ...]  # of train.py, but for --hyp, place and device

    def folder(self, home: Path) -> Path:
        """Where it is trained, in the folder of its evolution."""
        return folder_of(home, self.index)

    def save(self, home: Path) -> Path:
        """Note what is proposed; what another evolution left in this place, on a worker, is removed."""
        folder = self.folder(home)
        content = plain(asdict(self))
        if folder.exists() and _read(folder / TRIAL) != content:
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_yaml(folder / "hyp.yaml", self.hyp)
        _write(folder / TRIAL, content)
        return folder


@dataclass(frozen=True)
class Result:
    """What a candidate gave.

    Attributes:
        index: its number, from 0.
        hyp: its hyperparameters.
        metrics: by the names of `METRICS`; empty if it failed.
        minutes: that it took.
        failure: why it failed; empty if it did not.
        same_as: another candidate with the same hyperparameters, whose result this is; -1: none.
    """

    index: int
    hyp: Hyp
    metrics: dict[str, float] = field(default_factory=dict)
    minutes: float = 0.0
    failure: str = ""
    same_as: int = -1

    @property
    def map50(self) -> float:
        """mAP at IoU 0.5; 0 if it failed."""
        return self.metrics.get("metrics/mAP_0.5", 0.0)

    @property
    def map50_95(self) -> float:
        """mAP at IoU 0.5 to 0.95; 0 if it failed."""
        return self.metrics.get("metrics/mAP_0.5:0.95", 0.0)

    def save(self, home: Path) -> None:
        """Write it, and remove what only a training that goes on would need."""
        folder = folder_of(home, self.index)
        _write(folder / RESULT, asdict(self))
        shutil.rmtree(folder / RUN / "weights", ignore_errors=True)


class Journal:
    """All candidates of an evolution, as its folder has them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.results: dict[int, Result] = {}
        for folder in home.glob("candidates/*"):
            if (result := read_result(folder)) is not None:
                self.results[result.index] = result

    def first(self, count: int) -> list[Result] | None:
        """The first results; None if one of them is still to come."""
        if any(index not in self.results for index in range(count)):
            return None
        return [self.results[index] for index in range(count)]

    def prefix(self) -> list[Result]:
        """The results up to the first that is still to come."""
        count = next(index for index in range(len(self.results) + 1) if index not in self.results)
        return [self.results[index] for index in range(count)]

    def proposed(self, index: int) -> Hyp | None:
        """What was proposed as a candidate before, by an evolution that was stopped."""
        content = _read(folder_of(self.home, index) / TRIAL)
        return None if content is None else dict(content["hyp"])

    def record(self, result: Result) -> None:
        """Keep a result."""
        result.save(self.home)
        self.results[result.index] = result

    def forget(self, index: int) -> None:
        """Let a candidate be trained again."""
        (folder_of(self.home, index) / RESULT).unlink(missing_ok=True)
        self.results.pop(index, None)

    def in_order(self) -> list[Result]:
        """All results by their number."""
        return [self.results[index] for index in sorted(self.results)]


def write_table(results: Sequence[Result], path: Path) -> None:
    """Write evolve.csv: the metrics, then the hyperparameters, a row for each candidate."""
    names = [*METRICS, *results[0].hyp]
    lines = ["".join(f"{name:>20s}," for name in names)]
    for result in results:
        missing = 0.0 if result.failure else math.nan
        values = [result.metrics.get(name, missing) for name in METRICS] + list(result.hyp.values())
        lines.append("".join(f"{value:20.5g}," for value in values))
    with atomic_write(path, "w", encoding="utf-8") as file:
        file.writelines(line.rstrip(",") + "\n" for line in lines)


def write_best(best: Result, fitness: float, count: int, path: Path) -> None:
    """Write hyp_evolve.yaml: the best hyperparameters, ready for --hyp, with their results above them."""
    import yaml

    head = [f"The best of {count} candidates: number {best.index}, fitness {fitness:.5g}."]
    head += [f"{name}: {best.metrics[name]:.5g}" for name in METRICS if name in best.metrics]
    text = "".join(f"# {line}\n" for line in head) + "\n"
    with atomic_write(path, "w", encoding="utf-8") as file:
        file.write(text + yaml.safe_dump(best.hyp, sort_keys=False))


def write_population(results: Sequence[Result], size: int, path: Path) -> None:
    """Write evolve_population.yaml: each individual as gen{generation}number{number}."""
    write_yaml(path, {f"gen{r.index // size}number{r.index % size}": r.hyp for r in results})


def read_result(folder: Path) -> Result | None:
    """The result of the candidate in a folder, if there is one."""
    content = _read(folder / RESULT)
    if content is None:
        return None
    try:
        return Result(**content)
    except TypeError as error:
        raise _damaged(folder / RESULT, error) from error


def folder_of(home: Path, index: int) -> Path:
    """Folder of a candidate."""
    return home / "candidates" / f"{index:04d}"


def _write(path: Path, content: Any) -> None:
    with atomic_write(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)


def _read(path: Path) -> dict[str, Any] | None:
    """The content of a json file; None if it is not there."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _damaged(path, error) from error
    return content


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: damaged ({error}); remove it, and its candidate is made again")
