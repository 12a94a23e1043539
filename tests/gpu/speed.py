"""Speed and memory: our training loop beside a plain one, and what LSKA costs. The numbers decide nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from tests.gpu.cases import CFG, SeededLoader, seeded_images, seeded_model, train_state, train_steps
from tests.gpu.checks import Check, Context
from utils.data.loader import Batch
from utils.tasks.task import get_task
from utils.train.loop import to_device
from utils.train.state import TrainState

REPEATS = 3  # the fastest one counts


def _precision(context: Context) -> torch.dtype | None:
    return torch.float16 if context.on_cuda else None


def seconds_of(context: Context, work: Callable[[], Any]) -> float:
    """Return the shortest time of several calls, after one that is not timed."""
    work()
    times = []
    for _ in range(REPEATS if context.on_cuda else 1):
        context.synchronize()
        start = time.perf_counter()
        work()
        context.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_memory(context: Context, work: Callable[[], Any]) -> str:
    """Return the most memory that tensors of the device take during a call."""
    if not context.on_cuda:
        return "not measured"
    torch.cuda.reset_peak_memory_stats(context.device)
    work()
    return f"{torch.cuda.max_memory_allocated(context.device) / 2**20:.0f} MiB"


def plain_epoch(context: Context, state: TrainState, loader: SeededLoader) -> None:
    """Train on all batches with forward, loss, backward and step only: no EMA, no clipping, no rows."""
    state.model.train()
    loader.set_epoch(0)
    for batch in loader:
        _plain_step(context, state, batch)


def _plain_step(context: Context, state: TrainState, batch: Batch) -> None:
    images = batch.images.to(context.device, non_blocking=True).float() / 255
    images = images.contiguous(memory_format=torch.channels_last)
    if (normalize := get_task(state.model.task).normalize) is not None:
        images = normalize(images)
    with torch.autocast(context.device.type, dtype=state.precision, enabled=state.precision is not None):
        loss, _ = state.loss(state.model(images), *batch.labels)
    state.scaler.scale(loss).backward()
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.optimizer.zero_grad()


def loops(task: str, context: Context) -> str:
    """Measure images per second and peak memory of our loop and of a plain one."""
    loader = SeededLoader(context, task, context.steps)
    images, said = context.steps * context.batch, []
    for name, epoch in (("our loop", train_steps), ("a plain loop", plain_epoch)):
        state = train_state(context, CFG[task], _precision(context))
        work = partial(epoch, context, state, loader)
        rate = images / seconds_of(context, work)
        said.append(f"{name} {rate:.0f} images/s, peak {peak_memory(context, work)}")
        del state, work
        if context.on_cuda:
            torch.cuda.empty_cache()
    return "; ".join(said)


def cost_of_lska(context: Context) -> str:
    """Measure the forward pass and the training step of yolov5n-LSKA, and divide them by those of yolov5n."""
    times: dict[str, list[float]] = {"forward": [], "step": []}
    loader = SeededLoader(context, "detect", context.steps)
    for cfg in ("yolov5n.yaml", "yolov5n-LSKA.yaml"):
        model = seeded_model(cfg, context.device).eval().fuse()
        images = to_device(seeded_images(context.batch, context.imgsz), context.device)

        def forward(model: Any = model, images: torch.Tensor = images) -> None:
            with torch.inference_mode():
                for _ in range(context.steps):
                    model(images)

        times["forward"].append(seconds_of(context, forward) / context.steps * 1000)
        state = train_state(context, cfg, _precision(context))
        epoch = partial(train_steps, context, state, loader)
        times["step"].append(seconds_of(context, epoch) / context.steps * 1000)
    parts = [
        f"{name} {with_lska:.2f} ms over {without:.2f} ms = {with_lska / without:.2f}"
        for name, (without, with_lska) in times.items()
    ]
    precision = "FP32 forward, AMP step" if context.on_cuda else "FP32"
    return f"{'; '.join(parts)} ({precision}, {context.batch} images of {context.imgsz} px)"


CHECKS = [
    *(Check(f"speed {task}", partial(loops, task)) for task in CFG),
    Check("cost of LSKA", cost_of_lska),
]
