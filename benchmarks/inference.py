"""Images per second of detect.py and val.py, against the bare forward of the same model and shapes.

    python benchmarks/inference.py
    python benchmarks/inference.py --weights best.pt --source images/ --data cells.yaml --img 320 640

`bare` is the model alone on images in memory, one at a time, on all cores. detect.py is measured from reading
the files to writing the results, without loading the weights.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import timing  # noqa: F401 - before torch, as it sets how idle threads wait
import torch
from timing import ROOT, ResultTable, alternate, faster, parser, ratio

from models.backends import load_backend
from models.backends.base import Backend
from utils.base.log import LOG
from utils.base.options import options_from
from utils.base.paths import relative_to_cwd
from utils.base.processes import usable_cores
from utils.data.dataset import DetectionDataset
from utils.data.dataset_yaml import read_data_yaml
from utils.data.images import read_image
from utils.data.letterbox import letterbox, to_tensor
from utils.data.loader import make_loader
from utils.ops.nms import non_max_suppression
from utils.predict.detect_options import DetectOptions
from utils.predict.detector import detect as run_detect
from utils.predict.predictor import Prepared, prepare_frame
from utils.sources.source import FileSource, find_source
from utils.val.evaluate import evaluate

SHARED = ROOT.parent / "shared"
CPU = torch.device("cpu")
LARGE = 480  # larger image sizes are measured on every third image


def main() -> None:
    """Run the benchmark."""
    opt = options()
    LOG.addHandler(logging.NullHandler())
    LOG.propagate = False
    table = ResultTable("detect.py and val.py against the bare forward", opt.csv)
    backend = load_backend([opt.weights], CPU)
    with tempfile.TemporaryDirectory() as folder:
        for size in opt.img:
            files = find_source(opt.source).files[:: 3 if size > LARGE else 1]
            images = Path(folder, f"images{size}")
            images.mkdir()
            for file in files:
                (images / file.name).symlink_to(file)
            detection(table, opt.rounds, backend, images, size)
        validation(table, opt.rounds, backend, opt.data, min(opt.img))


def options() -> argparse.Namespace:
    """Read the command line; a missing file is an error before anything is measured."""
    data = SHARED / "data"
    p = parser(__doc__)
    weights = SHARED / "weights" / "bccd_yolov5n.pt"
    p.add_argument(
        "--weights", default=relative_to_cwd(weights), help="checkpoint with the classes of --data"
    )
    p.add_argument(
        "--source", default=relative_to_cwd(data / "bccd" / "images" / "test"), help="folder of images"
    )
    p.add_argument(
        "--data", default=relative_to_cwd(data / "bccd.yaml"), help="dataset yaml; its test split is used"
    )
    p.add_argument("--img", nargs="+", type=int, default=[320, 640], help="image size(s) (pixels)")
    opt = p.parse_args()
    for flag in ("weights", "source", "data"):
        if not Path(getattr(opt, flag)).exists():
            p.error(f"--{flag} {getattr(opt, flag)}: no such file or folder")
    return opt


def detection(table: ResultTable, rounds: int, backend: Backend, folder: Path, size: int) -> None:
    """Measure detect.py with and without saving, for single images and batches."""
    frames = read(folder, backend, size)
    images = [to_tensor([frame.letterboxed], CPU) for frame in frames]

    def bare() -> None:
        with torch.inference_mode():
            for image in images:
                backend(image)

    with tempfile.TemporaryDirectory() as output:
        run = partial(run_on, backend, str(folder), output, size)
        sides: dict[str, Callable[[], object]] = {
            "bare": bare,
            "detect": run,
            "nosave": partial(run, nosave=True),
            "batch 8": partial(run, batch_size=8),
        }
        seconds = alternate(sides, rounds)
    images_at_size = f"{len(frames)} images at {size}"
    table.add(faster(f"detect.py, images a second, {images_at_size}", ">= 0.95", seconds, "detect", "bare"))
    table.add(faster("  without saving", "", seconds, "nosave", "bare"))
    table.add(faster("  --batch-size 8, saving", "", seconds, "batch 8", "bare"))
    files = cpu_of(one_thread(lambda: without_model(backend, frames, size)))
    for words, work in (("a core for each image", one_thread(bare)), ("all cores for each image", bare)):
        forward = cpu_of(work)
        bound = (forward + files) / usable_cores()
        parts = f"processor: forward {forward:.3g} s, files and NMS {files:.3g} s"
        table.add(ratio(f"  bound: {words}, none ever idle", "", seconds["bare"], [bound] * rounds, parts))


def read(folder: Path, backend: Backend, size: int) -> list[Prepared]:
    """Read and letterbox all images."""
    source = find_source(str(folder))
    assert isinstance(source, FileSource)
    return [prepare_frame(item, (size, size), backend.stride, auto=True) for item in source.items()]


def run_on(backend: Backend, source: str, project: str, size: int, **flags: object) -> None:
    """Run detect.py with a model that is already loaded."""
    values = {"source": source, "project": project, "imgsz": size, "device": "cpu", "exist_ok": True}
    run_detect(options_from(DetectOptions, {**values, **flags}), load=lambda _: backend)


def without_model(backend: Backend, frames: list[Prepared], size: int) -> None:
    """Do the work of detect.py once, except the forward pass and drawing."""
    with torch.inference_mode():
        decoded = backend(to_tensor([frames[0].letterboxed], CPU))
        for frame, _ in frames:
            original = read_image(frame.path)
            to_tensor([letterbox(original, size, stride=backend.stride)[0]], CPU)
            non_max_suppression(decoded)
            cv2.imencode(frame.path.suffix, original, [cv2.IMWRITE_JPEG_QUALITY, 95])


def one_thread(work: Callable[[], None]) -> Callable[[], None]:
    """Return `work` with PyTorch limited to one thread."""

    def limited() -> None:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        work()
        torch.set_num_threads(threads)

    return limited


def cpu_of(work: Callable[[], None]) -> float:
    """Return the CPU seconds of a call, after a warm-up call."""
    work()
    start = time.process_time()
    work()
    return time.process_time() - start


def validation(table: ResultTable, rounds: int, backend: Backend, yaml: str, size: int) -> None:
    """Compare val.py, without plots, with the bare forward of the same batches."""
    spec = read_data_yaml(yaml)
    before = set(Path(yaml).resolve().parent.rglob("*.cache.npz"))
    dataset = DetectionDataset(
        spec.test or spec.val,
        size,
        batch_size=16,
        stride=backend.stride,
        rect=True,
        pad=0.5,
        names=spec.names,
    )
    loader = make_loader(dataset, 16)
    batches = [batch.images.float().contiguous(memory_format=torch.channels_last) / 255 for batch in loader]

    def bare() -> None:
        with torch.inference_mode():
            for images in batches:
                backend(images)

    def whole() -> None:
        evaluate(backend, loader, spec.names, device=CPU)

    try:
        seconds = alternate({"bare": bare, "val": whole}, rounds)
        what = f"val.py, images a second, {len(dataset)} images at {size}, batch 16"
        table.add(faster(what, "", seconds, "val", "bare"))
    finally:
        loader.close()
        for made in set(Path(yaml).resolve().parent.rglob("*.cache.npz")) - before:
            made.unlink()


if __name__ == "__main__":
    main()
