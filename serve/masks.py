"""Masks of the objects in one image: made with its response, in blocks, as polygons, run lengths or colours.

All masks of a request may take gigabytes; what they are made of takes a few megabytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.plots.annotator import Color, blend_masks
from utils.tasks.segment.masks import process_mask
from utils.tasks.segment.polygons import encode_rle
from utils.tasks.segment.prediction import FrameMasks

_BLOCK = 1 << 22  # pixels of masks that are made at a time; larger blocks are slower (measured)
_DRAWN_BLOCK = 1 << 26  # pixels of masks that are blended at a time, in 64 MB
_STRIP = 1 << 20  # pixels of the image that they are blended into at a time, with many bytes for each


@dataclass(frozen=True)
class MaskSource:
    """What the masks of the n objects in one image are made of, on the CPU.

    Attributes:
        protos: (nm, h, w) prototypes.
        rows: (n, 6 + nm) from NMS, with boxes in pixels of the model's input.
        input_hw: height and width of that input.
        image_hw: height and width of the image.
    """

    protos: Tensor
    rows: Tensor
    input_hw: tuple[int, int]
    image_hw: tuple[int, int]

    def polygons(self) -> list[list[list[float]]]:
        """Return the polygon of each object: points [x, y] in pixels of the image, none for an empty mask."""
        size = self.image_hw[::-1]
        return [
            (points.astype(np.float64) * size).round(2).tolist()
            for block in self._blocks(_BLOCK)
            for points in self._make(block).polygons()
        ]

    def run_lengths(self) -> list[dict[str, Any]]:
        """Return the mask of each object, at the size of the image, in COCO's run-length encoding."""
        return [
            encode_rle(cv2.transpose(mask).T)  # runs go down the columns: ten times as fast in this order
            for block in self._blocks(_BLOCK)
            for mask in self._make(block).on_image()
        ]

    def blend(self, image: np.ndarray, tints: Sequence[Color]) -> None:
        """Blend the masks into the image (H, W, 3) in place, each in its colour; see `blend_masks`.

        Masks that do not fit into one block are blended block by block, the most confident ones last.
        """
        step = max(_STRIP // image.shape[1], 1)
        for block in reversed(self._blocks(_DRAWN_BLOCK)):
            masks = self._make(block).on_image()
            for top in range(0, len(image), step):
                strip = slice(top, top + step)
                blend_masks(image[strip], masks[:, strip], tints[block])

    def _blocks(self, most: int) -> list[slice]:
        """Divide the rows into blocks whose masks have at most `most` pixels, of the input and the image."""
        pixels = max(height * width for height, width in (self.input_hw, self.image_hw))
        step = max(most // pixels, 1)
        return [slice(start, start + step) for start in range(0, len(self.rows), step)]

    def _make(self, block: slice) -> FrameMasks:
        rows = self.rows[block]
        with torch.inference_mode():
            masks = process_mask(self.protos, rows[:, 6:], rows, self.input_hw, upsample=True)
        return FrameMasks(masks.numpy(), self.image_hw)
