"""Tables and yamls that an evolution writes from its results, and their upload to a bucket (`--bucket`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from studies.evolve.trials import Result
from utils.base.errors import ConfigError, one_line
from utils.base.log import LOG
from utils.base.paths import atomic_write
from utils.base.yaml_io import write_yaml
from utils.train.run_dir import METRICS

TABLE, BEST, POPULATION = "evolve.csv", "hyp_evolve.yaml", "evolve_population.yaml"


def write_table(results: Sequence[Result], path: Path) -> None:
    """Write evolve.csv: a row for each candidate, with its metrics and its hyperparameters."""
    names = [*METRICS, *results[0].hyp]
    lines = ["".join(f"{name:>20s}," for name in names)]
    for result in results:
        missing = 0.0 if result.failure else math.nan
        values = [result.metrics.get(name, missing) for name in METRICS] + list(result.hyp.values())
        lines.append("".join(f"{value:20.5g}," for value in values))
    with atomic_write(path, "w", encoding="utf-8") as file:
        file.writelines(line.rstrip(",") + "\n" for line in lines)


def write_best(best: Result, fitness: float, count: int, path: Path) -> None:
    """Write hyp_evolve.yaml: the best hyperparameters, ready for --hyp, with their metrics as comments."""
    import yaml

    head = [f"The best of {count} candidates: number {best.index}, fitness {fitness:.5g}."]
    head += [f"{name}: {best.metrics[name]:.5g}" for name in METRICS if name in best.metrics]
    text = "".join(f"# {line}\n" for line in head) + "\n"
    with atomic_write(path, "w", encoding="utf-8") as file:
        file.write(text + yaml.safe_dump(best.hyp, sort_keys=False))


def write_population(results: Sequence[Result], size: int, path: Path) -> None:
    """Write evolve_population.yaml: each individual as gen{generation}number{number}."""
    write_yaml(path, {f"gen{r.index // size}number{r.index % size}": r.hyp for r in results})


class Bucket:
    """A folder at a URL that fsspec can open; a bare name is a bucket of Google Cloud Storage.

    Args:
        url: such as `gs://bucket/folder`, `s3://bucket`, or `bucket`.
        home: folder of the evolution; its name is appended to the URL.

    Raises:
        ConfigError: the protocol is unknown, or needs a package that is not installed.
    """

    def __init__(self, url: str, home: Path) -> None:
        import fsspec

        base = url if "://" in url else f"gs://{url}"
        self.url = f"{base.rstrip('/')}/{home.name}"
        self.home = home
        try:
            self._files, self._folder = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"--bucket {url}: cannot be opened ({one_line(error)})") from error

    def copy(self) -> None:
        """Copy the tables that exist. Errors are logged; the next call tries again."""
        try:
            self._files.makedirs(self._folder, exist_ok=True)
            for name in (TABLE, BEST):
                if (self.home / name).is_file():
                    self._files.put_file(str(self.home / name), f"{self._folder}/{name}")
        except Exception as error:  # each file system has its own errors; none should end the evolution
            LOG.warning(f"--bucket: nothing was copied to {self.url} ({one_line(error)[:200]})")
