"""What has to be trained: one run for each model and seed, known by everything that decides its result."""

from __future__ import annotations

import hashlib
import json
from argparse import Namespace
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.compare.compare_options import Comparison, Variant
from utils.base.errors import ConfigError
from utils.base.paths import file_sha256
from utils.base.yaml_io import plain

if TYPE_CHECKING:
    from utils.data.dataset_yaml import DataSpec

RULES = 1  # raise it when training or measuring changes what a run gives
# Options of train.py that say where and how fast, not what: they do not make another run.
_INDIFFERENT = {
    *("weights", "cfg", "attention", "data", "hyp", "seed", "device", "workers", "cache", "project", "name"),
    *(
        "exist_ok",
        "save_period",
        "save_steps",
        "nosave",
        "noplots",
        "resume",
        "local_rank",
        "download",
        "given",
        "loggers",
        "entity",
        "upload_dataset",
        "bbox_interval",
        "artifact_alias",
    ),
}


@dataclass(frozen=True)
class Run:
    """A training of one model with one seed."""

    label: str
    seed: int
    key: str  # digest of all that decides its result
    train: tuple[str, ...]  # flags of train.py, but for place, device and threads
    splits: tuple[str, ...]  # to be measured
    settings: dict[str, Any]  # what the key is made of

    def folder(self, project: Path) -> Path:
        """Where the run is, whichever comparison asked for it first."""
        return project / "runs" / f"{self.key[:16]}"

    def save(self, project: Path) -> Path:
        """Write run.json into the run's folder."""
        folder = self.folder(project)
        folder.mkdir(parents=True, exist_ok=True)
        content = asdict(self)
        content["facts"] = content.pop("settings")  # the name in the file format
        (folder / "run.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
        return folder


def plan_runs(comparison: Comparison) -> list[Run]:
    """All runs of a comparison, seed by seed, so that a first answer is there early.

    Raises:
        ConfigError, DataError: yaml, weights or data that cannot be used.
    """
    from utils.data.dataset_yaml import read_data_yaml

    data = [
        read_data_yaml(variant.options.data, allow_download=variant.options.download)
        for variant in comparison.variants
    ]
    settings = [_settings(variant, spec) for variant, spec in zip(comparison.variants, data, strict=True)]
    if len({known["pictures"]["val"] for known in settings}) > 1:
        raise ConfigError("--data: all models of a comparison need the same validation images")
    runs = []
    for seed in comparison.opt.seeds:
        for variant, spec, known in zip(comparison.variants, data, settings, strict=True):
            decided = known | {"seed": seed}
            text = json.dumps(decided, sort_keys=True)
            splits = ("val", "test") if spec.test else ("val",)
            flags = (*comparison.common, *variant.flags, "--seed", str(seed))
            key = hashlib.sha256(text.encode()).hexdigest()
            runs.append(Run(variant.label, seed, key, flags, splits, decided))
    keys = {run.key: run for run in runs}
    if len(keys) < len(runs):
        first = next(run for run in runs if keys[run.key] is not run)
        raise ConfigError(f"--cfg: {first.label} and {keys[first.key].label} are the same training")
    return runs


def _settings(variant: Variant, data: DataSpec) -> dict[str, Any]:
    """All that decides what a run gives, but for its seed."""
    import torch

    from models.yolo import DetectionModel
    from utils.train.hyp import load_hyp
    from utils.train.setup import find_weights, make_config
    from utils.train.train_options import parse_options

    opt = variant.options
    checkpoint = find_weights(opt)
    config = make_config(opt, checkpoint)
    DetectionModel(config, nc=data.nc)  # one that cannot be built is told now, not after hours of training
    config.pop("yaml_file", None)
    usual = vars(parse_options([]))  # left out, so that a flag of the future makes no other run of today's
    kept = {key: value for key, value in vars(opt).items() if key not in _INDIFFERENT and value != usual[key]}
    return plain(
        {
            "rules": RULES,
            "torch": torch.__version__,
            "device": _kind_of(opt),
            "model": config,
            "weights": file_sha256(checkpoint.path) if checkpoint is not None else None,
            "hyp": load_hyp(opt.hyp, opt.label_smoothing),
            "names": data.names,
            "pictures": {split: _images(data, split) for split in ("train", "val", "test")},
            "options": kept,
        }
    )


def _kind_of(opt: Namespace) -> str:
    import torch

    if opt.device in ("cpu", "mps"):
        return str(opt.device)
    return "cuda" if torch.cuda.is_available() else "cpu"


def _images(data: DataSpec, split: str) -> str | None:
    """Digest of a split: its images' places and sizes, its labels to the letter."""
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
    for image in list_images(sources):
        place = image.relative_to(data.root) if image.is_relative_to(data.root) else image
        labels = label_path(image)
        digest.update(f"{place}\0{image.stat().st_size}\0".encode("utf-8", "surrogateescape"))
        digest.update(labels.read_bytes() if labels.is_file() else b"none")
    return digest.hexdigest()
