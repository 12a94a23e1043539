"""The models to look into, each with a label that tells it from the others."""

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


@dataclass(frozen=True)
class LabelledModel:
    """A model in eval mode, and what figures and tables call it."""

    label: str
    model: DetectionModel


def load_labelled_models(
    weights: Sequence[str],
    cfg: Sequence[str],
    device: torch.device,
    seed: int = 0,
    labels: Sequence[str] = (),
) -> list[LabelledModel]:
    """Read the trained models of `weights`, then build the untrained ones of `cfg`.

    Args:
        weights: checkpoints.
        cfg: model yamls; each is started from `seed`.
        device: where the models are to run.
        seed: of the untrained models.
        labels: one for each model; empty: from the names of the files.

    Raises:
        ConfigError, DataError: a file that is missing, damaged or no checkpoint; not a model for colour
            images; two labels that are equal.
    """
    for name in weights:
        _check_format(name)
    paths = [locate_weights(name) for name in weights]
    models = [_trained(path, device) for path in paths] + [_untrained(name, device, seed) for name in cfg]
    if not labels:
        labels = [*unique_labels(paths), *unique_labels([Path(name) for name in cfg], " (untrained)")]
    if len(set(labels)) < len(labels):
        twice = Counter(labels).most_common(1)[0][0]
        raise ConfigError(f"--labels {twice}: given to two models; each needs its own")
    return [LabelledModel(label, model) for label, model in zip(labels, models, strict=True)]


def unique_labels(paths: Sequence[Path], ending: str = "") -> list[str]:
    """Name files by their stems; equal ones by run folder and stem, then by path, then by number.

    `a/weights/best.pt` and `b/weights/best.pt` are a/best and b/best.
    """
    files = list(dict.fromkeys(paths))
    names = [path.stem for path in files]
    for longer in (_with_run, str):
        often = Counter(names)
        names = [longer(path) if often[name] > 1 else name for path, name in zip(files, names, strict=True)]
    by_file = dict(zip(files, names, strict=True))
    seen: Counter[str] = Counter()
    labels = []
    for path in paths:
        seen[by_file[path]] += 1
        number = f" ({seen[by_file[path]]})" if seen[by_file[path]] > 1 else ""
        labels.append(f"{by_file[path]}{number}{ending}")
    return labels


def _with_run(path: Path) -> str:
    folder = path.absolute().parent
    run = folder.parent if folder.name == "weights" else folder
    return f"{run.name}/{path.stem}"


def _check_format(name: str) -> None:
    kind = format_of(name)
    if kind.name != "pt":
        raise ConfigError(
            f"--weights {name}: {kind.title} files show neither layers nor gradients; give the .pt file"
        )


def _trained(path: Path, device: torch.device) -> DetectionModel:
    model = load_for_inference(path, device, fuse=False)
    assert isinstance(model, DetectionModel)
    return _for_colour(model, str(path))


def _untrained(cfg: str, device: torch.device, seed: int) -> DetectionModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DetectionModel(cfg).eval().requires_grad_(False)
    return _for_colour(model.to(device), cfg)


def _for_colour(model: DetectionModel, origin: str) -> DetectionModel:
    if model.yaml["ch"] != 3:
        raise ConfigError(f"{origin}: reads images of {model.yaml['ch']} channels; 3 are needed here")
    return model
