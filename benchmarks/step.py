"""The bare training step: its speed, its memory, and the cost of attention.

    python benchmarks/step.py                 # all; or --part memory, time (both speed and cost), speed, cost

A step is forward, loss, backward, optimizer and moving average, on a batch in memory. The plain side is
PyTorch by default: contiguous maps, batch norm and SiLU as separate layers, default SGD, a moving average
tensor by tensor, the C library's memory settings. Both sides start from the same weights.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from timing import (
    ResultTable,
    TimedProcess,
    alternate,
    current_memory,
    faster,
    parser,
    peak_memory,
    ratio,
    run_rounds,
    slower,
    timed,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from models.yolo import DetectionModel

Step = Callable[[], float]

HYP = {"box": 0.05, "obj": 1.0, "cls": 0.5, "lr0": 1e-4, "momentum": 0.937, "weight_decay": 5e-4}
# Blocks on small feature maps, which should cost nearly nothing, and on large ones.
COST = (
    ("yolov5n.yaml", "yolov5n-LSKA.yaml", "<= 1.02"),
    ("yolov5s.yaml", "yolov5s-LSKA.yaml", "<= 1.02"),
    ("yolov5n.yaml", "yolov5n-backbone-C3LSKA.yaml", "<= 1.15"),
    ("yolov5n.yaml", "yolov5n-head-LSKA.yaml", "<= 1.15"),
)


def main() -> None:
    """Run the benchmark."""
    p = parser(__doc__)
    p.add_argument(
        "--part", default="all", choices=("all", "time", "speed", "memory", "cost"), help="what to measure"
    )
    p.add_argument("--side", default="", help=argparse.SUPPRESS)
    p.add_argument("--cfg", default="yolov5n.yaml", help=argparse.SUPPRESS)
    p.add_argument("--img", type=int, default=320, help="image size (pixels) of the part `speed`")
    p.add_argument("--batch", type=int, default=16, help="batch size of the part `speed`")
    opt = p.parse_args()
    if opt.side:
        _run_side(opt)
        return
    table = ResultTable("Training step", opt.csv)
    if opt.part in ("all", "time", "speed"):
        for cfg in ("yolov5n.yaml", "yolov5s-LSKA.yaml"):
            speed(table, cfg, opt)
    if opt.part in ("all", "time", "cost"):
        for without, having, target in COST:
            cost(table, without, having, target, opt.rounds)
    if opt.part in ("all", "memory"):
        memory(table, opt)


def speed(table: ResultTable, cfg: str, opt: Any) -> None:
    """Compare our step with the plain one, and their losses."""
    settings = ["--cfg", cfg, "--img", str(opt.img), "--batch", str(opt.batch)]
    plain = TimedProcess(__file__, "--side", "plain", *settings, native=False)
    ours = TimedProcess(__file__, "--side", "ours", *settings)
    seconds = alternate({"ours": ours, "plain": plain}, opt.rounds, least=0, pause=0.1)
    name = cfg.removesuffix(".yaml")
    table.add(faster(f"step of {name}, {opt.batch} at {opt.img}", ">= 1.4", seconds, "ours", "plain"))
    errors = [abs(a["loss"] / b["loss"] - 1) for a, b in zip(ours.results, plain.results, strict=True)]
    print(f"    losses of {len(errors)} steps: relative difference at most {max(errors):.1e}")
    ours.close()
    plain.close()


def memory(table: ResultTable, opt: Any) -> None:
    """Compare the peak memory of yolov5s at 640 in training, bare, recomputing and plain steps."""
    settings = ["--cfg", "yolov5s.yaml", "--img", "640", "--batch", "16"]
    peaks: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    for name in ("train.py", "ours", "recomputing", "plain"):
        side = TimedProcess(__file__, "--side", name, *settings, native=name != "plain")
        seconds[name] = [timed(side) for _ in range(1 if name == "train.py" else 4)][1:]
        peaks[name] = [side.results[-1]["peak"] - side.results[-1]["start"]]
        side.close()
    shown = {name: f"{name} {peak[0] / 2**30:.2f} GiB" for name, peak in peaks.items()}
    for what, target, new, old in (
        ("memory of train.py over that of its bare step", "<= 1.1", "train.py", "ours"),
        ("memory of our step over that of the plain one", "<= 1.1", "ours", "plain"),
        ("memory with --checkpoint-activations", "<= 0.5", "recomputing", "ours"),
    ):
        sides = f"{shown[new]}, {shown[old]}"
        table.add(ratio(f"yolov5s, 16 at 640: {what}", target, peaks[new], peaks[old], sides))
    what = "yolov5s, 16 at 640: time with --checkpoint-activations"
    table.add(slower(what, "", seconds, "recomputing", "ours"))


def cost(table: ResultTable, without: str, having: str, target: str, rounds: int) -> None:
    """Time with attention over time without, at 640 px: training steps of 4, forward passes of 1."""
    import torch

    from utils.base.device import keep_freed_memory

    keep_freed_memory()
    name = having.removesuffix(".yaml")
    base, model = make_model(without, True), make_model(having, True)
    steps: dict[str, Callable[[], Any]] = {
        "without": ours_step(base, 640, 4),
        "with": ours_step(model, 640, 4),
        "plain chain": partial(_with_plain_chain, ours_step(copy.deepcopy(model), 640, 4)),
    }
    image = torch.rand(1, 3, 640, 640).to(memory_format=torch.channels_last)
    fused, fused_base = (copy.deepcopy(m).eval().fuse() for m in (model, base))
    forwards: dict[str, Callable[[], Any]] = {
        "without": partial(_forward, fused_base, image),
        "with": partial(_forward, fused, image),
        "plain chain": lambda: _with_plain_chain(partial(_forward, fused, image)),
    }
    for kind, sides, times in (("step", steps, 2), ("forward", forwards, 3)):
        seconds = alternate(sides, rounds * times, least=0)
        table.add(slower(f"{name}, {kind}", target, seconds, "with", "without"))
        table.add(slower(f"{name}, {kind}, with the plain chain", "", seconds, "plain chain", "without"))


def _forward(model: DetectionModel, image: Tensor) -> None:
    import torch

    with torch.inference_mode():
        model(image)


def _with_plain_chain(work: Callable[[], Any]) -> None:
    """Run with PyTorch's convolutions instead of the compiled chain."""
    from utils.native import chain

    kept, chain.is_native = chain.is_native, lambda x, stages: False
    try:
        work()
    finally:
        chain.is_native = kept


def make_model(cfg: str, last: bool) -> DetectionModel:
    """Make a model with the same weights in every process."""
    import torch

    from models.yolo import DetectionModel

    torch.manual_seed(0)
    layout = torch.channels_last if last else torch.contiguous_format
    return DetectionModel(cfg, nc=3).train().to(memory_format=layout)


def make_batch(side: int, batch: int, layout: torch.memory_format) -> tuple[Tensor, Tensor]:
    """Make random images, and 12 targets per image."""
    import torch

    torch.manual_seed(1)
    targets = torch.rand(12 * batch, 6) * torch.tensor([batch, 3, 1, 1, 0.3, 0.3])
    targets[:, :2] = targets[:, :2].floor()
    return torch.rand(batch, 3, side, side).to(memory_format=layout), targets


def ours_step(model: DetectionModel, side: int, batch: int) -> Step:
    """Return the training step of train.py."""
    import torch

    from utils.ops.loss import DetectionLoss
    from utils.train.loop import MAX_NORM
    from utils.train.optim import ModelEMA, make_optimizer

    images, targets = make_batch(side, batch, torch.channels_last)
    loss = DetectionLoss(model.head.anchors, model.stride, model.nc, HYP)
    optimizer, ema = make_optimizer(model, "SGD", HYP, batch), ModelEMA(model)

    def step() -> float:
        value, _ = loss(model(images), targets)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM, foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        ema.update(model)
        return float(value.detach())

    return step


def plain_step(model: DetectionModel, side: int, batch: int) -> Step:
    """Return a training step that is not optimized for speed."""
    import torch

    from utils.ops.loss import DetectionLoss
    from utils.train.optim import parameter_groups

    images, targets = make_batch(side, batch, torch.contiguous_format)
    loss = DetectionLoss(model.head.anchors, model.stride, model.nc, HYP)
    decays = (0.0, HYP["weight_decay"], 0.0)
    groups = [
        {"params": kind, "weight_decay": decay}
        for kind, decay in zip(parameter_groups(model), decays, strict=True)
    ]
    optimizer = torch.optim.SGD(groups, HYP["lr0"], HYP["momentum"], nesterov=True)
    average = copy.deepcopy(model).eval()

    def step() -> float:
        value, _ = loss(model(images), targets)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        with torch.no_grad():
            now = model.state_dict()
            for key, old in average.state_dict().items():
                if old.dtype.is_floating_point:
                    old.mul_(0.999).add_(now[key], alpha=0.001)
        return float(value.detach())

    return step


def _run_side(opt: Any) -> None:
    from utils.base.device import keep_freed_memory

    if opt.side == "train.py":
        run_rounds(_whole_training)
        return
    if opt.side == "ours":
        keep_freed_memory()
    model = make_model(opt.cfg, opt.side != "plain")
    model.checkpoint_activations = opt.side == "recomputing"
    start = current_memory()
    step = (plain_step if opt.side == "plain" else ours_step)(model, opt.img, opt.batch)
    run_rounds(lambda: {"loss": step(), "peak": peak_memory(), "start": start})


def _whole_training() -> dict[str, float]:
    """Train yolov5s at 640 for an epoch on random images, without validation."""
    import tempfile
    from pathlib import Path

    import cv2
    import numpy as np

    import train

    make_model("yolov5s.yaml", True)
    start = current_memory()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for kind in ("images", "labels"):
            (home / kind).mkdir()
        rng = np.random.default_rng(0)
        for index in range(96):
            noise = rng.integers(0, 255, (60, 80, 3), np.uint8)
            cv2.imwrite(str(home / "images" / f"{index}.jpg"), cv2.resize(noise, (640, 480)))
            boxes = "".join(f"{n % 3} {0.1 + 0.07 * n:.2f} 0.5 0.2 0.3\n" for n in range(12))
            (home / "labels" / f"{index}.txt").write_text(boxes)
        (home / "data.yaml").write_text(f"path: {home}\ntrain: images\nval: images\nnames: [a, b, c]\n")
        given = {"weights": "", "cfg": "yolov5s.yaml", "data": str(home / "data.yaml"), "project": str(home)}
        with open("/dev/null", "w") as nowhere:
            stdout, sys.stdout = sys.stdout, nowhere
            try:
                train.run(**given, epochs=1, imgsz=640, batch_size=16, noval=True, noplots=True, workers=2)
            finally:
                sys.stdout = stdout
        return {"peak": peak_memory(), "start": start}


if __name__ == "__main__":
    main()
