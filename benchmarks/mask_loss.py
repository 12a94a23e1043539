"""Time and memory of the mask loss, in blocks as ours and as one tensor (matches, h, w) as in YOLOv5.

    python benchmarks/mask_loss.py --objects 10 100 1000

Each measurement runs in a process of its own, whose peak memory above that before the loss is reported.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

sys.path[0] = str(Path(__file__).resolve().parents[1])

BATCH, SIDE, REPEATS = 4, 640, 3
WAYS = ("blocks", "whole")


def parse_opt() -> argparse.Namespace:
    """Read the command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--objects", type=int, nargs="+", default=[10, 100, 1000], help="objects per image")
    p.add_argument("--one", nargs=2, metavar=("WAY", "OBJECTS"), help=argparse.SUPPRESS)
    return p.parse_args()


def measure(way: str, objects: int) -> dict[str, float]:
    """Return seconds, megabytes and value of the mask loss of a batch, forward and backward."""
    import torch

    from utils.tasks.segment import loss as ours

    torch.manual_seed(0)
    protos = torch.randn(BATCH, 32, SIDE // 4, SIDE // 4, requires_grad=True)
    targets = torch.rand(BATCH * objects, 6)
    targets[:, 0] = torch.arange(BATCH).repeat_interleave(objects)
    targets[:, 4:] = targets[:, 4:] * 0.1 + 0.02
    masks = torch.randint(0, objects + 1, (BATCH, SIDE // 4, SIDE // 4))
    truth = ours._TrueMasks(targets, masks, protos, overlap=True)
    matches = 8 * objects  # of an image: several cells, anchors and levels for each object
    coefficients = torch.randn(BATCH, matches, 32, requires_grad=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(REPEATS):
        start, total = time.perf_counter(), protos.new_zeros(())
        for image in range(BATCH):
            target = torch.arange(matches) % objects + image * objects
            wanted = ours._Wanted(target, truth.boxes[target], torch.full((matches,), 1 / matches))
            term = _whole if way == "whole" else ours._MaskTerm.apply
            total = total + term(coefficients[image], protos[image], wanted, truth)
        total.backward()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": min(seconds), "megabytes": (peak - before) / 1024, "loss": float(total)}


def _whole(coefficients: Tensor, protos: Tensor, wanted: Any, truth: Any) -> Tensor:
    """Compute the term with one tensor of all matches and pixels."""
    from torch.nn import functional

    from utils.tasks.segment.masks import crop_mask

    height, width = protos.shape[1:]
    logits = (coefficients @ protos.flatten(1)).view(-1, height, width)
    image, owners = int(truth.image[wanted.target[0]]), truth.owners(wanted.target)
    true = truth.part(image, owners, slice(0, height), slice(0, width)).float()
    entropy = functional.binary_cross_entropy_with_logits(logits, true, reduction="none")
    return (crop_mask(entropy, wanted.boxes).sum((1, 2)) * wanted.weight).sum()


def main() -> None:
    """Run the benchmark."""
    opt = parse_opt()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads do not spin; before torch is imported
    if opt.one:
        print(json.dumps(measure(opt.one[0], int(opt.one[1]))))
        return
    print(f"batch {BATCH}, {SIDE} px\n{'objects':>8}{'way':>8}{'seconds':>10}{'MB':>8}{'loss':>12}")
    for objects in opt.objects:
        for way in WAYS:
            command = [sys.executable, __file__, "--one", way, str(objects)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{objects:8}{way:>8}    ended with {done.returncode}, perhaps for lack of memory")
                continue
            found = json.loads(done.stdout)
            numbers = f"{found['seconds']:10.3f}{found['megabytes']:8.0f}{found['loss']:12.5f}"
            print(f"{objects:8}{way:>8}{numbers}", flush=True)


if __name__ == "__main__":
    main()
