"""Load the models to visualize, each with a unique label, and the images to show them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from models.official_weights import locate_weights
from models.weights import load_for_inference
from models.yolo import make_model
from studies.explain.layers import Network
from utils.base.errors import ConfigError
from utils.base.formats import format_of
from utils.base.names import UniqueNames
from utils.data.letterbox import letterbox, to_tensor
from utils.ops.boxes import scale_boxes
from utils.sources.frame import Frame
from utils.sources.source import FileSource, find_source
from utils.tasks.task import Task, get_task

_LONGEST = 1280  # pixels of an image in a figure
_WHOLE = slice(None), slice(None)  # rows and columns of an input without padding


@dataclass(frozen=True)
class LabelledModel:
    """A model in eval mode, and its name in figures and tables."""

    label: str
    model: Network


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
            channels; two labels are equal; some models have boxes, others classify.
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
    _check_tasks(dict(zip(labels, models, strict=True)))
    return [LabelledModel(label, model) for label, model in zip(labels, models, strict=True)]


def _check_tasks(models: Mapping[str, Network]) -> None:
    """Raise ConfigError for models that take images in different ways."""
    first, *others = models
    task = get_task(models[first].task)
    for label in others:
        other = get_task(models[label].task)
        if other.draws_boxes != task.draws_boxes:
            nouns = f"{first} is a {task.noun}, {label} a {other.noun}"
            raise ConfigError(f"{nouns}, which sees another part of an image: show them in two runs")


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


def _trained(path: Path, device: torch.device) -> Network:
    model = load_for_inference(path, device, fuse=False)
    assert isinstance(model, Network)
    return _checked(model, str(path))


def _untrained(cfg: str, device: torch.device, seed: int) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model(cfg).eval().requires_grad_(False)
    return _checked(model.to(device), cfg)


def _checked(model: Network, origin: str) -> Network:
    if len(model.model) == 1:
        raise ConfigError(f"{origin}: a model of torchvision is a single layer; expected a model of a yaml")
    if model.yaml["ch"] != 3:
        raise ConfigError(f"{origin}: takes images of {model.yaml['ch']} channels; expected 3")
    return model


@dataclass(frozen=True)
class ModelInput:
    """One image, for the network and for figures.

    Attributes:
        name: unique in this run, for file names.
        title: for figures and tables.
        image: (H, W, 3) uint8 RGB, the part that the models see; large images are reduced.
        images: (1, 3, h, w) in 0-1, letterboxed with the least padding that the stride allows; for
            classification the central square, normalized.
        inner: rows and columns of `images` without the padding.
    """

    name: str
    title: str
    image: np.ndarray
    images: Tensor
    inner: tuple[slice, slice]

    def crop(self, values: np.ndarray) -> np.ndarray:
        """Enlarge a map (any h, w) to the network's input, and crop the padding."""
        height, width = self.images.shape[2:]
        if values.shape != (height, width):
            values = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
        return values[self.inner]

    def scale_boxes(self, detections: np.ndarray) -> np.ndarray:
        """Scale boxes (n, 4+) from the network's input to `image`."""
        return scale_boxes(self.images.shape[2:], detections.copy(), self.image.shape[:2])


def open_images(source: str, vid_stride: int = 1) -> FileSource:
    """Find the files of a source.

    Raises:
        ConfigError: the source does not exist, or is a camera, stream or screen.
        DataError: it contains no image and no video.
    """
    opened = find_source(source, vid_stride)
    if not isinstance(opened, FileSource):
        raise ConfigError(f"--source {source}: expected a file, folder, glob or list, not a live source")
    return opened


def frames_of(source: FileSource, limit: int) -> Iterator[Frame]:
    """Yield the first `limit` images at full size."""
    return islice(source.read(), limit)


class ModelInputs:
    """Factory of model inputs: prepares frames as the models take them, and gives them unique names.

    Args:
        imgsz: height and width of the network's input.
        stride: largest stride of the models.
        device: of the tensors.
        task: of the models; detection by default.
    """

    def __init__(
        self, imgsz: tuple[int, int], stride: int, device: torch.device, task: Task | None = None
    ) -> None:
        self.imgsz, self.stride, self.device, self.task = imgsz, stride, device, task or Task()
        self._names = UniqueNames()

    def make(self, frame: Frame) -> ModelInput:
        """Prepare a frame; for models with boxes with the least padding."""
        number = f"_{frame.frame_number}" if frame.frame_number else ""
        images, inner = self._fit(frame.image) if self.task.draws_boxes else (self.full(frame), _WHOLE)
        return ModelInput(
            name=self._names.unique(f"{frame.path.stem}{number}"),
            title=f"{frame.path.name}{f', frame {frame.frame_number}' if number else ''}",
            image=_reduce(self.task.visible_part(frame.image)),
            images=images,
            inner=inner,
        )

    def _fit(self, image: np.ndarray) -> tuple[Tensor, tuple[slice, slice]]:
        """Return an image, letterboxed with the least padding, and its rows and columns in the result."""
        fitted, ratios, pad = letterbox(image, self.imgsz, auto=True, stride=self.stride)
        height, width = image.shape[:2]
        left, top = (round(half - 0.1) for half in pad)  # letterbox puts an odd pixel right and at the bottom
        inner_w, inner_h = (max(round(n * ratios[0]), 1) for n in (width, height))
        inner = (slice(top, top + inner_h), slice(left, left + inner_w))
        return to_tensor([fitted], self.device), inner

    def full(self, frame: Frame) -> Tensor:
        """Fit a frame to all of --imgsz, so that maps of different images can be averaged."""
        return self.task.prepare_image(frame.image, self.imgsz).to(self.device)


def _reduce(image: np.ndarray) -> np.ndarray:
    """Convert BGR to RGB, with at most `_LONGEST` pixels on the longer side."""
    gain = _LONGEST / max(image.shape[:2])
    if gain < 1:
        height, width = (max(round(n * gain), 1) for n in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[..., ::-1])
