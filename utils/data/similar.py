"""Find images of one split that are nearly the same as images of another, which a model has seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np

from utils.base.errors import DataError
from utils.base.log import LOG, Bar
from utils.base.processes import usable_cores
from utils.data.coco_source import image_paths
from utils.data.dataset_yaml import DataSpec
from utils.data.image_lists import list_images
from utils.data.images import read_image

LEAST = 0.98  # correlation of two thumbnails from which on images are nearly the same
SIDE = 32  # pixels of a thumbnail
_SPLITS = ("train", "val", "test")
_CHUNK = 2048  # images that are compared at a time
_FLAT = 2.0  # grey levels of standard deviation; images with less have nothing to compare


@dataclass(frozen=True)
class SimilarPair:
    """Two images of different splits that are nearly the same."""

    splits: tuple[str, str]
    images: tuple[Path, Path]
    correlation: float  # of the thumbnails
    mirrored: bool  # the second one is flipped from left to right


def find_similar(data: DataSpec, least: float = LEAST) -> list[SimilarPair]:
    """Compare the images of all splits of a dataset; shards are left out.

    Thumbnails are compared, without their mean and contrast, so that other sizes, compression and brightness
    do not hide a copy; copies that are flipped from left to right are found as well, cropped ones are not.

    Args:
        data: the dataset.
        least: least correlation.

    Returns:
        Pairs, the most similar first; of each image of the later split the most similar one.
    """
    found = {split: _thumbnails(data, split) for split in _SPLITS if image_paths(getattr(data, split))}
    pairs = [
        pair
        for first, second in combinations(found, 2)
        for pair in _compare(first, *found[first], second, *found[second], least)
    ]
    return sorted(pairs, key=lambda pair: -pair.correlation)


def _thumbnails(data: DataSpec, split: str) -> tuple[list[Path], np.ndarray]:
    """Return the images of a split, and their thumbnails (n, SIDE * SIDE) float32 of mean 0 and norm 1."""
    images = list(list_images(image_paths(getattr(data, split)), data.root))
    with ThreadPoolExecutor(usable_cores()) as pool:
        made = list(Bar(pool.map(_thumbnail, images), f"{split}: {len(images)} images", total=len(images)))
    kept = [index for index, thumbnail in enumerate(made) if thumbnail is not None]
    rows = [thumbnail for thumbnail in made if thumbnail is not None]
    return [images[index] for index in kept], np.array(rows, np.float32).reshape(len(kept), SIDE * SIDE)


def _thumbnail(path: Path) -> np.ndarray | None:
    """Return the thumbnail of an image; None if it cannot be read, or is of one colour."""
    try:
        grey = cv2.cvtColor(read_image(path), cv2.COLOR_BGR2GRAY)
    except DataError as error:
        LOG.warning(f"{error}; not compared")
        return None
    small = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    return small / np.linalg.norm(small) if small.std() >= _FLAT else None


def _compare(
    first: str, images: Sequence[Path], thumbnails: np.ndarray,
    second: str, others: Sequence[Path], other_thumbnails: np.ndarray, least: float,
) -> Iterator[SimilarPair]:  # fmt: skip
    """Yield for each image of the second split the most similar one of the first, if it is similar enough."""
    if not len(thumbnails):
        return
    mirrored = thumbnails.reshape(-1, SIDE, SIDE)[:, :, ::-1].reshape(len(thumbnails), -1)
    for start in range(0, len(others), _CHUNK):
        chunk = other_thumbnails[start : start + _CHUNK]
        best = [chunk @ rows.T for rows in (thumbnails, mirrored)]
        for row in range(len(chunk)):
            flip = int(best[1][row].max() > best[0][row].max())
            index = int(best[flip][row].argmax())
            correlation = float(best[flip][row, index])
            if correlation >= least:
                pair = images[index], others[start + row]
                yield SimilarPair((first, second), pair, correlation, bool(flip))
