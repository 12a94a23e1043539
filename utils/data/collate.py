"""Put pictures together: into batches, and four of them into one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import get_worker_info

from utils.data.dataset import Item, Shapes

QUAD = 4  # pictures that one of a quad batch is made of


class Batch(NamedTuple):
    """B pictures for the network, and what is on them."""

    images: Tensor  # (B, 3, H, W) uint8 RGB
    targets: Tensor  # (T, 6) float32: index in the batch, class, xywhn
    paths: list[str]
    shapes: list[Shapes | None]  # see `Item`


def make_room(pictures: int, height: int, width: int) -> Tensor:
    """Memory for a batch, (pictures, 3, height, width) uint8, not filled.

    A worker gets memory that it shares with the main process; what lies elsewhere is copied on its way.
    """
    count = pictures * 3 * height * width
    if get_worker_info() is None:
        return torch.empty((pictures, 3, height, width), dtype=torch.uint8)
    shared = torch.UntypedStorage._new_shared(count)  # what torch's own collate function takes
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(pictures, 3, height, width)


def collate(items: Sequence[Item], images: Tensor | None = None) -> Batch:
    """Number the labels of pictures of one size, and stack them unless they lie in `images` already."""
    for index, item in enumerate(items):
        item.labels[:, 0] = index
    if images is None:
        # numpy copies in this thread; torch would wake others, and wait long for them if cores are busy
        images = torch.from_numpy(np.stack([item.image.numpy() for item in items]))
    return Batch(
        images,
        torch.cat([item.labels for item in items]),
        [item.path for item in items],
        [item.shapes for item in items],
    )


def make_quad(items: Sequence[Item], enlarge: bool) -> Item:
    """Make one picture of twice the size: the first of four enlarged, or all four in a square.

    In the square the second stands below the first, the third to the right of it.
    """
    first = items[0]
    if enlarge:
        image = functional.interpolate(first.image[None].float(), scale_factor=2.0, mode="bilinear")
        return first._replace(image=image[0].to(torch.uint8))
    top, bottom = (torch.cat((items[i].image, items[i + 2].image), 2) for i in (0, 1))
    labels = []
    for item, (right, down) in zip(items, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        moved = item.labels.clone()
        moved[:, 2:4] += torch.tensor((right, down))
        moved[:, 2:] /= 2
        labels.append(moved)
    return first._replace(image=torch.cat((top, bottom), 1), labels=torch.cat(labels))
