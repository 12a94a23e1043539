"""Results of AutoShape for any task: images to print, show and save, one after another."""

from __future__ import annotations

import importlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from torch import Tensor

from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.base.names import UniqueNames
from utils.base.paths import claim_folder
from utils.base.timing import STAGES, Stopwatch
from utils.plots.annotator import write_image


class Results(ABC):
    """Results of one call to `AutoShape`.

    Attributes:
        ims: the images, (H, W, 3) uint8 RGB; after `render` with what was found, in new arrays.
        files: names to save the images with, such as `bus.jpg`; `image0.jpg` for arrays.
        names: class names by index.
        times: stopwatches of the stages: pre-processing, inference, and what follows.
        t: milliseconds of each per image.
        n: number of images.
        s: shape of the network's input (B, 3, H, W).
    """

    folder: ClassVar[str] = "runs/detect/exp"  # where images are saved
    stages: ClassVar[Sequence[str]] = STAGES

    def __init__(
        self,
        ims: list[np.ndarray],
        files: list[str],
        times: Sequence[Stopwatch],
        names: dict[int, str] | None,
        shape: tuple[int, ...],
    ) -> None:
        self.ims = list(ims)
        self._rendered: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # drawn image and original, by index
        self.files = files
        self.names = names or {}
        self.times = tuple(times)
        self.n = len(ims)
        clocks = [clock if isinstance(clock, Stopwatch) else Stopwatch() for clock in times or (None,) * 3]
        self.t = tuple(1e3 * clock.total / max(self.n, 1) for clock in clocks)
        self.s = shape

    @abstractmethod
    def describe(self, index: int) -> str:
        """Return what was found in an image, in words."""

    @abstractmethod
    def draw(self, index: int, image: np.ndarray, labels: bool) -> None:
        """Draw what was found into an image (H, W, 3) BGR, with names if `labels`."""

    @abstractmethod
    def single(self, index: int, image: np.ndarray) -> Any:
        """Return the results of one image, whose pixels are `image`."""

    def tolist(self) -> list[Any]:
        """Return the results of each image, of the same class."""
        singles = []
        for index, image in enumerate(self.originals()):
            single = self.single(index, image)
            single.t = self.t
            if index in self._rendered:
                single._rendered[0], single.ims[0] = self._rendered[index], self.ims[index]
            singles.append(single)
        return singles

    @property
    def imgs(self) -> list[np.ndarray]:
        """The images; their name until v6.1."""
        return self.ims

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def __getitem__(self, index: int) -> Any:
        return self.tolist()[index]

    def __str__(self) -> str:
        lines = [
            f"image {index + 1}/{self.n}: {image.shape[0]}x{image.shape[1]} {self.describe(index)}"
            for index, image in enumerate(self.ims)
        ]
        speeds = ", ".join(f"{value:.1f}ms {stage}" for value, stage in zip(self.t, self.stages, strict=True))
        return "\n".join((*lines, f"Speed: {speeds} per image at shape {self.s}"))

    def print(self) -> None:
        """Print what was found in each image, and the speed."""
        print(self)

    def render(self, labels: bool = True) -> list[np.ndarray]:
        """Draw what was found, with its names if `labels`; return the images, RGB, which `ims` has then.

        The arrays that were given to the model do not change. Crops, and what is saved or shown later, are
        made from the images without drawings.
        """
        for index, bgr in enumerate(self._drawn(labels)):
            drawn = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
            self._rendered[index] = drawn, self.original(index)
            self.ims[index] = drawn
        return list(self.ims)

    def original(self, index: int) -> np.ndarray:
        """Return an image (H, W, 3) RGB as it was before `render`."""
        drawn, original = self._rendered.get(index, (None, None))
        return original if original is not None and self.ims[index] is drawn else self.ims[index]

    def originals(self) -> list[np.ndarray]:
        """Return all images as they were before `render`."""
        return [self.original(index) for index in range(len(self.ims))]

    def save(
        self,
        labels: bool | str | Path = True,
        save_dir: str | Path | None = None,
        exist_ok: bool = False,
    ) -> Path:
        """Save the images with what was found in a folder, and return it.

        Args:
            labels: draw names and confidences.
            save_dir: the folder; if it exists, the first free one of exp2, exp3, ... By default `folder`.
            exist_ok: write to it even if it exists.
        """
        if isinstance(labels, str | Path):  # the first argument until v5.0
            save_dir, labels = labels, True
        folder, names = claim_folder(Path(save_dir or self.folder), exist_ok), UniqueNames()
        for image, file in zip(self._drawn(labels), self.files, strict=True):
            write_image(names.unique_path(folder / file), image)
        LOG.info(f"Saved {self.n} images to {folder}")
        return folder

    def show(self, labels: bool = True) -> None:
        """Show the images with what was found: in a notebook, else in windows until a key is pressed.

        Raises:
            ConfigError: there is no screen, or this OpenCV cannot show windows.
        """
        if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
            from IPython.display import display
            from PIL import Image

            for image in self.render(labels):
                display(Image.fromarray(image))
            return
        instead = "use results.save() for files, or results.render() for arrays"
        if sys.platform.startswith("linux") and not (os.getenv("DISPLAY") or os.getenv("WAYLAND_DISPLAY")):
            raise ConfigError(f"results.show(): there is no screen here; {instead}")  # OpenCV would abort
        try:
            for image, file in zip(self._drawn(labels), self.files, strict=True):
                cv2.imshow(file, image)
            cv2.waitKey(0)
            cv2.destroyAllWindows()
        except cv2.error as error:
            raise ConfigError(
                f"results.show(): this OpenCV cannot show windows (opencv-python-headless?); {instead}"
            ) from error

    def _drawn(self, labels: bool) -> Iterator[np.ndarray]:
        """Yield copies of the images in BGR with what was found."""
        for index, image in enumerate(self.originals()):
            bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            self.draw(index, bgr, labels)
            yield bgr

    def _name(self, index: float | Tensor) -> str:
        return str(self.names.get(int(index), int(index)))


def import_package(package: str, needed_by: str) -> Any:
    """Import an optional package.

    Raises:
        ConfigError: it is not installed; the message says what needs it.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(f"{needed_by} needs {package}: pip install {package}") from error
