"""The labelled images of a split, ready for the network: letterboxed, or augmented for training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

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
    TILES,
    MosaicDraws,
    adjust_hsv,
    copy_paste,
    draw_flips,
    draw_hsv_gains,
    draw_pastes,
    flip,
    load_extra_transforms,
    mixup,
    mosaic4,
)
from utils.data.coco_source import CocoImages
from utils.data.image_lists import label_path
from utils.data.letterbox import letterbox
from utils.data.missing_labels import explain_missing_labels, find_missing_labels
from utils.data.packed import PackedPaths, PackedRows
from utils.data.perspective import PerspectiveDraws, random_perspective, visible_region
from utils.data.samples import Sample, SampleReader, with_rectangles
from utils.data.scan import load_labels
from utils.data.shards.urls import ImageSource
from utils.ops.boxes import xyxy2xywhn

PARTNERS = 2 * TILES - 1  # other images that a sample may need: two mosaics, less the image itself
_CHECKED = 1000  # images without labels that are searched for a reason


class SampleKey(NamedTuple):
    """The identifier of a sample: together with the seed it determines every pixel."""

    epoch: int
    image_index: int
    repeat: int = 0  # number of earlier samples of this image in the epoch (weighted sampling)
    partners: tuple[int, ...] = ()  # PARTNERS images to combine with, if the sampler chooses them


class RatioPad(NamedTuple):
    """The scale and padding from an image file to the network's input."""

    gain_hw: tuple[float, float]
    pad_xy: tuple[float, float]  # pixels on the left and on top


class Shapes(NamedTuple):
    """The size of an image file, and how it was fitted into the input: to scale boxes back."""

    original_hw: tuple[int, int]
    ratio_pad: RatioPad


class Item(NamedTuple):
    """One image for the network, and its labels."""

    image: Tensor  # (3, H, W) uint8 RGB
    labels: Tensor  # (n, 6) float32: 0 (for the index in the batch), class, xywhn
    path: str
    shapes: Shapes | None  # None for a mosaic
    masks: Tensor | None = None  # (1 or n, h, w) integers, for tasks with masks; see `MaskFormat`


class MaskFormat(Protocol):
    """Draws the masks of a sample, see `utils.tasks.segment.rasterize`."""

    @property
    def overlap(self) -> bool:
        """Whether the masks of an image are one map."""

    def draw(self, polygons: Sequence[np.ndarray], shape_hw: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Return masks (1 or n, h, w), and the order (n,) of the labels that they expect."""


class _Prepared(NamedTuple):
    """A sample that is ready but for its memory format."""

    image_index: int
    image: np.ndarray  # BGR
    labels: np.ndarray  # (n, 5) class, xywhn
    shapes: Shapes | None
    masks: np.ndarray | None


class DetectionDataset(Dataset[Item]):
    """Labelled images of one split.

    A sample depends on (seed, epoch, index) only: not on the order of access, nor on the process.

    Args:
        sources: folders and lists of images, or shards.
        imgsz: side of the input in pixels; the longer side of every image is scaled to it.
        batch_size: batch size of the loader, for `rect`.
        stride: batch shapes are multiples of it.
        augment: augment the images, as `hyp` says.
        hyp: hyperparameters.
        rect: rectangular batches in a fixed order, without mosaics.
        cache: ram or disk; by default small datasets are kept in memory.
        fast_decode: decode large JPEGs at a reduced size; their pixels differ slightly.
        single_cls: treat all objects as class 0.
        pad: see `plan_rect`.
        seed: seed of all augmentations.
        names: class names by number; labels of other classes are errors. None allows any class.
        masks: how a sample holds masks of its objects; None: boxes only.
        root: folder of the dataset, which lists of images may be relative to.
        prefix: text before log messages.

    Raises:
        DataError: no usable image, or `augment` and no labels or, with `masks`, no polygons.
    """

    def __init__(
        self,
        sources: Sequence[ImageSource],
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
        masks: MaskFormat | None = None,
        root: Path | None = None,
        prefix: str = "",
    ) -> None:
        files = load_labels(sources, None if single_cls else names, prefix, root=root, boxes=masks is None)
        self.batch_shapes: np.ndarray | None = None
        self._batch = np.zeros(0, int)
        if rect:
            plan = plan_rect(files.sizes, batch_size, imgsz, stride, pad)
            files = files.take(plan.order)
            self._batch, self.batch_shapes = plan.batch, plan.shapes
        if single_cls:
            files.labels = _to_single_class(files.labels)
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
        self.masks = masks
        self._check_labels(sources, prefix, root)
        if masks is not None:
            self._check_polygons(sources, prefix)
        self._extra = load_extra_transforms(prefix) if augment else None
        self._reader = SampleReader(
            files,
            imgsz,
            smooth=cv2.INTER_LINEAR if augment else cv2.INTER_AREA,
            cache=cache,
            fast_decode=fast_decode,
            prefix=prefix,
        )

    def _check_labels(self, sources: Sequence[ImageSource], prefix: str, root: Path | None) -> None:
        listed = any(isinstance(source, CocoImages) for source in sources)
        files = self.image_files if isinstance(self.image_files, PackedPaths) and not listed else None
        if self.labels.counts.any():
            self._check_backgrounds(files, prefix, root)
            return
        expected = "no object is annotated" if listed else "one .txt per image is expected"
        message = f"{', '.join(map(str, sources))}: no labels found ({expected})"
        if files is not None:
            message = f"{message}; {explain_missing_labels(files, root)}"
        if self.augment:
            raise DataError(f"{message}; there is nothing to train on")
        LOG.warning(f"{prefix}{message}")

    def _check_backgrounds(self, files: PackedPaths | None, prefix: str, root: Path | None) -> None:
        """Warn if more than half of the images are backgrounds, and their labels seem to be elsewhere."""
        empty = np.flatnonzero(self.labels.counts == 0)
        if files is None or 2 * len(empty) <= len(files):
            return
        without = [path for index in empty[:_CHECKED] if not label_path(path := files[int(index)]).exists()]
        if without and (found := find_missing_labels(without, root)):
            LOG.warning(f"{prefix}{len(empty)} of {len(files)} images have no labels; {found}")

    def _check_polygons(self, sources: Sequence[ImageSource], prefix: str) -> None:
        total, boxes = self.segments.count_boxes()
        if not boxes:
            return
        where = f"{', '.join(map(str, sources))}: {boxes} of {total} labels are boxes without a polygon"
        if boxes == total and self.augment:
            raise DataError(
                f"{where}; segmentation needs lines of the form: class x1 y1 x2 y2 x3 y3 ..."
                " (train.py trains boxes)"
            )
        LOG.warning(f"{prefix}{where}; their masks are the rectangles")

    def __len__(self) -> int:
        return len(self.image_files)

    def __getitem__(self, key: int | tuple[int, int] | SampleKey) -> Item:
        """Return the sample of a key; a plain index means epoch 0."""
        key = SampleKey(0, key) if isinstance(key, int | np.integer) else SampleKey(*key)
        return self.sample(key, np.empty((3, *self.input_hw(key.image_index)), np.uint8))

    def input_hw(self, image_index: int) -> tuple[int, int]:
        """Return the input size (height, width) of an image: that of its batch."""
        if self.batch_shapes is None:
            return self.imgsz, self.imgsz
        height, width = self.batch_shapes[self._batch[image_index]].tolist()
        return height, width

    def sample(self, key: SampleKey, out: np.ndarray) -> Item:
        """Make the sample of a key; its image is written to `out` (3, *input_hw) uint8."""
        made = self._augmented(key) if self.augment else self._plain(key.image_index)
        assert made.image.shape == (*out.shape[1:], 3)
        cv2.split(made.image, mv=tuple(out[::-1]))  # BGR to RGB
        rows = np.zeros((len(made.labels), 6), np.float32)
        rows[:, 1:] = made.labels
        masks = None if made.masks is None else torch.from_numpy(np.ascontiguousarray(made.masks))
        path = str(self.image_files[made.image_index])
        return Item(torch.from_numpy(out), torch.from_numpy(rows), path, made.shapes, masks)

    def _plain(self, index: int) -> _Prepared:
        index, sample, shapes = self._letterboxed(index)
        return _Prepared(index, sample.image, *self._targets(sample, shapes))

    def _targets(
        self, sample: Sample, shapes: Shapes | None
    ) -> tuple[np.ndarray, Shapes | None, np.ndarray | None]:
        """Return the labels (n, 5) of a sample: class, xywhn clipped to the image; and its masks."""
        labels = _normalized(sample)
        if self.masks is None:
            return labels, shapes, None
        masks, order = self.masks.draw(sample.polygons, sample.image.shape[:2])
        return labels[order], shapes, masks

    def _augmented(self, key: SampleKey) -> _Prepared:
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
            sample = self._warped(sample, PerspectiveDraws.draw(rng, self.hyp))
        return self._recolour_and_flip(rng, index, sample, shapes)

    def _warped(self, sample: Sample, warp: PerspectiveDraws, border: tuple[int, int] = (0, 0)) -> Sample:
        if self.masks is None:
            return random_perspective(sample, warp, border)
        return random_perspective(with_rectangles(sample), warp, border, keep_polygons=True)

    def _recolour_and_flip(
        self, rng: np.random.Generator, index: int, sample: Sample, shapes: Shapes | None
    ) -> _Prepared:
        labels, shapes, masks = self._targets(sample, shapes)
        image = sample.image if self._extra is None else self._extra(rng, sample.image)
        image = adjust_hsv(image, draw_hsv_gains(rng, self.hyp))
        up_down, left_right = draw_flips(rng, self.hyp)
        image = flip(image, labels, up_down, left_right)
        if masks is not None:
            masks = masks[:, :: -1 if up_down else 1, :: -1 if left_right else 1]
        return _Prepared(index, image, labels, shapes, masks)

    def _mosaic(self, rng: np.random.Generator, index: int, partners: Sequence[int]) -> Sample:
        """Make a mosaic of four images, with copied objects, and warp it to one image of `imgsz`."""
        draws = MosaicDraws.draw(rng, index, len(self), self.imgsz, partners)
        tiles, size = [self._reader.sample(i)[1] for i in draws.indices], self.imgsz
        border = -(size // 2)
        if self.hyp["copy_paste"] and any(tile.polygons for tile in tiles):
            sample = mosaic4(tiles, draws.centre_yx, size)
            sample = copy_paste(sample, draw_pastes(rng, len(sample.boxes), self.hyp["copy_paste"]))
            return self._warped(sample, PerspectiveDraws.draw(rng, self.hyp), (border, border))
        warp = PerspectiveDraws.draw(rng, self.hyp)
        visible = visible_region(warp, (2 * size, 2 * size), (2 * (size + border), 2 * (size + border)))
        sample = mosaic4(tiles, draws.centre_yx, size, visible)
        return self._warped(sample, warp, (border, border))

    def _letterboxed(self, index: int) -> tuple[int, Sample, Shapes]:
        """Read one image, scaled and padded to the shape of its batch."""
        shape = self.input_hw(index)
        index, sample, (h0, w0) = self._reader.sample(index)
        h, w = sample.image.shape[:2]
        image, (gain, _), (pad_x, pad_y) = letterbox(sample.image, shape, auto=False, scaleup=self.augment)
        move = np.array((pad_x, pad_y), np.float32)
        boxes = sample.boxes.copy()
        boxes[:, 1:] = boxes[:, 1:] * gain + np.tile(move, 2)
        polygons = [points * gain + move for points in sample.polygons]
        shapes = Shapes((h0, w0), RatioPad((gain * h / h0, gain * w / w0), (pad_x, pad_y)))
        sample = Sample(image, boxes, polygons)
        return index, sample if self.masks is None else with_rectangles(sample), shapes


@dataclass(frozen=True)
class RectPlan:
    """The order of the images, and the shapes of the batches, for rectangular batches."""

    order: np.ndarray  # (N,) int: image indices from wide to tall
    batch: np.ndarray  # (N,) int: batch of each image, in that order
    shapes: np.ndarray  # (batches, 2) int: height, width


def plan_rect(sizes_wh: np.ndarray, batch_size: int, imgsz: int, stride: int, pad: float) -> RectPlan:
    """Sort images by aspect ratio and compute the smallest input shape for each batch.

    Args:
        sizes_wh: (N, 2) width and height of the images.
        batch_size: images per batch.
        imgsz: longer side of the shapes before rounding, pixels.
        stride: sides are multiples of it.
        pad: added to each side before rounding up, in strides; validation uses 0.5, as the original does.
    """
    tallness = sizes_wh[:, 1] / sizes_wh[:, 0]
    order = tallness.argsort(kind="stable")
    batch = np.arange(len(order)) // batch_size
    starts = np.arange(0, len(order), batch_size)
    widest = np.minimum.reduceat(tallness[order], starts)
    tallest = np.maximum.reduceat(tallness[order], starts)
    # As fractions of imgsz: a batch of wide images is as high as its tallest image needs, and vice versa.
    sides = np.stack((np.minimum(tallest, 1), np.minimum(1 / widest, 1)), 1)
    return RectPlan(order, batch, np.ceil(sides * imgsz / stride + pad).astype(int) * stride)


def _normalized(sample: Sample) -> np.ndarray:
    """Return the labels (n, 5) of a sample: class, xywhn clipped to the image."""
    labels = sample.boxes.astype(np.float32)
    height, width = sample.image.shape[:2]
    labels[:, 1:] = xyxy2xywhn(labels[:, 1:], width, height, clip=True, eps=1e-3)
    return labels


def _to_single_class(labels: PackedRows) -> PackedRows:
    rows = labels.rows.copy()
    rows[:, 0] = 0
    return PackedRows(rows, labels.starts, labels.counts)
