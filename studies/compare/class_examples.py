"""What classifiers say about example images, and how far they differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from utils.tasks.task import get_task

if TYPE_CHECKING:
    from models.backends.base import Backend
    from utils.data.scan import LabelledFiles

_RIGHT, _WRONG = (70, 160, 0), (0, 60, 220)  # BGR of frames
_LONGEST, _FRAME = 320, 6  # pixels of an image on the page, and of the frame around it


@dataclass(frozen=True)
class Guess:
    """The class that a model gives an image, or that of its folder."""

    number: int
    probability: float = 1.0


class ClassView:
    """Guesses of classifiers for the images of one split.

    Args:
        files: the images and their classes, see `load_split`.
        names: of the classes.
        imgsz: side of the network's input.
        truth: label of what the folders say.
    """

    def __init__(self, files: LabelledFiles, names: Mapping[int, str], imgsz: int, truth: str) -> None:
        self.files = files
        self.names, self.imgsz, self.truth_label = names, imgsz, truth
        self._numbers = {name: number for number, name in names.items()}

    def truth(self, index: int) -> Guess:
        """Return the class of an image."""
        return Guess(int(self.files.labels[index][0, 0]))

    def find(self, backend: Backend, image: np.ndarray) -> Guess:
        """Return the most probable class of an image (H, W, 3) BGR."""
        import torch

        images = get_task(backend.task).prepare_image(image, (self.imgsz, self.imgsz)).to(backend.device)
        with torch.inference_mode():
            chances = backend(images.half() if backend.fp16 else images)[0].float().softmax(0)
        best = int(chances.argmax())
        # Of the dataset: the model may have its classes in another order.
        return Guess(self._numbers.get(backend.names[best], best), float(chances[best]))

    def difference(self, a: Guess, b: Guess) -> float:
        """Return the confidence of two models in different classes, 0-2; 0 if they agree."""
        return 0.0 if a.number == b.number else a.probability + b.probability

    def describe(self, guesses: Mapping[str, Guess], pair: tuple[str, str]) -> str:
        """Return what the models of a pair say."""
        return ", ".join(f"{self.names[guesses[label].number]} for {label}" for label in pair)

    def panels(
        self, image: np.ndarray, guesses: Mapping[str, Guess], pair: tuple[str, str]
    ) -> tuple[tuple[str, Any], ...]:
        """Draw the image for each model, in a frame that is green if it is right; captions say its class."""
        true = guesses[self.truth_label].number
        return tuple(
            (self._caption(label, guess), _framed(image, _RIGHT if guess.number == true else _WRONG))
            for label, guess in guesses.items()
        )

    def _caption(self, label: str, guess: Guess) -> str:
        chance = "" if label == self.truth_label else f" {guess.probability:.2f}"
        return f"{label}: {self.names[guess.number]}{chance}"


def _framed(image: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    gain = _LONGEST / max(image.shape[:2])
    height, width = (max(round(side * gain), 1) for side in image.shape[:2])
    kind = cv2.INTER_AREA if gain < 1 else cv2.INTER_LINEAR
    resized = cv2.resize(image, (width, height), interpolation=kind)
    return cv2.copyMakeBorder(resized, _FRAME, _FRAME, _FRAME, _FRAME, cv2.BORDER_CONSTANT, value=color)
