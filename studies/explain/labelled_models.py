"""Load the models to visualize, each with a unique label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from models.weights import load_for_inference, locate_weights
from models.yolo import DetectionModel
from utils.base.errors import ConfigError
from utils.base.formats import format_of
from utils.base.names import UniqueNames


@dataclass(frozen=True)
class LabelledModel:
    """A model in eval mode, and its name in figures and tables."""

    label: str
    model: DetectionModel


def load_labelled_models(
    weights: Sequence[str],
    cfg: Sequence[str],
    device: torch.device,
    seed: int = 0,
    labels: Sequence[str] = (),
) -> list[LabelledModel]:
    """Load the trained models of `weights`, then build the untrained ones of `cfg`.

    Args:
        weights: checkpoints.
        cfg: model yamls.
        device: of the models.
        seed: random seed of each untrained model.
        labels: one for each model; empty: from the names of the files.

    Raises:
        ConfigError, DataError: a file is missing, damaged or not a checkpoint; a model does not take 3
            channels; two labels are equal.
    """
    for name in weights:
        _check_format(name)
    paths = [locate_weights(name) for name in weights]
    models = [_trained(path, device) for path in paths] + [_untrained(name, device, seed) for name in cfg]
    if not labels:
        labels = [*unique_labels(paths), *unique_labels([Path(name) for name in cfg], " (untrained)")]
    if len(set(labels)) < len(labels):
        twice = Counter(labels).most_common(1)[0][0]
        raise ConfigError(f"--labels {twice}: given to two models; labels must be unique")
    return [LabelledModel(label, model) for label, model in zip(labels, models, strict=True)]


def unique_labels(paths: Sequence[Path], ending: str = "") -> list[str]:
    """Return a label for each file: its stem; if equal, run folder and stem; else its path, then a number.

    `a/weights/best.pt` and `b/weights/best.pt` become a/best and b/best.
    """
    files = list(dict.fromkeys(paths))
    names = [path.stem for path in files]
    for longer in (_with_run, str):
        often = Counter(names)
        names = [longer(path) if often[name] > 1 else name for path, name in zip(files, names, strict=True)]
    by_file = dict(zip(files, names, strict=True))
    unique = UniqueNames(reserved=[f"{name}{ending}" for name in names])
    return [unique.unique(by_file[path], ending) for path in paths]


def _with_run(path: Path) -> str:
    folder = path.absolute().parent
    run = folder.parent if folder.name == "weights" else folder
    return f"{run.name}/{path.stem}"


def _check_format(name: str) -> None:
    kind = format_of(name)
    if kind.name != "pt":
        raise ConfigError(
            f"--weights {name}: {kind.title} files have neither layers nor gradients; give the .pt file"
        )


def _trained(path: Path, device: torch.device) -> DetectionModel:
    model = load_for_inference(path, device, fuse=False)
    assert isinstance(model, DetectionModel)
    return _check_channels(model, str(path))


def _untrained(cfg: str, device: torch.device, seed: int) -> DetectionModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DetectionModel(cfg).eval().requires_grad_(False)
    return _check_channels(model.to(device), cfg)


def _check_channels(model: DetectionModel, origin: str) -> DetectionModel:
    if model.yaml["ch"] != 3:
        raise ConfigError(f"{origin}: takes images of {model.yaml['ch']} channels; expected 3")
    return model
