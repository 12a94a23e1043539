"""The chain of 1-D convolutions in LSKA: compiled against plain PyTorch, and against the memory bandwidth.

python benchmarks/attention.py [--device cuda --batch 16]
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from timing import ResultTable, alternate, faster, format_seconds, parser, ratio, timed

if TYPE_CHECKING:
    from torch import Tensor, nn

SHAPES = ((64, 80), (128, 40), (512, 20))  # channels and side, as at strides 8, 16 and 32 of 640 px
KERNELS = (11, 23, 35)


def main() -> None:
    """Run the benchmark."""
    import torch

    from utils.base.device import keep_freed_memory

    keep_freed_memory()  # as all scripts of the project do
    p = parser(__doc__)
    p.add_argument("--batch", type=int, default=1, help="batch size")
    p.add_argument("--device", default="cpu", help="cpu, or cuda for the Triton kernels")
    opt = p.parse_args()
    os.environ["YOLOV5_TRITON"] = "1"  # without effect on the CPU
    table = ResultTable("Large separable kernels", opt.csv)
    for threads in (1, 2) if opt.device == "cpu" else (1,):
        torch.set_num_threads(threads)
        copying = bandwidth(opt.device)
        print(f"    copying reaches {copying / 1e9:.1f} GB/s on {threads} threads")
        for channels, side in SHAPES:
            for k in KERNELS:
                measure(table, opt, (opt.batch, channels, side, side), k, copying)


def measure(table: ResultTable, opt: Any, shape: tuple[int, int, int, int], k: int, copying: float) -> None:
    """Measure forward, and forward with backward, of one shape against the faster plain memory format."""
    import torch

    from models.attention.lska import LSKA
    from utils.native.chain import separable_chain

    block = LSKA(shape[1], k, init="paper").to(opt.device)
    stages = [block.conv0h, block.conv0v, block.conv_spatial_h, block.conv_spatial_v]
    x = torch.randn(shape, device=opt.device)
    channels_last = x.to(memory_format=torch.channels_last)
    sides = {
        "ours": (separable_chain, channels_last),
        "plain, channels last": (plain, channels_last),
        "plain": (plain, x),
    }
    where = f"{torch.get_num_threads()} threads" if opt.device == "cpu" else opt.device
    name = f"{shape[1]} x {shape[2]} x {shape[3]}, k={k}, {where}"
    moved = {"forward": 2, "both": 5}  # maps read or written: x and y; in backward x and both gradients
    for kind, work in (("forward", forward), ("both", both)):
        calls = {key: partial(work, run, images, stages) for key, (run, images) in sides.items()}
        seconds = alternate(calls, opt.rounds)
        best = min(("plain, channels last", "plain"), key=lambda key: sorted(seconds[key])[opt.rounds // 2])
        table.add(faster(f"{name}, {kind}", ">= 2", seconds, "ours", best))
        limit = moved[kind] * x.numel() * 4 / copying
        table.add(
            ratio(
                f"{name}, {kind}: over the memory's limit",
                "",
                seconds["ours"],
                [limit] * opt.rounds,
                f"limit {format_seconds(limit)}",
            )
        )


def plain(x: Tensor, stages: Sequence[nn.Conv2d]) -> Tensor:
    """Apply the convolutions one after another."""
    for stage in stages:
        x = stage(x)
    return x


def forward(run: Callable[..., Tensor], x: Tensor, stages: Sequence[nn.Conv2d]) -> None:
    """Run the chain without gradients."""
    import torch

    with torch.inference_mode():
        run(x, stages)
    synchronize(x)


def both(run: Callable[..., Tensor], x: Tensor, stages: Sequence[nn.Conv2d]) -> None:
    """Run the chain and compute the gradients of the input and of all weights."""
    import torch

    x = x.detach().requires_grad_()
    run(x, stages).backward(torch.ones_like(x))
    for stage in stages:
        stage.zero_grad()
    synchronize(x)


def synchronize(x: Tensor) -> None:
    """Wait until what was started on the device of x has ended."""
    import torch

    if x.is_cuda:
        torch.cuda.synchronize(x.device)


def bandwidth(device: str, size: int = 1 << 25) -> float:
    """Return bytes per second, read and written, when copying arrays that are larger than the caches."""
    import torch

    a, b = torch.zeros(2, size, device=device)
    return 2 * 4 * size / min(timed(lambda: synchronize(b.copy_(a))) for _ in range(9))


if __name__ == "__main__":
    main()
