"""The images to look at: read, fitted to the network, and ready to be drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.base.errors import ConfigError
from utils.data.letterbox import letterbox
from utils.ops.boxes import scale_boxes
from utils.sources.frame import Frame
from utils.sources.source import FileSource, find_source

_LONGEST = 1280  # pixels of an image in a figure


@dataclass(frozen=True)
class ModelInput:
    """One image for the network and for the reader.

    Attributes:
        name: for files, its own in this run.
        title: for readers.
        image: (H, W, 3) uint8 RGB, large ones made smaller.
        images: (1, 3, h, w) in 0-1, with no more border than the stride asks for.
        inner: rows and columns of `images` without that border.
    """

    name: str
    title: str
    image: np.ndarray
    images: Tensor
    inner: tuple[slice, slice]

    def cut(self, values: np.ndarray) -> np.ndarray:
        """Enlarge a map (any h, w) to the network's input, and leave out the border."""
        height, width = self.images.shape[2:]
        if values.shape != (height, width):
            values = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
        return values[self.inner]

    def place(self, detections: np.ndarray) -> np.ndarray:
        """Carry boxes (n, 4+) from the network's input to `image`."""
        return scale_boxes(self.images.shape[2:], detections.copy(), self.image.shape[:2])


def open_images(source: str, vid_stride: int = 1) -> FileSource:
    """Find the files of a source.

    Raises:
        ConfigError: it does not exist, or is a camera, stream or screen.
        DataError: it holds no image and no video.
    """
    found = find_source(source, vid_stride)
    if not isinstance(found, FileSource):
        raise ConfigError(f"--source {source}: a file, folder, glob or list is needed, not a live source")
    return found


def frames_of(source: FileSource, limit: int) -> Iterator[Frame]:
    """The first `limit` images, as they were read."""
    return islice(source.read(), limit)


class ModelInputs:
    """Make views, with a name of its own for each."""

    def __init__(self, imgsz: tuple[int, int], stride: int, device: torch.device) -> None:
        self.imgsz, self.stride, self.device = imgsz, stride, device
        self._taken: set[str] = set()

    def make(self, frame: Frame) -> ModelInput:
        """Fit a frame to the network, without changing its shape."""
        number = f"_{frame.frame_number}" if frame.frame_number else ""
        fitted, ratios, pad = letterbox(frame.image, self.imgsz, auto=True, stride=self.stride)
        height, width = frame.image.shape[:2]
        left, top = (round(half - 0.1) for half in pad)  # letterbox puts an odd pixel behind
        inner_w, inner_h = (max(round(n * ratios[0]), 1) for n in (width, height))
        return ModelInput(
            name=self._claim(f"{frame.path.stem}{number}"),
            title=f"{frame.path.name}{f', frame {frame.frame_number}' if number else ''}",
            image=_for_paper(frame.image),
            images=self._tensor(fitted),
            inner=(slice(top, top + inner_h), slice(left, left + inner_w)),
        )

    def full(self, frame: Frame) -> Tensor:
        """Fit a frame to all of --imgsz, so that maps of different images can be averaged."""
        return self._tensor(letterbox(frame.image, self.imgsz, auto=False)[0])

    def _tensor(self, image: np.ndarray) -> Tensor:
        rgb = np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)[None])
        return torch.from_numpy(rgb).to(self.device).float() / 255

    def _claim(self, stem: str) -> str:
        name, number = stem, 1
        while name.lower() in self._taken:
            number += 1
            name = f"{stem}-{number}"
        self._taken.add(name.lower())
        return name


def _for_paper(image: np.ndarray) -> np.ndarray:
    """BGR to RGB, at most `_LONGEST` pixels long."""
    gain = _LONGEST / max(image.shape[:2])
    if gain < 1:
        height, width = (max(round(n * gain), 1) for n in image.shape[:2])
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[..., ::-1])
