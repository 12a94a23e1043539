"""Masks of the detections in one image, made in blocks: for drawing, as polygons, and run-length encoded.

All masks of a large image would take gigabytes; what they are made of takes a few megabytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.plots.annotator import Color, blend_masks
from utils.tasks.segment.masks import BLOCK_PIXELS, process_mask, process_mask_native, scale_masks
from utils.tasks.segment.polygons import encode_rle, mask_polygon

_DRAWN_BLOCK = 1 << 26  # pixels of masks that are blended at a time, in 64 MB
_STRIP = 1 << 20  # pixels of the image that they are blended into at a time, with many bytes for each
_MIN_POINTS = 3  # of a polygon


@dataclass(frozen=True)
class MaskBlock:
    """The masks of k detections.

    Attributes:
        masks: (k, h, w) bool, at the size of the letterboxed input or of the image.
        image_hw: height and width of the image.
    """

    masks: np.ndarray
    image_hw: tuple[int, int]

    def on_image(self) -> np.ndarray:
        """Return the masks at the size of the image, (k, H, W) uint8 of 0 and 1."""
        if self.masks.shape[1:] == self.image_hw:
            return self.masks.astype(np.uint8)
        return scale_masks(self.masks, self.image_hw)

    def polygons(self) -> list[np.ndarray]:
        """Return the polygon of the largest part of each mask, (n, 2) float32 as fractions of the image.

        n is 0 where a mask is empty or thinner than a polygon.
        """
        height, width = self.image_hw
        h, w = self.masks.shape[1:]
        gain = min(h / height, w / width)
        pad = np.array(((w - width * gain) / 2, (h - height * gain) / 2), np.float32)
        size = np.array((width, height), np.float32)
        found = []
        for mask in self.masks:
            points = mask_polygon(mask)
            kept = points if len(points) >= _MIN_POINTS else points[:0]
            found.append(((kept - pad) / gain).clip(0, size) / size)
        return found


@dataclass(frozen=True)
class FrameMasks:
    """The masks of the n detections in one image, made in blocks when they are needed.

    Attributes:
        protos: (nm, h, w) prototypes, on the CPU.
        rows: (n, 6 + nm) from NMS, with boxes in pixels of the input.
        input_hw: height and width of the letterboxed input.
        image_hw: height and width of the image.
        native_boxes: (n, 4+) xyxy in pixels of the image: the masks are made at its size and cropped to
            these; None: at the size of the input.
    """

    protos: Tensor
    rows: Tensor
    input_hw: tuple[int, int]
    image_hw: tuple[int, int]
    native_boxes: np.ndarray | None = None

    @classmethod
    def of(
        cls,
        protos: Tensor,
        detections: Tensor,
        input_hw: Sequence[int],
        boxes: np.ndarray,
        image_hw: tuple[int, int],
        native: bool = False,
    ) -> FrameMasks:
        """Copy what the masks are made of to the CPU; with `native` they have the size of the image."""
        height, width = input_hw
        native_boxes = boxes if native else None
        return cls(protos.cpu().clone(), detections.cpu(), (height, width), image_hw, native_boxes)

    def whole(self) -> MaskBlock:
        """Return all masks in one block."""
        return self._make(slice(None))

    def on_image(self) -> np.ndarray:
        """Return all masks at the size of the image, (n, H, W) uint8 of 0 and 1."""
        parts = [made.on_image() for _, made in self._blocks(BLOCK_PIXELS)]
        return np.concatenate([np.zeros((0, *self.image_hw), np.uint8), *parts])

    def polygons(self) -> list[np.ndarray]:
        """Return the polygon of each mask, see `MaskBlock.polygons`."""
        return [points for _, made in self._blocks(BLOCK_PIXELS) for points in made.polygons()]

    def run_lengths(self) -> list[dict[str, Any]]:
        """Return each mask, at the size of the image, in COCO's run-length encoding."""
        return [
            encode_rle(cv2.transpose(mask).T)  # runs go down the columns: ten times as fast in this order
            for _, made in self._blocks(BLOCK_PIXELS)
            for mask in made.on_image()
        ]

    def blend(self, image: np.ndarray, tints: Sequence[Color]) -> None:
        """Blend the masks into the image (H, W, 3) in place, each in its colour; see `blend_masks`.

        Masks that do not fit into one block are blended block by block, the most confident ones last.
        """
        step = max(_STRIP // image.shape[1], 1)
        for block, made in self._blocks(_DRAWN_BLOCK, backwards=True):
            scaled = made.on_image()
            for top in range(0, len(image), step):
                strip = slice(top, top + step)
                blend_masks(image[strip], scaled[:, strip], tints[block])

    def _blocks(self, most: int, backwards: bool = False) -> Iterator[tuple[slice, MaskBlock]]:
        """Yield blocks of rows whose masks have at most `most` pixels, and these masks."""
        pixels = max(height * width for height, width in (self.input_hw, self.image_hw))
        step = max(most // pixels, 1)
        starts = range(0, len(self.rows), step)
        for start in reversed(starts) if backwards else starts:
            block = slice(start, start + step)
            yield block, self._make(block)

    def _make(self, block: slice) -> MaskBlock:
        rows = self.rows[block]
        with torch.inference_mode():
            if self.native_boxes is None:
                masks = process_mask(self.protos, rows[:, 6:], rows, self.input_hw, upsample=True)
            else:
                boxes = torch.from_numpy(self.native_boxes[block, :4]).to(rows)
                masks = process_mask_native(self.protos, rows[:, 6:], boxes, self.image_hw)
        return MaskBlock(masks.numpy(), self.image_hw)
