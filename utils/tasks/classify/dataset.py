"""Images of class folders, ready for the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from utils.base.seeds import generator
from utils.data.dataset import Item, SampleKey
from utils.data.image_cache import make_cache
from utils.data.samples import ImageReader
from utils.data.scan import LabelledFiles
from utils.tasks.classify.transforms import augment, center_crop


class ClassificationDataset(Dataset[Item]):
    """The images of one split with their classes; a sample has a row (0, class) instead of boxes.

    Args:
        files: the images, see `load_split`.
        imgsz: side of the images, pixels.
        hyp: augmentations, see `augment`; None for centre crops.
        cache: ram, disk, or None: ram if the images are few. Cached are whole images for training, and the
            resized squares for centre crops.
        seed: of the augmentations.
        prefix: text before log messages.
    """

    rect = False  # all images of a batch are squares of one size
    masks = None

    def __init__(
        self,
        files: LabelledFiles,
        imgsz: int,
        *,
        batch_size: int = 16,
        hyp: Mapping[str, Any] | None = None,
        cache: str | None = None,
        seed: int = 0,
        prefix: str = "",
    ) -> None:
        self.imgsz = imgsz
        self.batch_size = batch_size
        self.hyp = None if hyp is None else dict(hyp)
        self.seed = seed
        self.image_files = files.images
        self.labels = files.labels
        self.shapes = files.sizes
        self.content = files.content
        self.numbers = files.labels.rows[files.labels.starts, 0].astype(np.int64)  # (N,) of each image
        self._reader = _Reader(files, None if self.hyp is not None else imgsz, cache, prefix)

    def __len__(self) -> int:
        return len(self.image_files)

    def __getitem__(self, key: int | SampleKey) -> Item:
        """Return the sample of a key; a plain index means epoch 0."""
        key = SampleKey(0, int(key)) if isinstance(key, int | np.integer) else SampleKey(*key)
        return self.sample(key, np.empty((3, self.imgsz, self.imgsz), np.uint8))

    def input_hw(self, image_index: int) -> tuple[int, int]:
        """Return the input size (height, width) of an image."""
        return self.imgsz, self.imgsz

    def sample(self, key: SampleKey, out: np.ndarray) -> Item:
        """Make the sample of a key; its image is written to `out` (3, imgsz, imgsz) uint8."""
        index, image, _ = self._reader.read(key.image_index)
        if self.hyp is not None:
            image = augment(generator(self.seed, *key[:3]), image, self.imgsz, self.hyp)
        cv2.split(image, mv=tuple(out[::-1]))  # BGR to RGB
        row = torch.tensor([[0.0, float(self.numbers[index])]])
        return Item(torch.from_numpy(out), row, str(self.image_files[index]), None)


class _Reader(ImageReader):
    """Reader of whole images, or of their central squares of a size."""

    def __init__(self, files: LabelledFiles, square: int | None, cache: str | None, prefix: str) -> None:
        super().__init__(files)
        self.square = square
        whole = files.sizes[:, ::-1].astype(int)
        shapes_hw = whole if square is None else np.full_like(whole, square)
        tag = "whole" if square is None else f"square {square}"
        self._cache = make_cache(cache, files.images, shapes_hw, tag, prefix)

    def _read(self, index: int) -> tuple[np.ndarray, tuple[int, int]]:
        width, height = self.files.sizes[index].tolist()
        if self._cache is not None and (image := self._cache.get(index)) is not None:
            return image, (height, width)
        image = self.files.images.read_image(index)
        size = image.shape[0], image.shape[1]
        if self.square is not None:
            image = center_crop(image, self.square)
        if self._cache is not None:
            self._cache.put(index, image)
        return image, size
