"""Latency of several models side by side: one image a time, models in turn, so that noise hits all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def measure_latency(
    files: Sequence[Path], imgsz: int, device: str = "", rounds: int = 50
) -> list[tuple[float, float, float]]:
    """Forward time of each model for one image, fused and as detect.py runs it.

    Args:
        files: weights.
        imgsz: side of the square image, rounded up to what all of them take.
        device: as `--device`.
        rounds: times that every model is run, in an order that turns with each round.

    Returns:
        For each file (median, lower quartile, upper quartile), in ms.
    """
    import torch

    from models.backends import load_backend
    from utils.base.device import select_device
    from utils.base.timing import Stopwatch
    from utils.data.letterbox import check_img_size

    chosen = select_device(device, verbose=False)
    models = [load_backend([str(file)], chosen) for file in files]
    side = check_img_size(imgsz, stride=max(int(model.stride) for model in models))
    image = torch.rand(1, 3, side, side, device=chosen).to(memory_format=torch.channels_last)
    times: list[list[float]] = [[] for _ in models]
    clock = Stopwatch(chosen)
    warm_up = 3
    with torch.inference_mode():
        for turn in range(warm_up + rounds):
            for place in range(len(models)):
                index = (place + turn) % len(models)
                with clock:
                    models[index](image)
                if turn >= warm_up:
                    times[index].append(clock.last * 1e3)
    found = [np.percentile(one, [50, 25, 75]) for one in times]
    return [(float(middle), float(low), float(high)) for middle, low, high in found]
