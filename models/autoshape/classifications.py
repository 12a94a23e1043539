"""Classifications of AutoShape: the probabilities of all classes, to print, show and save."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor

from models.autoshape.results import Results, import_package
from utils.base.timing import Stopwatch
from utils.tasks.classify.top import caption_lines, describe_top, draw_lines, top_classes

if TYPE_CHECKING:
    import pandas
    import supervision


class Classifications(Results):
    """Classifications of one call to `AutoShape`.

    Attributes beside those of `Results`:
        probs: (B, nc) probabilities, a row for each image.
    """

    folder: ClassVar[str] = "runs/predict-cls/exp"
    stages: ClassVar[Sequence[str]] = ("pre-process", "inference", "post-process")

    def __init__(
        self,
        ims: list[np.ndarray],
        probs: Tensor,
        files: list[str],
        times: Sequence[Stopwatch] = (),
        names: dict[int, str] | None = None,
        shape: tuple[int, ...] = (),
    ) -> None:
        super().__init__(ims, files, times, names, shape)
        self.probs = probs

    @cached_property
    def top(self) -> Tensor:
        """Probability and class of the five most probable classes of each image, (B, 5, 2)."""
        return top_classes(self.probs)

    @property
    def top1(self) -> list[int]:
        """The most probable class of each image."""
        return [int(index) for index in self.top[:, 0, 1]]

    @property
    def labels(self) -> list[str]:
        """The name of the most probable class of each image."""
        return [self._name(index) for index in self.top1]

    def single(self, index: int, image: np.ndarray) -> Classifications:
        row = self.probs[index : index + 1]
        return Classifications([image], row, [self.files[index]], self.times, self.names, self.s)

    def describe(self, index: int) -> str:
        """Return the five most probable classes with their probabilities."""
        return describe_top(self.top[index].tolist(), self.names)

    def draw(self, index: int, image: np.ndarray, labels: bool) -> None:
        """Write the five most probable classes into the image."""
        draw_lines(image, caption_lines(self.top[index].tolist() if labels else (), self.names))

    def pandas(self) -> Tables:
        """Return the most probable classes as data frames: `results.pandas().top[0]`."""
        return Tables(self)

    def to_supervision(self) -> list[supervision.Classifications]:
        """Return a `supervision.Classifications` with all classes for each image."""
        sv = import_package("supervision", "results.to_supervision()")
        numbers = np.arange(self.probs.shape[1])
        return [sv.Classifications(numbers, confidence=row) for row in self.probs.detach().cpu().numpy()]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.n} images, {self.probs.shape[1]} classes>"


class Tables:
    """Classifications as `pandas.DataFrame`."""

    def __init__(self, results: Classifications) -> None:
        self._results = results
        self._pandas = import_package("pandas", "results.pandas()")

    @cached_property
    def top(self) -> list[pandas.DataFrame]:
        """Per image the most probable classes: confidence, class, name."""
        return [self._table(rows) for rows in self._results.top.detach().cpu().double().numpy()]

    @cached_property
    def probs(self) -> pandas.DataFrame:
        """The probabilities of all classes: a row for each image, a column for each class."""
        names = [self._results._name(index) for index in range(self._results.probs.shape[1])]
        values = self._results.probs.detach().cpu().double().numpy()
        return self._pandas.DataFrame(values, index=self._results.files, columns=names)

    def _table(self, rows: np.ndarray) -> pandas.DataFrame:
        classes = rows[:, 1].astype(int)
        names = self._pandas.Series([self._results._name(index) for index in classes], dtype="str")
        return self._pandas.DataFrame({"confidence": rows[:, 0], "class": classes, "name": names})
