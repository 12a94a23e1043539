"""Profile a training step and a forward pass with torch.profiler.

python benchmarks/profiles.py
py-spy record -f raw -o detect.txt -- python detect.py --weights yolov5n.pt --source DIR --img 320
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from step import make_model, ours_step
from timing import describe_machine

PASSES = 6


def main() -> None:
    """Profile both and print the operators that take more than 1 % of the time."""
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    import torch

    from utils.base.device import keep_freed_memory

    keep_freed_memory()
    print(describe_machine())
    shares("training step of yolov5n, 16 at 320", ours_step(make_model("yolov5n.yaml", True), 320, 16))
    model = make_model("yolov5n.yaml", True).eval().fuse()
    image = torch.rand(1, 3, 640, 640).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        shares("forward pass of yolov5n, one image at 640", lambda: model(image))


def shares(what: str, work: Callable[[], Any]) -> None:
    """Print the share of CPU time of each operator, without its children."""
    import torch

    for _ in range(3):
        work()
    with torch.profiler.profile() as profile:
        for _ in range(PASSES):
            with torch.profiler.record_function("(Python, and our kernels without gradients)"):
                work()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    print(f"\n{what}: {total / PASSES / 1e3:.1f} ms")
    for event in events:
        if event.self_cpu_time_total > total / 100:
            print(f"    {event.self_cpu_time_total / total:6.1%}  {event.key}")


if __name__ == "__main__":
    sys.exit(main())
