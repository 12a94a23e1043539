"""Detect objects in a source: read -> letterbox -> tensor -> model -> NMS -> write, and report."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from models.backends import load_backend
from models.backends.base import Backend, cpu_batch_size
from models.user_blocks import load_blocks, loaded_blocks
from utils.base.device import select_device
from utils.base.errors import memory_errors
from utils.base.log import LOG, color
from utils.base.options import changed
from utils.base.parallel import MAX_WORKERS, WorkerPool, prefetch, run_now
from utils.base.paths import check_writable, claim_folder, increment_path, remove_if_empty
from utils.base.processes import told_of_others
from utils.base.timing import STAGES
from utils.data.images import is_video
from utils.predict.detect_options import DetectOptions
from utils.predict.predictor import FrameResult, Predictor, Prepared
from utils.predict.writers import DetectOutputs, Window
from utils.sources.frame import Frame
from utils.sources.source import FileSource, ImageFile, Source, find_source
from utils.tasks.task import get_task

AHEAD_BATCHES = 2  # made by `prefetch` before they are needed
AHEAD_IMAGES = 4  # read by the workers before they are needed

Prepare = Callable[[ImageFile | Frame], "Prepared"]


@dataclass
class DetectSummary:
    """Counts and times of a run."""

    save_dir: Path
    frames: int = 0
    skipped: int = 0  # files or streams that could not be read
    detections: int = 0
    label_files: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))  # total

    def add(self, result: FrameResult) -> None:
        """Count one frame."""
        self.frames += 1
        self.detections += len(result.rows)
        for stage, seconds in zip(STAGES, result.seconds, strict=True):
            self.seconds[stage] += seconds


def detect(options: DetectOptions, load: Callable[[DetectOptions], Backend] | None = None) -> DetectSummary:
    """Run the script of any task on everything that `options.source` names.

    The source and the weights are checked before the run folder is made. Ctrl-C closes all files and logs
    the report before KeyboardInterrupt is raised.

    Args:
        options: what to detect, and what to save.
        load: opens the model; by default the one of `options.weights`.

    Raises:
        ConfigError, DataError: see `utils.sources.source` and `models.backends`.
    """
    check_writable(increment_path(Path(options.project) / options.name, options.exist_ok))
    load_blocks(options.blocks)
    source = find_source(options.source, options.vid_stride)
    backend = (load or open_backend)(options)
    task = get_task(options.model_task)
    task.check(backend.task, " ".join(options.weights), task.scripts[2])
    predictor = task.predictor()(options, backend)
    height, width = predictor.imgsz
    size = options.batch_size or default_batch_size(options, backend, height, width)
    options = changed(options, batch_size=1 if options.visualize else size)  # feature maps: one image each
    predictor.options = options
    sides = (predictor.imgsz if height != width else predictor.imgsz[:1]) if backend.pt else ()
    if not (backend.pt and backend.device.type == "cpu"):  # PyTorch on a CPU needs no warm-up
        with memory_errors(1, sides):
            backend.warmup((1, 3, height, width))
    save_dir = claim_folder(Path(options.project) / options.name, options.exist_ok)
    save_images = not options.nosave and source.saves_images
    summary = DetectSummary(save_dir)
    try:
        with (
            memory_errors(options.batch_size or 1, sides),
            told_of_others(save_dir, options.exist_ok),
            WorkerPool(backend.device, _most_workers(options, backend, source)) as workers,
            predictor.outputs_class(
                save_dir, source.files, backend.names, options, save_images, workers
            ) as outputs,
        ):
            batches = make_batches(source, predictor.prepare, options.batch_size, workers)
            _run(batches, predictor, outputs, workers, summary)
    finally:
        summary.skipped = source.skipped
        remove_if_empty(save_dir)
        _report(summary, predictor, save_images or options.save_txt, options.save_txt)
    if options.update:
        _strip(options.weights[0])
    return summary


def open_backend(options: DetectOptions) -> Backend:
    """Load the model of `options.weights`."""
    task = get_task(options.model_task)
    only_checkpoints = all(name.endswith(".pt") for name in options.weights)
    backend = load_backend(
        options.weights,
        select_device(options.device),
        names=None if only_checkpoints else task.read_names(options.data),
        half=options.half,
        dnn=options.dnn,
        runtime=options.runtime,
    )
    backend.names = task.shown_names(backend.names)
    backend.warn_about_conf_thres(options.conf_thres)
    return backend


def default_batch_size(options: DetectOptions, backend: Backend, height: int, width: int) -> int:
    """Return the batch size for PyTorch on a CPU; 1 with --view-img, and elsewhere, which is not measured."""
    if options.view_img or not backend.pt or backend.device.type != "cpu":
        return 1
    return cpu_batch_size(height, width)


def make_batches(
    source: Source, prepare: Prepare, batch_size: int, workers: WorkerPool
) -> Generator[list[Prepared], None, None]:
    """Return batches of prepared frames of one shape: read ahead from files, the newest of live sources."""
    if not isinstance(source, FileSource):
        return (group for frames in source.batches() for group in same_shape(map(prepare, frames)))
    batches = same_shape(_prepare_files(source, prepare, workers), batch_size)
    if workers.count > 1 and _only_images(source):  # the workers read ahead
        return batches
    return prefetch(batches, AHEAD_BATCHES)


def _prepare_files(
    source: FileSource, prepare: Prepare, workers: WorkerPool
) -> Generator[Prepared, None, None]:
    """Yield the frames of all files in order; the workers read image files, this thread decodes videos."""

    def start(item: ImageFile | Frame) -> Future[Prepared]:
        submit = workers.submit if isinstance(item, ImageFile) else run_now
        return submit(prepare, item)

    any_read = False
    with closing(workers.in_order(start, source.items(), AHEAD_IMAGES)) as futures:
        for item, future in futures:
            with source.skipping(item.path):
                prepared = future.result()
                any_read = True
                yield prepared
    if not any_read:
        raise source.nothing_read()


def same_shape(
    prepared: Iterable[Prepared], most: int | None = None
) -> Generator[list[Prepared], None, None]:
    """Group neighbours whose letterboxed images have one shape, at most `most` of them."""
    group: list[Prepared] = []
    for item in prepared:
        if group and item.letterboxed.shape != group[0].letterboxed.shape:
            yield group
            group = []
        group.append(item)
        if len(group) == most:
            yield group
            group = []
    if group:
        yield group


def _run(
    batches: Generator[list[Prepared], None, None],
    predictor: Predictor,
    outputs: DetectOutputs,
    workers: WorkerPool,
    summary: DetectSummary,
) -> None:
    """Predict, write and log until the source ends or the user presses `q` in a window."""
    predictions = workers.map(partial(predictor.predict, outputs), batches)
    with closing(batches), closing(predictions), closing(Window()) as window:
        for results in predictions:
            stop = False
            for result in results:
                image = outputs.write(result.frame, result.rows, result.masks)
                summary.add(result)
                summary.label_files = outputs.label_files
                LOG.info(describe(result, predictor.describe(result)))
                stop |= predictor.options.view_img and not window.show(outputs.stem(result.frame), image)
            if stop:
                return


def describe(result: FrameResult, found: str) -> str:
    """Return the log line of a frame: `image 1/2 /path: 640x480 4 persons, 1 bus, 23.4ms`."""
    frame, (height, width) = result.frame, result.input_hw
    number = f"{frame.kind} {frame.index}/{frame.count}"
    if frame.kind != "image":
        number += f" ({frame.frame_number}/{frame.total})" if frame.total else f" ({frame.frame_number})"
    return f"{number} {frame.path}: {height}x{width} {found}, {1e3 * result.seconds[1]:.1f}ms"


def _only_images(source: Source) -> bool:
    return isinstance(source, FileSource) and not any(map(is_video, source.files))


def _most_workers(options: DetectOptions, backend: Backend, source: Source) -> int:
    """Return how many batches there are to run side by side.

    Other runtimes use all cores for one; a block of the user may keep something between calls.
    """
    if not isinstance(source, FileSource) or options.visualize or not backend.pt or loaded_blocks():
        return 1
    return -(-len(source.files) // options.batch_size) if _only_images(source) else MAX_WORKERS


def _report(summary: DetectSummary, predictor: Predictor, saved: bool, labels: bool) -> None:
    """Log the speed, how much was skipped, and where the results are."""
    if summary.frames:
        means = (1e3 * value / summary.frames for value in summary.seconds.values())
        speeds = (f"{mean:.1f}ms {stage}" for mean, stage in zip(means, predictor.stages, strict=True))
        LOG.info(f"Speed: {', '.join(speeds)} per image at shape {(1, 3, *predictor.imgsz)}")
    if summary.skipped:
        LOG.warning(f"{summary.skipped} of the source's files or streams could not be read")
    if summary.frames and saved:
        more = f"\n{summary.label_files} labels saved to {summary.save_dir / 'labels'}" if labels else ""
        LOG.info(f"Results saved to {color(str(summary.save_dir), 'bold')}{more}")


def _strip(weights: str) -> None:
    from models.official_weights import locate_weights
    from models.weights import strip_checkpoint

    if not weights.endswith(".pt"):
        LOG.warning(f"--update: {weights} is not a .pt file, there is nothing to strip")
        return
    strip_checkpoint(locate_weights(weights))
