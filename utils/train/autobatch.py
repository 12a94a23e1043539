"""AutoBatch (`--batch-size -1`): the largest batch that fits, by a linear fit of memory over batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from utils.base.log import LOG

if TYPE_CHECKING:
    from models.yolo import DetectionModel

SIZES = (1, 2, 4, 8, 16)  # batch sizes that are measured
FALLBACK = 16
LARGEST = 1024
_SHARE = 0.8  # fraction of the free memory to use


def choose_batch(memory: Callable[[int], int], free: int) -> int:
    """Return the batch size that needs a fixed fraction of the free memory.

    Args:
        memory: returns the bytes that a training step takes at a batch size; raises torch.OutOfMemoryError.
        free: free memory in bytes.

    Returns:
        The batch size; `FALLBACK` if the measurements are implausible.
    """
    sizes: list[int] = []
    needs: list[int] = []
    for size in SIZES:
        try:
            needs.append(memory(size))
        except torch.OutOfMemoryError:
            break
        sizes.append(size)
    if len(sizes) < 2:
        return sizes[0] if sizes else 1
    best = _fitting(sizes, needs, _SHARE * free)
    if len(sizes) < len(SIZES):
        return min(best, sizes[-1])  # the next size did not fit, whatever the linear fit says
    return best if 1 <= best <= LARGEST else FALLBACK


def _fitting(sizes: Sequence[int], needs: Sequence[int], limit: float) -> int:
    slope, start = np.polyfit(sizes, needs, 1)
    return int((limit - start) / slope + 1e-6) if slope > 1e-9 else 0


def measure_batch(model: DetectionModel, imgsz: int, precision: torch.dtype | None) -> int:
    """Choose the batch size for a model on a CUDA device by training steps on random images."""
    device = next(model.parameters()).device
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)

    def memory(size: int) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        images = torch.rand(size, 3, imgsz, imgsz, device=device).to(memory_format=torch.channels_last)
        with torch.autocast("cuda", dtype=precision, enabled=precision is not None):
            maps = model(images)
        sum(level.float().mean() for level in maps).backward()
        return torch.cuda.max_memory_allocated(device) - before

    training = model.training
    kept = {key: value.clone() for key, value in model.state_dict().items()}  # batch norm statistics included
    model.train()
    try:
        best = choose_batch(memory, free)
    finally:
        model.zero_grad(set_to_none=True)
        model.load_state_dict(kept)
        model.train(training)
        torch.cuda.empty_cache()
    LOG.info(f"--batch-size -1: {best} images of {imgsz} px use about {_SHARE:.0%} of {free / 2**30:.1f} GiB")
    return best
