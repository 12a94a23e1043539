"""Sum gradients with our ProcessGroup beside DistributedDataParallel with no_sync, in the same processes.

torchrun --nproc-per-node 2 benchmarks/distributed.py --cfg yolov5n.yaml --img 320 --batch 8 --accumulate 1 4

Prints the time of a training step (forward, loss, backward, sum of the gradients) with each, and how much the
gradients differ.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # the project's packages are in the parent folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads do not spin; before torch is imported

import torch
from torch.nn.parallel import DistributedDataParallel

from models.yolo import DetectionModel
from utils.ops.loss import DetectionLoss
from utils.train.distributed import ProcessGroup, make_process_group
from utils.train.hyp import check_hyp, scale_gains
from utils.train.train_options import options_from


def main() -> None:
    """Measure each number of accumulated batches, and print from rank 0."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cfg", default="yolov5n.yaml", help="model yaml")
    p.add_argument("--img", type=int, default=320, help="image size (pixels)")
    p.add_argument("--batch", type=int, default=8, help="batch size of a process")
    p.add_argument("--accumulate", type=int, nargs="+", default=[1, 4], help="batches per optimizer step")
    p.add_argument("--rounds", type=int, default=5, help="steps of each")
    p.add_argument("--device", default="cpu", help="cpu, or a GPU for each process, such as 0,1")
    opt = p.parse_args()
    torch.set_num_threads(1)
    with make_process_group(options_from({"device": opt.device, "batch_size": 64})) as group:
        for accumulate in opt.accumulate:
            line = measure(opt, group, accumulate)
            if group.is_main:
                print(line, flush=True)


def measure(opt: Any, group: ProcessGroup, accumulate: int) -> str:
    """Alternate steps of both, so that noise affects both alike."""
    torch.manual_seed(0)
    model = DetectionModel(opt.cfg).train()
    hyp = scale_gains(check_hyp({}, "benchmark"), levels=model.head.nl, nc=model.nc, imgsz=opt.img)
    loss = DetectionLoss(model.head.anchors, model.stride, model.nc, hyp)
    replica = DistributedDataParallel(copy.deepcopy(model), broadcast_buffers=False)
    draw = torch.Generator().manual_seed(group.rank)
    images = torch.rand(opt.batch, 3, opt.img, opt.img, generator=draw)
    targets = torch.rand(8 * opt.batch, 6, generator=draw) * 0.5 + 0.25
    targets[:, 0] = torch.arange(opt.batch).repeat(8)
    targets[:, 1] = 0

    def ours() -> None:
        for _ in range(accumulate):
            loss(model(images), targets, group.sum_counts)[0].backward()
        group.sum_gradients(model.parameters())

    def ddp() -> None:
        for index in range(accumulate):
            with nullcontext() if index + 1 == accumulate else replica.no_sync():
                # DDP averages over the ranks, where the loss of the whole batch is a sum.
                (loss(replica(images), targets, group.sum_counts)[0] * group.world).backward()

    times: dict[str, list[float]] = {"ours": [], "ddp": []}
    for number in range(opt.rounds + 1):
        for name, step, network in (("ours", ours, model), ("ddp", ddp, replica)):
            network.zero_grad(set_to_none=True)
            times[name].append(timed(step, group))
        if number == 0:
            gap = difference(model, replica.module)
    medians = {name: statistics.median(found[1:]) for name, found in times.items()}
    return (
        f"{group.world} processes x {opt.batch} images of {opt.img} px, {accumulate} batches per step: ours "
        f"{medians['ours']:.3f} s, DDP {medians['ddp']:.3f} s, ratio {medians['ddp'] / medians['ours']:.3f}; "
        f"largest gradient difference {gap:.1e} of the largest gradient"
    )


def timed(step: Callable[[], None], group: ProcessGroup) -> float:
    """Return the seconds of a step, which all ranks start together."""
    group.sum_counts([0])
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def difference(one: torch.nn.Module, other: torch.nn.Module) -> float:
    """Return the largest difference of two models' gradients, relative to the largest gradient."""
    pairs = [
        (p.grad, q.grad)
        for p, q in zip(one.parameters(), other.parameters(), strict=True)
        if p.grad is not None and q.grad is not None
    ]
    return max(float((a - b).abs().max()) for a, b in pairs) / max(float(a.abs().max()) for a, _ in pairs)


if __name__ == "__main__":
    main()
