"""Time the four most common jobs, and the bare forward and training step on the same machine.

    python benchmarks/main_job.py --weights yolov5n.pt --trained best.pt --data bccd.yaml --images test

With `--segmenter x-seg.pt` also the segmentation scripts on the same data, whose labels then are polygons,
and their times as multiples of those of detection. With `--classifier x-cls.pt --folders cells` also the
classification scripts on class folders, at their image size. Wall time of whole processes. The bare forward
and training step are medians, measured between the jobs, so that noise of the machine is visible in both.
Nothing else should run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads do not spin; before torch is imported

IMGSZ, BATCH = 320, 16
SEGMENT, CLASSIFY = "segment: ", "classify: "
CLASSIFY_IMGSZ, CLASSIFY_BATCH = 96, 32


def parse_opt() -> argparse.Namespace:
    """Read the command line."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--weights", required=True, help="checkpoint for training and detection")
    p.add_argument(
        "--trained", required=True, help="checkpoint with the classes of the dataset, for validation"
    )
    p.add_argument("--data", required=True, help="dataset yaml")
    p.add_argument("--segmenter", help="segmentation checkpoint with the classes of the dataset")
    p.add_argument("--classifier", help="classification checkpoint with the classes of --folders")
    p.add_argument("--folders", help="class folders for the classifier; its val images are predicted")
    p.add_argument("--images", "--pictures", required=True, help="folder of images for detection")
    p.add_argument(
        "--repeats", type=int, default=1, help="number of runs of each job; the median is reported"
    )
    return p.parse_args()


def jobs(opt: argparse.Namespace, folder: str) -> dict[str, list[str]]:
    """Return the command line of each job."""
    size, output = ["--img", str(IMGSZ)], ["--project", folder, "--exist-ok"]
    train = ["train.py", *size, "--batch", str(BATCH), "--epochs", "3", "--data", opt.data]
    quick = ["--noval", "--nosave", "--noplots", *output]
    validated = ["--data", opt.data, "--batch", str(BATCH), *size, *output]
    found = {
        "train, 3 epochs": [*train, "--weights", opt.weights, *quick],
        "detect": ["detect.py", "--weights", opt.weights, "--source", opt.images, *size, *output],
        "val": ["val.py", "--weights", opt.trained, *validated],
        "--help": ["train.py", "--help"],
    }
    if opt.segmenter:
        model = ["--weights", opt.segmenter]
        found |= {
            f"{SEGMENT}train, 3 epochs": ["segment/train.py", *train[1:], *model, *quick],
            f"{SEGMENT}detect": ["segment/predict.py", *model, "--source", opt.images, *size, *output],
            f"{SEGMENT}val": ["segment/val.py", *model, *validated],
        }
    if opt.classifier and opt.folders:
        size = ["--img", str(CLASSIFY_IMGSZ)]
        on = ["--data", opt.folders, "--batch", str(CLASSIFY_BATCH), *size, *output]
        val = str(Path(opt.folders, "val", "*", "*"))
        found |= {
            f"{CLASSIFY}train, 3 epochs": [
                *("classify/train.py", "--model", opt.classifier, "--epochs", "3", "--nosave"),
                *("--noplots", "--noval", *on),
            ],
            f"{CLASSIFY}predict": [
                *("classify/predict.py", "--weights", opt.classifier, "--source", val, *size, *output)
            ],
            f"{CLASSIFY}val": ["classify/val.py", "--weights", opt.classifier, *on],
        }
    return found


def wall(command: list[str]) -> float:
    """Return the seconds of a whole process."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, cwd=sys.path[0])
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-300:]}")
    return time.perf_counter() - start


def bare(weights: str, repeats: int = 9) -> tuple[float, float]:
    """Return the median seconds of a fused forward of one image and of a training step of a batch."""
    import torch

    from models.weights import build_model, load_for_inference, read_checkpoint
    from utils.ops.loss import DetectionLoss

    fused = load_for_inference(weights, torch.device("cpu")).to(memory_format=torch.channels_last)
    image = torch.rand(1, 3, IMGSZ, IMGSZ).to(memory_format=torch.channels_last)
    model = build_model(read_checkpoint(weights)).train().to(memory_format=torch.channels_last)
    batch = torch.rand(BATCH, 3, IMGSZ, IMGSZ).to(memory_format=torch.channels_last)
    targets = torch.rand(12 * BATCH, 6) * torch.tensor([BATCH, 3, 1, 1, 0.3, 0.3])
    targets[:, :2] = targets[:, :2].floor()
    hyp = {"box": 0.05, "obj": 1.0, "cls": 0.5}
    loss = DetectionLoss(model.head.anchors, model.stride, model.nc, hyp)
    optimizer = torch.optim.SGD(model.parameters(), 1e-6, 0.9)
    forwards, steps = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        with torch.inference_mode():
            fused(image)
        forwards.append(time.perf_counter() - start)
        start = time.perf_counter()
        loss(model(batch), targets)[0].backward()
        optimizer.step()
        optimizer.zero_grad()
        steps.append(time.perf_counter() - start)
    return statistics.median(forwards[1:]), statistics.median(steps[1:])


def main() -> None:
    """Run the benchmark."""
    opt = parse_opt()
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'job':26}{'seconds':>10}{'bare forward ms':>18}{'bare step ms':>15}{'ratio':>8}")
        measured: dict[str, float] = {}
        for name, command in jobs(opt, folder).items():
            forward, step = bare(opt.weights)
            seconds = statistics.median(wall(command) for _ in range(opt.repeats))
            measured[name] = seconds
            other = measured.get(name.removeprefix(SEGMENT)) if name.startswith(SEGMENT) else None
            ratio = f"{seconds / other:8.2f}" if other else ""
            print(f"{name:26}{seconds:10.2f}{1e3 * forward:18.1f}{1e3 * step:15.0f}{ratio}", flush=True)


if __name__ == "__main__":
    main()
