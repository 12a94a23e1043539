"""Measure what odd and hostile inputs cost: `python -m tests.cost` prints the table of docs/reliability.md.

Memory is that of a process which reads all inputs of a row, above that of one which reads none. Any
other outcome than an input that is read, or refused with a YoloError, ends the measurement.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import utils.data.dataset_yaml
import utils.data.download
import utils.data.images
import utils.data.labels
import utils.train.hyp  # noqa: F401
from tests.fuzz.targets import TARGETS, Target
from tests.models.test_hostile_checkpoints import CASES as HOSTILE
from tests.test_fuzz_cases import CASES, changed
from utils.base.errors import YoloError

NAMES = {
    "checkpoint": "checkpoints, changed",
    "description": "pickles of checkpoints, changed",
    "model-yaml": "model yamls, changed",
    "data-yaml": "data yamls, changed",
    "hyp-yaml": "hyp yamls, changed",
    "labels": "label files, changed",
    "image": "images, changed",
    "request": "requests to the server, changed",
    "zip": "zip archives, changed",
    "tar": "tar archives, changed",
    "tar.gz": "tar.gz archives, changed",
}


@dataclass
class Cost:
    """What a process has spent on inputs: how many were read or refused, the longest time, its memory."""

    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    megabytes: float = 0.0


def groups(inputs: int) -> Iterator[tuple[str, Target, list[bytes]]]:
    """Yield the name, the reader and the inputs of each row."""
    yield "hostile checkpoints", TARGETS["checkpoint"], list(HOSTILE.values())
    for name, target in TARGETS.items():
        found = [case.read_bytes() for case in CASES if case.parent.name == name]
        rng, seeds = random.Random(2), target.seeds()
        made = [changed(rng, rng.choice(seeds), rng.choice(seeds)) for _ in range(inputs)]
        yield NAMES[name], target, [*found, *made]


def measure(target: Target, inputs: list[bytes]) -> Cost:
    """Read the inputs in a process of its own."""
    receiving, sending = os.pipe()
    if not (child := os.fork()):
        os.close(receiving)
        os.write(sending, json.dumps(vars(_spend(target.read, inputs))).encode())
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving) as file:
        text = file.read()
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"an input ended the process with status {status}")
    return Cost(**{**json.loads(text), "megabytes": usage.ru_maxrss / 1024})


def _spend(read: Callable[[bytes], object], inputs: list[bytes]) -> Cost:
    cost = Cost()
    for data in inputs:
        start = time.perf_counter()
        try:
            read(data)
            cost.read += 1
        except YoloError:
            cost.refused += 1
        cost.seconds = max(cost.seconds, time.perf_counter() - start)
    return cost


def main() -> None:
    """Print a row for each kind of input."""
    parser = argparse.ArgumentParser(prog="python -m tests.cost", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000, help="changed inputs of each kind")
    options = parser.parse_args()
    logging.getLogger("yolov5").setLevel(logging.CRITICAL)
    sys.stdout.flush()
    columns = ["input", "number", "read", "refused in one line", "largest, kB"]
    print("|", " | ".join([*columns, "most memory, MB", "longest, s"]), "|")
    print("|---|---|---|---|---|---|---|")
    for name, target, inputs in groups(options.inputs):
        idle, cost = measure(target, []), measure(target, inputs)
        memory, size = max(cost.megabytes - idle.megabytes, 0), max(map(len, inputs)) / 1000
        print(
            f"| {name} | {len(inputs)} | {cost.read} | {cost.refused} | {size:.1f} | {memory:.0f} | "
            f"{cost.seconds:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
