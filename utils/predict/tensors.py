"""From letterboxed pictures to what the network takes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch


def to_tensor(
    pictures: Sequence[np.ndarray], device: torch.device, half: bool = False, *, rgb: bool = False
) -> torch.Tensor:
    """Stack B pictures (H, W, 3) uint8 to (B, 3, H, W) RGB in 0-1, channels last.

    Every value is x / 255 in the precision of the result, however it is made: on the CPU in one pass from
    bytes to floats; for other devices the bytes travel, a quarter of the floats. Pictures are BGR, as OpenCV
    has them, unless `rgb` says otherwise.
    """
    shape = len(pictures), *pictures[0].shape
    if device.type == "cpu":
        floats = np.empty(shape, np.float32)
        for picture, place in zip(pictures, floats, strict=True):
            picture = picture if rgb else cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
            np.divide(picture, np.float32(255), out=place, dtype=np.float32)
        images = torch.from_numpy(floats).permute(0, 3, 1, 2)
        return images.half() if half else images
    levels = np.empty(shape, np.uint8)
    for picture, place in zip(pictures, levels, strict=True):
        if rgb:
            place[:] = picture
        else:
            cv2.cvtColor(picture, cv2.COLOR_BGR2RGB, dst=place)
    images = torch.from_numpy(levels).to(device).permute(0, 3, 1, 2)
    if device.type != "cuda":
        images = images.contiguous()
    return images.to(torch.float16 if half else torch.float32) / 255
