"""Samples: an image with its objects in pixels, read from files, on its way through the augmentations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from utils.base.errors import DataError
from utils.base.log import LOG
from utils.data.image_cache import make_cache
from utils.data.scan import LabelledFiles
from utils.data.shards.store import DownloadError

_NO_POINTS = np.zeros((0, 2), np.float32)


@dataclass
class Sample:
    """An image with its objects in pixels."""

    image: np.ndarray  # (H, W, 3) uint8 BGR
    boxes: np.ndarray  # (n, 5) float32: class, x1, y1, x2, y2
    # One (k, 2) polygon per box, k = 0 where only the box is known; or empty for all boxes.
    polygons: Sequence[np.ndarray] = field(default_factory=list)


def join_polygons(samples: Sequence[tuple[int, Sequence[np.ndarray]]]) -> list[np.ndarray]:
    """Concatenate the polygons of several images, given as (number of boxes, polygons) of each."""
    if not any(polygons for _, polygons in samples):
        return []
    joined: list[np.ndarray] = []
    for count, polygons in samples:
        joined += polygons if polygons else [_NO_POINTS] * count
    return joined


def with_rectangles(sample: Sample) -> Sample:
    """Return the sample with a polygon for every box: its rectangle where only the box is known."""
    polygons = sample.polygons or [_NO_POINTS] * len(sample.boxes)
    complete = [
        points if len(points) else box[[1, 2, 3, 2, 3, 4, 1, 4]].reshape(4, 2)
        for points, box in zip(polygons, sample.boxes, strict=True)
    ]
    return Sample(sample.image, sample.boxes, complete)


class ImageReader:
    """Reader of images by index; one that cannot be read any more is replaced by the next readable one.

    Args:
        files: images and labels.
    """

    def __init__(self, files: LabelledFiles) -> None:
        self.files = files
        self._unreadable: set[int] = set()  # images that were reported

    def read(self, index: int) -> tuple[int, np.ndarray, tuple[int, int]]:
        """Read an image.

        Returns:
            The index of the image that was read (another one if image `index` is unreadable), the image,
            which must not be written to, and (height, width) of the file.

        Raises:
            DataError: no image can be read.
        """
        count = len(self.files.images)
        for candidate in ((index + step) % count for step in range(count)):
            try:
                return candidate, *self._read(candidate)
            except DownloadError:  # the next images would fail too, after hours of repeated tries
                raise
            except DataError as error:
                if candidate not in self._unreadable:
                    LOG.warning(f"{error}; the next image is used instead")
                self._unreadable.add(candidate)
        folder = self.files.images[index].parent
        raise DataError(f"{folder}: none of the {count} images can be read any more")

    def _read(self, index: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Return an image as the dataset needs it, and (height, width) of its file."""
        raise NotImplementedError


class SampleReader(ImageReader):
    """Reader of samples by index, see `ImageReader`.

    Args:
        files: images and labels.
        imgsz: length of the longer side after resizing, pixels.
        smooth: OpenCV interpolation for shrinking; small images are enlarged bilinearly.
        cache: see `make_cache`.
        fast_decode: decode JPEGs of at least twice `imgsz` at a half, quarter or eighth of their size.
        prefix: text before log messages.
    """

    def __init__(
        self,
        files: LabelledFiles,
        imgsz: int,
        smooth: int,
        cache: str | None = None,
        fast_decode: bool = False,
        prefix: str = "",
    ) -> None:
        super().__init__(files)
        self.imgsz = imgsz
        self.smooth = smooth
        self.fast_decode = fast_decode
        shapes_hw = np.array([scaled_hw(h, w, imgsz) for w, h in files.sizes.astype(int).tolist()])
        tag = f"{imgsz} {smooth}{' fast' if fast_decode else ''}"
        self._cache = make_cache(cache, files.images, shapes_hw, tag, prefix)

    def sample(self, index: int) -> tuple[int, Sample, tuple[int, int]]:
        """Read a sample.

        Returns:
            The index of the image that was read (another one if image `index` is unreadable), the sample,
            whose image must not be written to, and (height, width) of the file.

        Raises:
            DataError: no image can be read.
        """
        index, image, original_hw = self.read(index)
        height, width = image.shape[:2]
        size = np.array((width, height), np.float32)
        polygons = [points * size for points in self.files.polygons[index]]
        return index, Sample(image, _to_pixels(self.files.labels[index], size), polygons), original_hw

    def _read(self, index: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Return an image resized to `imgsz`, and (height, width) of its file."""
        width, height = self.files.sizes[index].astype(int).tolist()
        if self._cache is not None and (image := self._cache.get(index)) is not None:
            return image, (height, width)
        image, (h0, w0) = self._decode(index, height, width)
        h, w = scaled_hw(h0, w0, self.imgsz)
        if (h, w) != image.shape[:2]:
            how = cv2.INTER_LINEAR if self.imgsz > max(h0, w0) else self.smooth
            image = cv2.resize(image, (w, h), interpolation=how)
        if self._cache is not None and (h0, w0) == (height, width):
            self._cache.put(index, image)
        return image, (h0, w0)

    def _decode(self, index: int, height: int, width: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Decode an image, at a reduced size if allowed; return it and (height, width) of the file.

        `height` and `width` are the size of the file when it was scanned; it may have been replaced since.
        """
        shrink = least_shrink(max(height, width), self.imgsz) if self.fast_decode else 1
        image = self.files.images.read_image(index, shrink)
        if shrink > 1 and image.shape[:2] == (-(-height // shrink), -(-width // shrink)):
            return image, (height, width)
        if shrink > 1 and image.shape[:2] != (height, width):  # a new file, whose full size is not known
            image = self.files.images.read_image(index)
        return image, (image.shape[0], image.shape[1])


def scaled_hw(height: int, width: int, imgsz: int) -> tuple[int, int]:
    """Return (height, width) with the longer side scaled to `imgsz`, rounded up as in the original."""
    ratio = imgsz / max(height, width)
    return min(math.ceil(height * ratio), imgsz), min(math.ceil(width * ratio), imgsz)


def least_shrink(side: int, wanted: int) -> int:
    """Return the largest factor (8, 4, 2 or 1) by which `side` can be divided and stay at least `wanted`."""
    return next((shrink for shrink in (8, 4, 2) if side >= shrink * wanted), 1)


def _to_pixels(labels: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Convert labels (n, 5), class and xywhn, to class and xyxy in an image of `size` (2,) width, height."""
    boxes = np.empty_like(labels)
    boxes[:, 0] = labels[:, 0]
    centre, half = labels[:, 1:3] * size, labels[:, 3:] * size / 2
    np.subtract(centre, half, out=boxes[:, 1:3])
    np.add(centre, half, out=boxes[:, 3:])
    return boxes
