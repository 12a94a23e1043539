"""Plan the runs of a comparison, and train those that are not complete.

A digest of everything that decides the result identifies each run.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.compare.compare_options import Comparison, Variant
from studies.compare.metrics import METRICS, set_with
from studies.jobs.job import Job
from studies.jobs.pool import JobPool, Runner
from utils.base.errors import ConfigError, YoloError
from utils.base.log import LOG, Bar
from utils.base.paths import atomic_write, file_sha256, relative_to_cwd
from utils.base.processes import LOG_FILE, module_command
from utils.base.yaml_io import plain
from utils.tasks.task import get_task

if TYPE_CHECKING:
    from utils.data.dataset_yaml import DataSpec
    from utils.train.train_options import TrainOptions

RULES = 1  # raise it when a change of training or measuring changes the results of runs
# Options of train.py that the digest leaves out: most affect only speed and output folders; weights, cfg,
# data, hyp and seed are in it by their content.
_NOT_IN_DIGEST = {
    *("weights", "cfg", "attention", "data", "hyp", "seed"),
    *("device", "workers", "local_rank", "cache", "download"),
    *("project", "name", "exist_ok", "save_period", "save_steps", "nosave", "noplots", "resume"),
    *("loggers", "entity", "upload_dataset", "bbox_interval", "artifact_alias"),
}
RUN, MEASURED = "run.json", "measured.json"
Measured = dict[str, Any]  # content of measured.json


def plan_runs(comparison: Comparison) -> list[Run]:
    """Return all runs of a comparison, seed by seed, so that first results arrive early.

    Raises:
        ConfigError, DataError: a yaml, weights or data that cannot be used.
    """
    variants = comparison.variants
    data = [get_task(variant.options.model_task).read_val_data(variant.options) for variant in variants]
    settings = [_settings(variant, spec) for variant, spec in zip(variants, data, strict=True)]
    if len({known["pictures"]["val"] for known in settings}) > 1:
        raise ConfigError("--data: all models of a comparison need the same validation images")
    runs = []
    for seed in comparison.seeds:
        for fold, yaml, pictures in _folds_of(comparison, data, seed):
            for variant, spec, known in zip(variants, data, settings, strict=True):
                decides = known | {"seed": seed} | ({"pictures": pictures} if pictures else {})
                key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
                flags = (*comparison.common, *variant.flags, "--seed", str(seed))
                flags += ("--data", str(yaml)) if yaml else ()
                splits = ("val", "test") if spec.test else ("val",)
                task = variant.options.model_task
                runs.append(Run(variant.label, seed, key, flags, splits, decides, task, fold))
    by_key = {run.key: run for run in runs}
    if len(by_key) < len(runs):
        first = next(run for run in runs if by_key[run.key] is not run)
        raise ConfigError(f"--cfg: {first.label} and {by_key[first.key].label} are the same training")
    return runs


def _folds_of(
    comparison: Comparison, data: Sequence[DataSpec], seed: int
) -> Iterator[tuple[int, Path | None, dict[str, Any]]]:
    """Yield number, data yaml and digests of the images of each fold; (0, None, {}) without folds."""
    if not comparison.folds:
        yield 0, None, {}
        return
    from studies.compare.folds import write_folds
    from utils.data.dataset_yaml import read_data_yaml

    if len({spec.yaml for spec in data}) > 1:
        raise ConfigError("--folds: all models need the same --data")
    for fold, yaml in enumerate(write_folds(data[0], comparison.folds, seed, comparison.project), 1):
        yield fold, yaml, _digests_of_images(read_data_yaml(yaml))


def _settings(variant: Variant, data: DataSpec) -> dict[str, Any]:
    """Return everything that decides the result of a run, except its seed."""
    import torch

    from models.user_blocks import load_blocks
    from models.yolo import make_model
    from utils.train.build import find_weights, make_config

    options = variant.options
    blocks = load_blocks(options.blocks)
    task = get_task(options.model_task)
    checkpoint = find_weights(options, task)
    config = make_config(options, task, checkpoint)
    make_model(config, nc=data.nc)  # fails now rather than after hours of training
    config.pop("yaml_file", None)
    # Defaults are left out, so that a new option does not change the digests of earlier runs.
    defaults = type(options)().as_dict()
    changes = {
        key: value
        for key, value in options.as_dict().items()
        if key not in _NOT_IN_DIGEST and value != defaults[key]
    }
    if blocks is not None:
        changes["blocks"] = blocks.sha256  # its content, not its path
    return plain(
        {
            "rules": RULES,
            "torch": torch.__version__,
            "device": _device_type(options),
            "model": config,
            "weights": file_sha256(checkpoint.path) if checkpoint and task.uses_weights(options) else None,
            "hyp": task.read_hyp(options),
            "names": data.names,
            "pictures": _digests_of_images(data),
            "options": changes,
        }
    )


def _device_type(options: TrainOptions) -> str:
    import torch

    if options.device in ("cpu", "mps"):
        return options.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def _digests_of_images(data: DataSpec) -> dict[str, str | None]:
    return {split: _digest_of_images(data, split) for split in ("train", "val", "test")}


def _digest_of_images(data: DataSpec, split: str) -> str | None:
    """Return the SHA-256 of a split's image paths, image sizes in bytes, and labels."""
    from utils.data.coco_source import CocoImages, image_paths
    from utils.data.image_lists import label_path, list_images
    from utils.data.shards.index import open_shards
    from utils.data.shards.urls import ShardList

    sources = getattr(data, split)
    if not sources:
        return None
    digest = hashlib.sha256()
    if shards := [url for source in sources if isinstance(source, ShardList) for url in source.urls]:
        table, _ = open_shards(shards, split)
        return hashlib.sha256(str([shard.sha256 for shard in table.shards]).encode()).hexdigest()
    for file in {source.file for source in sources if isinstance(source, CocoImages)}:
        digest.update(file.read_bytes())
    for image in list_images(image_paths(sources), data.root):
        path = image.relative_to(data.root) if image.is_relative_to(data.root) else image
        labels = label_path(image)
        digest.update(f"{path}\0{image.stat().st_size}\0".encode("utf-8", "surrogateescape"))
        digest.update(labels.read_bytes() if labels.is_file() else b"none")
    return digest.hexdigest()


def check_metric(name: str, runs: Sequence[Run]) -> None:
    """Raise ConfigError unless the runs will measure a metric of this name; empty is the usual one."""
    METRICS[runs[0].task].check_metric(name, runs[0].settings["names"].values())


def start_of(run: Run) -> str:
    """Return the name and digest of the weights that a run starts from, or `scratch`, and of its --blocks."""
    digest, options = run.settings.get("weights"), get_task(run.task).parse_train_options(run.train)
    start = f"{Path(options.weights).name} ({digest[:8]})" if digest else "scratch"
    blocks = run.settings.get("options", {}).get("blocks")
    return f"{start}, with {Path(options.blocks).name} ({blocks[:8]})" if blocks else start


@dataclass(frozen=True)
class Run(Job[Measured]):
    """Training of one model with one seed."""

    label: str
    seed: int
    key: str  # digest of everything that decides the result
    train: tuple[str, ...]  # flags of its train script, except those of the folder, device and threads
    splits: tuple[str, ...]  # to be measured
    settings: dict[str, Any]  # what `key` is the digest of
    task: str = Job.task
    fold: int = 0  # of a cross-validation, from 1

    returned_files = ("results.csv", LOG_FILE, "weights/best.pt", "weights/last.pt", MEASURED)

    @property
    def title(self) -> str:
        return f"{self.label}, seed {self.seed}" + (f", fold {self.fold}" if self.fold else "")

    @property
    def data(self) -> str:
        """The data yaml."""
        return str(get_task(self.task).parse_train_options(self.train).data)

    def folder(self, home: Path) -> Path:
        return home / "runs" / f"{self.key[:16]}"

    def train_flags(self, home: Path) -> tuple[str, ...]:
        return self.train

    def measure_command(self, home: Path) -> list[str]:
        return module_command("studies.compare.measure", str(self.folder(home)))

    def save(self, home: Path) -> Path:
        folder = self.folder(home)
        folder.mkdir(parents=True, exist_ok=True)
        content = asdict(self)
        content["facts"] = content.pop("settings")  # the name in the file format
        (folder / RUN).write_text(json.dumps(content, indent=1), encoding="utf-8")
        return folder

    def completed(self, home: Path) -> Measured | None:
        file = self.folder(home) / MEASURED
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def finish(self, home: Path, minutes: float) -> Measured:
        measured = self.measured(home) | {"minutes": round(minutes, 2)}
        with atomic_write(self.folder(home) / MEASURED, "w", encoding="utf-8") as file:
            json.dump(measured, file, indent=1)
        return measured

    def measured(self, home: Path) -> Measured:
        """Return the measurements of a complete run."""
        measured = self.completed(home)
        assert measured is not None
        return measured

    def weights(self, home: Path) -> Path:
        """Return the path of the best weights."""
        return self.folder(home) / "weights" / "best.pt"


def train_all(runs: Sequence[Run], project: Path, make_runner: Callable[[], Runner]) -> None:
    """Train and measure the runs that are not complete yet.

    Args:
        runs: of a comparison.
        project: folder of all comparisons.
        make_runner: called only if there is anything to train.

    Raises:
        YoloError: a run failed; runs that were started are finished, no other is started.
    """
    missing = [run for run in runs if run.completed(project) is None]
    if len(missing) < len(runs):
        LOG.info(f"{len(runs) - len(missing)} of {len(runs)} runs are complete already")
    if not missing:
        return
    started, runner = time.monotonic(), make_runner()
    count, folder = len(missing), relative_to_cwd(project / "runs")
    LOG.info(f"training {count} runs, {runner.jobs} at a time, in {folder}")
    with JobPool[Measured](runner) as pool:
        for run in missing:
            pool.submit(run)
        try:
            for done, (title, measured) in enumerate(Bar(_finished(pool), total=count), 1):
                left = (time.monotonic() - started) / 60 * (count - done) / done
                LOG.info(f"{done}/{count} {title}: {_describe(measured)}, about {left:.0f} min left")
        except YoloError:
            pool.cancel()
            raise
        except BaseException:
            LOG.warning("stopping; the same command resumes the comparison")
            pool.stop()
            raise


def _finished(pool: JobPool[Measured]) -> Iterator[tuple[str, Measured]]:
    """Yield the titles and results of runs as they end; the first failure is raised."""
    while pool:
        for run, future in pool.finished():
            yield run.title, future.result()


def _describe(measured: Measured) -> str:
    best = measured["figures"]["best"]["val"]
    minutes = measured.get("minutes", 0.0)
    known = set_with(best)
    found = ", ".join(f"{name} {best[known.columns[name]]:.3f}" for name in known.compared)
    return f"{found} in {minutes:.1f} min"
