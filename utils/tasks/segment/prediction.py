"""Masks of the detections in one image: on the image for drawing, and as polygons for label files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from utils.tasks.segment.masks import process_mask, process_mask_native, scale_masks
from utils.tasks.segment.polygons import mask_polygon


@dataclass(frozen=True)
class FrameMasks:
    """The masks of n detections.

    Attributes:
        masks: (n, h, w) bool, at the size of the letterboxed input or of the image.
        image_hw: height and width of the image.
    """

    masks: np.ndarray
    image_hw: tuple[int, int]

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
        """Assemble the masks of one image.

        Args:
            protos: (nm, h, w).
            detections: (n, 6 + nm) from NMS, with boxes in pixels of the input.
            input_hw: height and width of the input.
            boxes: (n, 4+) xyxy in pixels of the image.
            image_hw: height and width of the image.
            native: at the size of the image, else of the input.
        """
        coefficients = detections[:, 6:]
        if native:
            image_boxes = torch.from_numpy(boxes[:, :4]).to(coefficients)
            masks = process_mask_native(protos, coefficients, image_boxes, image_hw)
        else:
            masks = process_mask(protos, coefficients, detections, input_hw, upsample=True)
        return cls(masks.cpu().numpy(), image_hw)

    def on_image(self) -> np.ndarray:
        """Return the masks at the size of the image, (n, H, W) uint8 of 0 and 1."""
        if self.masks.shape[1:] == self.image_hw:
            return self.masks.astype(np.uint8)
        return scale_masks(self.masks, self.image_hw)

    def polygons(self) -> list[np.ndarray]:
        """Return the polygon of the largest part of each mask, (k, 2) float32 as fractions of the image.

        k is 0 where a mask is empty or thinner than a polygon.
        """
        height, width = self.image_hw
        h, w = self.masks.shape[1:]
        gain = min(h / height, w / width)
        pad = np.array(((w - width * gain) / 2, (h - height * gain) / 2), np.float32)
        size = np.array((width, height), np.float32)
        found = []
        for mask in self.masks:
            points = mask_polygon(mask)
            kept = points if len(points) > 2 else points[:0]
            found.append(((kept - pad) / gain).clip(0, size) / size)
        return found
