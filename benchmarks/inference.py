"""Images per second of the predict and val scripts, against the bare forward of the same model and shapes.

    python benchmarks/inference.py                                # detect.py and val.py
    python benchmarks/inference.py --task segment classify        # segment/predict.py, classify/val.py, ...
    python benchmarks/inference.py --weights best.pt --data cells.yaml --img 320 640

`bare` is the model alone on images in memory, on all cores. The predict scripts are measured from reading the
files to writing the results, without loading the weights; the val scripts without plots.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

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
from utils.data.images import read_image
from utils.data.letterbox import letterbox, to_tensor
from utils.data.loader import make_loader
from utils.ops.nms import non_max_suppression
from utils.predict.detect_options import DetectOptions
from utils.predict.detector import detect as run_predict
from utils.predict.predictor import Prepared
from utils.sources.source import FileSource, find_source
from utils.tasks.classify.options import ClassifyPredictOptions
from utils.tasks.segment.options import PredictOptions
from utils.tasks.task import Task, get_task
from utils.val.evaluate import evaluate
from utils.val.runner import ModelRunner

SHARED = ROOT.parent / "shared"
CPU = torch.device("cpu")
LARGE = 480  # larger image sizes are measured on every third image


class Subject(NamedTuple):
    """What is measured of a task by default, and the options of its predict script."""

    weights: str
    data: str
    sizes: tuple[int, ...]
    options: type[DetectOptions]


SUBJECTS = {
    "detect": Subject("bccd_yolov5n.pt", "bccd.yaml", (320, 640), DetectOptions),
    "segment": Subject("nuclei-seg.pt", "nuclei.yaml", (320, 640), PredictOptions),
    "classify": Subject("cells-cls.pt", "cells", (224,), ClassifyPredictOptions),
}
# Targets of detection; the other tasks are only reported.
PREDICT, VAL = {"detect": ">= 0.95"}, {"detect": ">= 0.8"}


def main() -> None:
    """Run the benchmark."""
    opt = options()
    LOG.addHandler(logging.NullHandler())
    LOG.propagate = False
    table = ResultTable("The predict and val scripts against the bare forward", opt.csv)
    for name in opt.task:
        measure(table, opt, get_task(name), SUBJECTS[name])


def options() -> argparse.Namespace:
    """Read the command line; a missing file is an error before anything is measured."""
    p = parser(__doc__)
    p.add_argument("--task", nargs="+", default=["detect"], choices=SUBJECTS, help="task(s) to measure")
    p.add_argument("--weights", default="", help="checkpoint with the classes of --data")
    p.add_argument("--data", default="", help="dataset yaml or folder; its test split, or else val, is used")
    p.add_argument("--img", nargs="+", type=int, help="image size(s) (pixels)")
    opt = p.parse_args()
    if len(opt.task) > 1 and (opt.weights or opt.data):
        p.error("--weights and --data are for one --task")
    for name in opt.task:
        subject = SUBJECTS[name]
        for path in (
            opt.weights or SHARED / "weights" / subject.weights,
            opt.data or SHARED / "data" / subject.data,
        ):
            if not Path(path).exists():
                p.error(f"{path}: no such file or folder")
    return opt


def measure(table: ResultTable, opt: argparse.Namespace, task: Task, subject: Subject) -> None:
    """Measure both scripts of a task."""
    weights = opt.weights or relative_to_cwd(SHARED / "weights" / subject.weights)
    data = opt.data or relative_to_cwd(SHARED / "data" / subject.data)
    sizes = opt.img or subject.sizes
    backend = load_backend([weights], CPU)
    before = set(Path(data).resolve().parent.rglob("*.cache.npz"))
    flags = {"weights": [weights], "data": data, "imgsz": min(sizes), "batch_size": 16}
    settings = options_from(task.val_options(), flags)
    spec = task.read_val_data(settings)
    split = "test" if getattr(spec, "test", None) else "val"
    try:
        dataset = task.make_val_dataset(settings, split, spec, backend)
        files = sorted(str(path) for path in dataset.image_files)
        for size in sizes:
            prediction(table, opt.rounds, Prediction(task, subject.options, backend, size), files)
        validation(table, opt.rounds, task, backend, dataset, task.names_of(backend, spec))
    finally:
        for made in set(Path(data).resolve().parent.rglob("*.cache.npz")) - before:
            made.unlink()


class Prediction(NamedTuple):
    """A predict script with a model that is already loaded, and an image size."""

    task: Task
    options: type[DetectOptions]
    backend: Backend
    size: int

    def run(self, source: str, project: str, **flags: object) -> None:
        """Run the script."""
        run_predict(self._options(source, project, **flags), load=lambda _: self.backend)

    def frames(self, source: str) -> list[Prepared]:
        """Read all images, and prepare them for the model."""
        predictor = self.task.predictor()(self._options(source, ""), self.backend)
        found = find_source(source)
        assert isinstance(found, FileSource)
        return [predictor.prepare(item) for item in found.items()]

    def _options(self, source: str, project: str, **flags: object) -> Any:
        values = {"source": source, "project": project, "imgsz": self.size, "device": "cpu", "exist_ok": True}
        return options_from(self.options, {**values, **flags})


def prediction(table: ResultTable, rounds: int, script: Prediction, files: list[str]) -> None:
    """Measure a predict script with and without saving, for single images and batches."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "images.txt")
        source.write_text(
            "".join(f"{Path(path).resolve()}\n" for path in files[:: 3 if script.size > LARGE else 1])
        )
        frames = script.frames(str(source))
        tensors = [to_tensor([frame.letterboxed], CPU) for frame in frames]

        def bare() -> None:
            with torch.inference_mode():
                for image in tensors:
                    script.backend(image)

        run = partial(script.run, str(source), str(Path(folder, "runs")))
        sides: dict[str, Callable[[], object]] = {
            "bare": bare,
            "script": run,
            "nosave": partial(run, nosave=True),
            "batch 8": partial(run, batch_size=8),
        }
        seconds = alternate(sides, rounds)
    what = f"{script.task.scripts[2]}, images a second, {len(frames)} images at {script.size}"
    table.add(faster(what, PREDICT.get(script.task.name, ""), seconds, "script", "bare"))
    table.add(faster("  without saving", "", seconds, "nosave", "bare"))
    table.add(faster("  --batch-size 8, saving", "", seconds, "batch 8", "bare"))
    if script.task.name != "detect":
        return
    others = cpu_of(one_thread(lambda: without_model(script.backend, frames, script.size)))
    for words, work in (("a core for each image", one_thread(bare)), ("all cores for each image", bare)):
        forward = cpu_of(work)
        bound = (forward + others) / usable_cores()
        parts = f"processor: forward {forward:.3g} s, files and NMS {others:.3g} s"
        table.add(ratio(f"  bound: {words}, none ever idle", "", seconds["bare"], [bound] * rounds, parts))


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


def validation(
    table: ResultTable, rounds: int, task: Task, backend: Backend, dataset: Any, names: dict[int, str]
) -> None:
    """Compare a val script with the bare forward of the same batches."""
    loader = make_loader(dataset, 16)
    runner = ModelRunner(backend, CPU)
    batches = [task.normalize(runner.prepare(batch.images)) for batch in loader]

    def bare() -> None:
        with torch.inference_mode():
            for images in batches:
                backend(images)

    def whole() -> None:
        evaluate(backend, loader, names, device=CPU, evaluator=task.evaluator())

    try:
        seconds = alternate({"bare": bare, "val": whole}, rounds)
        what = f"{task.scripts[1]}, images a second, {len(dataset)} images at {dataset.imgsz}, batch 16"
        table.add(faster(what, VAL.get(task.name, ""), seconds, "val", "bare"))
        alone = make_loader(dataset, 16, workers=0)  # all its work is in this process
        every = cpu_of(lambda: evaluate(backend, alone, names, device=CPU, evaluator=task.evaluator()))
        parts = f"processor: forward {cpu_of(bare):.3g} s, all {every:.3g} s"
        bound = [every / usable_cores()] * rounds
        table.add(ratio("  bound: no core ever idle", "", seconds["bare"], bound, parts))
    finally:
        loader.close()


if __name__ == "__main__":
    main()
