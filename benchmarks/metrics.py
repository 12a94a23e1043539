"""Time the post-processing of a validation: NMS, matching and average precision.

    python benchmarks/metrics.py

NMS is compared with Python code that loops over images and classes and has the same result. Matching and
average precision are measured on 5,000 images with 300 detections each, in a process of their own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timing  # noqa: F401 - before torch, as it sets how idle threads wait
import torch
from timing import ROOT, ResultTable, alternate, faster, parser, ratio, timed
from torch import Tensor

from utils.ops.metrics import ConfusionMatrix
from utils.ops.nms import non_max_suppression
from utils.val.accumulator import MatchAccumulator

CONF, IOU, MAX_DET = 0.001, 0.6, 300  # defaults of val.py
CLASSES, SIDE = 80, 640
ANCHORS = {8: ((10, 13), (16, 30), (33, 23)), 16: ((30, 61), (62, 45), (59, 119))}
ANCHORS[32] = ((116, 90), (156, 198), (373, 326))
SECONDS, MEGABYTES = 10.0, 1024.0  # limits for matching and average precision
OBJECTS = 7.2  # per image, as in COCO val2017


def main() -> None:
    """Run the benchmark."""
    p = parser(__doc__)
    p.add_argument("--images", "--pictures", type=int, default=16, help="batch size for NMS")
    p.add_argument("--set", type=int, default=5000, help="number of images to match")
    p.add_argument("--job", choices=("legacy", "coco"), help=argparse.SUPPRESS)
    opt = p.parse_args()
    torch.set_num_threads(1)
    if opt.job:
        print(json.dumps(match_set(opt.set, opt.job)))
        return
    table = ResultTable("Suppression and metrics", opt.csv)
    nms(table, opt.images, min(opt.rounds, 3))
    for rule, rounds in (("legacy", min(opt.rounds, 3)), ("coco", min(opt.rounds, 3))):
        metrics(table, opt.set, rule, rounds)


def nms(table: ResultTable, images: int, rounds: int) -> None:
    """Compare NMS of an early epoch, 30,000 candidates per image; the results must be bit-equal."""
    decoded = early_epoch(images)
    found: dict[str, list[Tensor]] = {}
    sides = {
        "package": lambda: found.update(package=package(decoded)),
        "Python": lambda: found.update(python=in_python(decoded)),
    }
    seconds = alternate(sides, rounds, warm=0)
    same = zip(found["package"], found["python"], strict=True)
    assert all(torch.equal(one, other) for one, other in same), "the results differ"
    what = f"NMS of {images} images, 30,000 candidates each"
    table.add(faster(what, ">= 10", seconds, "package", "Python"))


def package(decoded: Tensor) -> list[Tensor]:
    """Run NMS as validation does."""
    return non_max_suppression(decoded, CONF, IOU, multi_label=True, max_det=MAX_DET)


def early_epoch(images: int) -> Tensor:
    """Return decoded boxes (images, 25200, 85) with low scores, as of a model in an early epoch."""
    generator = torch.Generator().manual_seed(0)
    levels = []
    for stride, anchors in ANCHORS.items():
        cells = torch.arange(SIDE // stride) * stride + stride / 2
        y, x = torch.meshgrid(cells, cells, indexing="ij")
        for width, height in anchors:
            size = torch.tensor((width, height)).expand(x.numel(), 2)
            levels.append(torch.cat((torch.stack((x, y), 2).view(-1, 2), size), 1))
    boxes = torch.cat(levels)
    decoded = torch.rand(images, len(boxes), 5 + CLASSES, generator=generator)
    decoded[..., :4] = boxes * (0.9 + 0.2 * decoded[..., :4])
    decoded[..., 4] = 0.002 + 0.018 * decoded[..., 4]
    products = decoded[..., 5:] * decoded[..., 4:5]
    for rows, scores in zip(decoded, products, strict=True):  # 30,000 products above the threshold
        rows[:, 5:] *= CONF / scores.flatten().topk(30_001).values[-1]
    return decoded


def in_python(decoded: Tensor) -> list[Tensor]:
    """Run greedy NMS in loops over images, classes and boxes."""
    results = []
    for rows in decoded.numpy():
        half = rows[:, 2:4] / 2
        xyxy = np.concatenate((rows[:, :2] - half, rows[:, :2] + half), 1)
        found = []
        for cls in range(CLASSES):
            score = rows[:, 5 + cls] * rows[:, 4]
            chosen = np.flatnonzero((rows[:, 4] > CONF) & (score > CONF))
            chosen = chosen[np.argsort(-score[chosen], kind="stable")]
            for box in survivors(xyxy[chosen].astype(np.float64)):
                number = chosen[box]
                found.append((-score[number], number, cls))
        best = sorted(found)[:MAX_DET]
        image = [[*xyxy[number], -minus, cls] for minus, number, cls in best]
        results.append(torch.from_numpy(np.array(image, np.float32)))
    return results


def survivors(xyxy: np.ndarray) -> list[int]:
    """Return the indices of the boxes (n, 4), best first, that greedy NMS keeps."""
    area = (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])
    left, kept = np.arange(len(xyxy)), []
    while len(left):
        best, left = int(left[0]), left[1:]
        kept.append(best)
        first, last = np.maximum(xyxy[best, :2], xyxy[left, :2]), np.minimum(xyxy[best, 2:], xyxy[left, 2:])
        shared = (last - first).clip(0).prod(1)
        left = left[shared / (area[best] + area[left] - shared) <= IOU]
    return kept


def metrics(table: ResultTable, images: int, rule: str, rounds: int) -> None:
    """Measure time and memory of matching, confusion matrix and average precision."""
    command = [sys.executable, str(Path(__file__).resolve()), "--job", rule, "--set", str(images)]
    runs = []
    for _ in range(rounds):
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        runs.append(json.loads(done.stdout))
    for name, limit, unit in (("seconds", SECONDS, "s"), ("megabytes", MEGABYTES, "MiB")):
        found = [run[name] for run in runs]
        sides = f"{float(np.median(found)):.3g} {unit} of {limit:g}; {runs[0]['labels']} labels"
        what = f"metrics of {images} x {MAX_DET} x {CLASSES}, {rule} rule: {name}"
        table.add(ratio(what, "<= 1", found, [limit] * len(found), sides))


def match_set(images: int, rule: str) -> dict[str, float]:
    """Match random images one by one and compute average precision; return seconds and added memory."""
    rng = np.random.default_rng(0)
    accumulator = MatchAccumulator(CLASSES, "coco" if rule == "coco" else "legacy")
    samples = [random_image(rng) for _ in range(50)]  # reused with changes, which takes no memory
    accumulator.add(*changed(samples[0], 0))
    accumulator.average_precision({})
    accumulator, confusion = MatchAccumulator(CLASSES, accumulator.rule), ConfusionMatrix(CLASSES)
    before = peak_megabytes()
    seconds, labels = 0.0, 0
    for number in range(images):
        detections, true = changed(samples[number % len(samples)], number)
        labels += len(true)
        seconds += timed(lambda d=detections, t=true: accumulator.add(d, t))
        seconds += timed(lambda d=detections, t=true: confusion.process_batch(d, t))
    seconds += timed(lambda: accumulator.average_precision({}))
    return {"seconds": seconds, "megabytes": peak_megabytes() - before, "labels": labels}


def peak_megabytes() -> float:
    """Return the peak memory of this process; `getrusage` would include that of its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def random_image(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return detections (300, 6), best first, of which half are near an object, and labels (n, 5)."""
    count = int(rng.poisson(OBJECTS)) + 1
    first = rng.uniform(0, SIDE - 200, (count, 2))
    boxes = np.concatenate((first, first + rng.uniform(10, 200, (count, 2))), 1)
    classes = rng.integers(0, CLASSES, count)
    source = rng.integers(0, count, MAX_DET)
    near = boxes[source] + rng.normal(0, 8, (MAX_DET, 4))
    first = rng.uniform(0, SIDE - 200, (MAX_DET, 2))
    far = np.concatenate((first, first + rng.uniform(10, 200, (MAX_DET, 2))), 1)
    right = rng.random(MAX_DET) < 0.5
    found = np.where(right, classes[source], rng.integers(0, CLASSES, MAX_DET))
    score = np.sort(rng.random(MAX_DET) ** 3)[::-1]
    detections = np.column_stack((np.where(right[:, None], near, far), score, found))
    return detections, np.column_stack((classes, boxes))


def changed(sample: Sequence[np.ndarray], number: int) -> tuple[Tensor, Tensor]:
    """Return detections and labels with other classes and confidences."""
    detections, labels = (torch.from_numpy(array.astype(np.float32)) for array in sample)
    detections[:, 4] *= 0.5 + 0.5 * ((number * 0.618) % 1)
    detections[:, 5] = (detections[:, 5] + number) % CLASSES
    labels[:, 0] = (labels[:, 0] + number) % CLASSES
    return detections, labels


if __name__ == "__main__":
    main()
