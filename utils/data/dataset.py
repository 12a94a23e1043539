"""The images of a split with their labels, ready for the network: letterboxed, or augmented for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from utils.base.errors import DataError
from utils.base.log import LOG
from utils.base.seeds import generator
from utils.data.augment import (
    MIXUP_BETA,
    adjust_hsv,
    copy_paste,
    draw_flips,
    draw_hsv_gains,
    draw_pastes,
    flip,
    load_extra_transforms,
    mixup,
)
from utils.data.letterbox import letterbox
from utils.data.mosaic import TILES, MosaicDraws, mosaic4
from utils.data.packed import PackedRows
from utils.data.perspective import PerspectiveDraws, random_perspective, seen_part
from utils.data.samples import Sample, SampleReader
from utils.data.scan import load_labels
from utils.data.shards.urls import Source
from utils.ops.boxes import xyxy2xywhn


@dataclass(frozen=True)
class RectPlan:
    """Which image goes into which batch, and how large each batch is."""

    order: np.ndarray  # (N,) int: the images from wide to tall
    batch: np.ndarray  # (N,) int: batch of each, in that order
    shapes: np.ndarray  # (batches, 2) int: height, width


def plan_rect(sizes_wh: np.ndarray, batch_size: int, imgsz: int, stride: int, pad: float) -> RectPlan:
    """Sort images by shape and find the least rectangle for each batch.

    Args:
        sizes_wh: (N, 2) width and height of the images.
        batch_size: images in a batch.
        imgsz: longer side of the rectangle before rounding, pixels.
        stride: sides become multiples of it.
        pad: strides to add on each side before rounding up; 0.5 is what validation has always had.
    """
    tallness = sizes_wh[:, 1] / sizes_wh[:, 0]
    order = tallness.argsort(kind="stable")
    batch = np.arange(len(order)) // batch_size
    starts = np.arange(0, len(order), batch_size)
    widest = np.minimum.reduceat(tallness[order], starts)
    tallest = np.maximum.reduceat(tallness[order], starts)
    # Fractions of imgsz: a batch of wide images is as high as the tallest of them needs, and vice versa.
    sides = np.stack((np.minimum(tallest, 1), np.minimum(1 / widest, 1)), 1)
    return RectPlan(order, batch, np.ceil(sides * imgsz / stride + pad).astype(int) * stride)


PARTNERS = 2 * TILES - 1  # other images that a sample may need: two mosaics less itself
Shapes = tuple[tuple[int, int], tuple[tuple[float, float], tuple[float, float]]]
_Made = tuple[int, np.ndarray, np.ndarray, Shapes | None]  # which image, BGR, labels (n, 5), see `Item`


class SampleKey(NamedTuple):
    """Which sample: together with the seed it decides every pixel."""

    epoch: int
    image_index: int
    repeat: int = 0  # distinguishes repetitions within an epoch, which weighted sampling brings
    partners: tuple[int, ...] = ()  # PARTNERS images to combine with, where the sampler chooses them


class Item(NamedTuple):
    """One image for the network."""

    image: Tensor  # (3, H, W) uint8 RGB
    labels: Tensor  # (n, 6) float32: free for the index in the batch, class, xywhn
    path: str
    # (h0, w0) of the file, ((gain_h, gain_w), (pad_x, pad_y)) of its way into the input; None for a mosaic
    shapes: Shapes | None


class DetectionDataset(Dataset[Item]):
    """Labelled images of one split.

    Samples depend on nothing but (seed, epoch, index): neither on the order of access, nor on who asks.

    Args:
        sources: folders and lists of images, or shards.
        imgsz: side of the input; the longer side of every image is scaled to it.
        batch_size: of the loader; `rect` needs it.
        stride: batch shapes are multiples of it.
        augment: whether to train on the images; `hyp` says how.
        hyp: hyperparameters (formats, section 2).
        rect: rectangular batches, in a fixed order, without mosaics.
        cache: ram or disk; by default small sets are kept in memory.
        fast_decode: decode large JPEGs at a reduced size; their pixels differ a little.
        single_cls: every object counts as class 0.
        pad: see `plan_rect`.
        seed: of all augmentations.
        names: classes that labels may have; None allows any.
        prefix: put before messages.

    Raises:
        DataError: no usable image, or nothing labelled to train on.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        imgsz: int,
        *,
        batch_size: int = 16,
        stride: int = 32,
        augment: bool = False,
        hyp: Mapping[str, float] | None = None,
        rect: bool = False,
        cache: str | None = None,
        fast_decode: bool = False,
        single_cls: bool = False,
        pad: float = 0.0,
        seed: int = 0,
        names: Mapping[int, str] | None = None,
        prefix: str = "",
    ) -> None:
        files = load_labels(sources, None if single_cls else names, prefix)
        self.batch_shapes: np.ndarray | None = None
        self._batch = np.zeros(0, int)
        if rect:
            plan = plan_rect(files.sizes, batch_size, imgsz, stride, pad)
            files = files.take(plan.order)
            self._batch, self.batch_shapes = plan.batch, plan.shapes
        if single_cls:
            files.labels = _as_one_class(files.labels)
        self.imgsz = imgsz
        self.batch_size = batch_size
        self.augment = augment
        self.hyp = dict(hyp or {})
        self.rect = rect
        self.seed = seed
        self.image_files = files.images
        self.labels = files.labels
        self.segments = files.polygons
        self.shapes = files.sizes
        self.content = files.content
        self._check_labels(sources, prefix)
        self._extra = load_extra_transforms(prefix) if augment else None
        self._reader = SampleReader(
            files,
            imgsz,
            smooth=cv2.INTER_LINEAR if augment else cv2.INTER_AREA,
            cache=cache,
            fast_decode=fast_decode,
            prefix=prefix,
        )

    def _check_labels(self, sources: Sequence[Source], prefix: str) -> None:
        if self.labels.counts.any():
            return
        message = f"{', '.join(map(str, sources))}: no labels found (formats: one .txt an image)"
        if self.augment:
            raise DataError(f"{message}; there is nothing to train on")
        LOG.warning(f"{prefix}{message}")

    def __len__(self) -> int:
        return len(self.image_files)

    def __getitem__(self, key: int | tuple[int, int] | SampleKey) -> Item:
        """Return the sample of a key; a plain index means epoch 0."""
        key = SampleKey(0, key) if isinstance(key, int | np.integer) else SampleKey(*key)
        return self.sample(key, np.empty((3, *self.input_hw(key.image_index)), np.uint8))

    def input_hw(self, image_index: int) -> tuple[int, int]:
        """(height, width) that the network gets image number `image_index` in."""
        if self.batch_shapes is None:
            return self.imgsz, self.imgsz
        height, width = self.batch_shapes[self._batch[image_index]].tolist()
        return height, width

    def sample(self, key: SampleKey, room: np.ndarray) -> Item:
        """Make the sample of a key, its image in `room` (3, H, W) uint8, whose size `input_hw` tells."""
        index, image, labels, shapes = self._augmented(key) if self.augment else self._plain(key.image_index)
        assert image.shape == (*room.shape[1:], 3)
        cv2.split(image, mv=tuple(room[::-1]))  # BGR to RGB
        rows = np.zeros((len(labels), 6), np.float32)
        rows[:, 1:] = labels
        return Item(torch.from_numpy(room), torch.from_numpy(rows), str(self.image_files[index]), shapes)

    def _plain(self, index: int) -> _Made:
        index, sample, shapes = self._letterboxed(index)
        return index, sample.image, _normalized(sample), shapes

    def _augmented(self, key: SampleKey) -> _Made:
        rng = generator(self.seed, *key[:3])
        index = key.image_index
        shapes: Shapes | None = None
        if not self.rect and rng.random() < self.hyp["mosaic"]:
            sample = self._mosaic(rng, index, key.partners[: TILES - 1])
            if rng.random() < self.hyp["mixup"]:
                other, *partners = key.partners[TILES - 1 :] or [int(rng.integers(len(self)))]
                blend = self._mosaic(rng, other, partners)
                sample = mixup(sample, blend, rng.beta(MIXUP_BETA, MIXUP_BETA))
        else:
            index, sample, shapes = self._letterboxed(index)
            sample = random_perspective(sample, PerspectiveDraws.draw(rng, self.hyp))
        image, labels = self._recolour_and_flip(rng, sample)
        return index, image, labels, shapes

    def _recolour_and_flip(self, rng: np.random.Generator, sample: Sample) -> tuple[np.ndarray, np.ndarray]:
        labels = _normalized(sample)
        image = sample.image if self._extra is None else self._extra(rng, sample.image)
        image = adjust_hsv(image, draw_hsv_gains(rng, self.hyp))
        up_down, left_right = draw_flips(rng, self.hyp)
        return flip(image, labels, up_down, left_right), labels

    def _mosaic(self, rng: np.random.Generator, index: int, partners: Sequence[int]) -> Sample:
        """Four images around a corner, copied and warped to one image of `imgsz`."""
        draws = MosaicDraws.draw(rng, index, len(self), self.imgsz, partners)
        tiles, size = [self._reader.sample(i)[1] for i in draws.indices], self.imgsz
        border = -(size // 2)
        if self.hyp["copy_paste"] and any(tile.polygons for tile in tiles):
            sample = mosaic4(tiles, draws.centre_yx, size)
            sample = copy_paste(sample, draw_pastes(rng, len(sample.boxes), self.hyp["copy_paste"]))
            return random_perspective(sample, PerspectiveDraws.draw(rng, self.hyp), (border, border))
        warp = PerspectiveDraws.draw(rng, self.hyp)
        seen = seen_part(warp, (2 * size, 2 * size), (2 * (size + border), 2 * (size + border)))
        sample = mosaic4(tiles, draws.centre_yx, size, seen)
        return random_perspective(sample, warp, (border, border))

    def _letterboxed(self, index: int) -> tuple[int, Sample, Shapes]:
        """One image, scaled and padded to the shape of its batch."""
        shape = self.input_hw(index)
        index, sample, (h0, w0) = self._reader.sample(index)
        h, w = sample.image.shape[:2]
        image, (gain, _), (pad_x, pad_y) = letterbox(sample.image, shape, auto=False, scaleup=self.augment)
        move = np.array((pad_x, pad_y), np.float32)
        boxes = sample.boxes.copy()
        boxes[:, 1:] = boxes[:, 1:] * gain + np.tile(move, 2)
        polygons = [points * gain + move for points in sample.polygons]
        shapes = (h0, w0), ((gain * h / h0, gain * w / w0), (pad_x, pad_y))
        return index, Sample(image, boxes, polygons), shapes


def _normalized(sample: Sample) -> np.ndarray:
    """Labels (n, 5) of a sample: class, xywhn clipped to the image."""
    labels = sample.boxes.astype(np.float32)
    height, width = sample.image.shape[:2]
    labels[:, 1:] = xyxy2xywhn(labels[:, 1:], width, height, clip=True, eps=1e-3)
    return labels


def _as_one_class(labels: PackedRows) -> PackedRows:
    rows = labels.rows.copy()
    rows[:, 0] = 0
    return PackedRows(rows, labels.starts, labels.counts)
