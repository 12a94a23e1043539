"""Detection from source to files: read ahead, find boxes, write, report."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from utils.base.errors import ConfigError
from utils.base.log import LOG, color
from utils.base.names import class_names
from utils.base.options import changed
from utils.base.paths import find_file, increment_path
from utils.base.timing import Stopwatch
from utils.base.yaml_io import read_yaml
from utils.data.letterbox import check_img_size
from utils.predict.detect_options import DetectOptions
from utils.predict.writers import DetectOutputs, Window
from utils.sources.files import Frame, is_image
from utils.sources.prefetch import prefetch
from utils.sources.source import Source, find_source, fitting

if TYPE_CHECKING:
    import torch

    from utils.predict.parallel import WorkerPool

GOOD_PIXELS, MOST_TOGETHER = 8 * 320 * 320, 8  # of a batch on the CPU
AHEAD = 2  # batches read before they are needed
STAGES = ("pre-process", "inference", "NMS")


class Backend(Protocol):
    """What this module needs of `models.backends`."""

    stride: int
    names: dict[int, str]
    pt: bool  # takes any size that its stride divides; else always the full --imgsz
    fp16: bool
    device: torch.device

    def __call__(self, images: Any, augment: bool = False, visualize: Any = None) -> Any:
        """Images (B, 3, H, W) -> decoded (B, N, 5 + nc); `visualize` is called as (layer, output)."""
        ...

    def warmup(self, shape: tuple[int, int, int, int]) -> None:
        """Run once on zeros, so that the first image is not slower than the others."""
        ...


@dataclass
class DetectSummary:
    """How a run went."""

    save_dir: Path
    frames: int = 0
    skipped: int = 0  # files or streams that could not be read
    detections: int = 0
    label_files: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))  # in all


def detect(options: DetectOptions, load: Callable[[DetectOptions], Backend] | None = None) -> DetectSummary:
    """Detect objects in everything that `options.source` names.

    The source and the weights are checked before a run folder is made. On Ctrl-C all files are closed and
    the report is printed before the exception goes on.

    Raises:
        ConfigError, DataError: see `utils.sources.source` and `models.backends`.
    """
    source = find_source(options.source, options.vid_stride)
    backend = (load or _load_backend)(options)
    height, width = check_img_size(options.imgsz, stride=backend.stride)
    _check_classes(options, backend)
    options = changed(options, batch_size=options.batch_size or _good_batch(options, backend, height * width))
    if not (backend.pt and backend.device.type == "cpu"):  # there the first image warms up well enough
        backend.warmup((1, 3, height, width))
    save_dir = increment_path(Path(options.project) / options.name, options.exist_ok)
    save_dir.mkdir(parents=True, exist_ok=True)
    save_images = not options.nosave and source.saves_images
    run = _Run(options, backend, DetectSummary(save_dir), _worker_pool(options, backend, source))
    fit = fitting((height, width), backend.stride, auto=backend.pt)
    try:
        with (
            run.workers.pool() as pool,
            DetectOutputs(save_dir, source.files, backend.names, options, save_images, pool) as outputs,
        ):
            run.go(_reading(source, fit, options, run.workers, pool), outputs, pool)
    finally:
        run.summary.skipped = source.skipped
        _remove_if_empty(save_dir)
        run.report((height, width), something_saved=save_images or options.save_txt)
    if options.update:
        _strip(options.weights[0])
    return run.summary


@dataclass(frozen=True)
class _Found:
    """What was found in one image, how it is said, and seconds of each stage that it took."""

    frame: Frame
    rows: np.ndarray  # (n, 6) in whole pixels of the image
    line: str
    seconds: tuple[float, ...]


class _Run:
    """One pass over a source: forward, thin out, write, count."""

    def __init__(
        self, options: DetectOptions, backend: Backend, summary: DetectSummary, workers: WorkerPool
    ) -> None:
        self.options = options
        self.backend = backend
        self.summary = summary
        self.workers = workers

    def go(
        self, batches: Generator[list[Frame], None, None], outputs: DetectOutputs, pool: Executor | None
    ) -> None:
        """Work until the source ends or the user presses `q` in a window."""
        found = self.workers.map(partial(self._find, outputs), batches, pool)
        with closing(batches), closing(found), closing(Window()) as window:
            for results in found:
                seen = [self._deliver(result, outputs, window) for result in results]
                if not all(seen):
                    return

    def _find(self, outputs: DetectOutputs, frames: Sequence[Frame]) -> list[_Found]:
        """Look at frames of one shape; several threads may be here at a time."""
        import torch

        from utils.data.letterbox import to_tensor
        from utils.ops.nms import non_max_suppression

        o, backend = self.options, self.backend
        watch = _feature_painter(outputs.folder / outputs.frame_stem(frames[0])) if o.visualize else None
        clocks = [Stopwatch(backend.device) for _ in STAGES]
        with torch.inference_mode():
            with clocks[0]:
                images = to_tensor([frame.image for frame in frames], backend.device, backend.fp16)
            with clocks[1]:
                decoded = backend(images, augment=o.augment, visualize=watch)
            with clocks[2]:
                found = non_max_suppression(
                    decoded, o.conf_thres, o.iou_thres, o.classes, o.agnostic_nms, max_det=o.max_det
                )
            seconds = tuple(clock.total / len(frames) for clock in clocks)
            results = []
            for frame, detections in zip(frames, found, strict=True):
                rows = _to_image(frame, detections)
                line = describe(frame, rows, backend.names, 1e3 * seconds[1])
                results.append(_Found(frame, rows, line, seconds))
        return results

    def _deliver(self, found: _Found, outputs: DetectOutputs, window: Window) -> bool:
        """Write and show one result; False when the user wants to stop."""
        image = outputs.write(found.frame, found.rows)
        summary = self.summary
        summary.frames += 1
        summary.detections += len(found.rows)
        summary.label_files = outputs.label_files
        for stage, seconds in zip(STAGES, found.seconds, strict=True):
            summary.seconds[stage] += seconds
        LOG.info(found.line)
        return not self.options.view_img or window.show(outputs.stem(found.frame), image)

    def report(self, imgsz: tuple[int, int], something_saved: bool) -> None:
        """Print speed, what was skipped, and where the results are."""
        summary = self.summary
        if summary.frames:
            speeds = (f"{1e3 * value / summary.frames:.1f}ms {key}" for key, value in summary.seconds.items())
            LOG.info(f"Speed: {', '.join(speeds)} per image at shape {(1, 3, *imgsz)}")
        if summary.skipped:
            LOG.warning(f"{summary.skipped} of the source's files or streams could not be read")
        if summary.frames and something_saved:
            labels = f"\n{summary.label_files} labels saved to {summary.save_dir / 'labels'}"
            more = labels if self.options.save_txt else ""
            LOG.info(f"Results saved to {color(str(summary.save_dir), 'bold')}{more}")


def describe(frame: Frame, rows: np.ndarray, names: dict[int, str], milliseconds: float) -> str:
    """A frame's line: `image 1/2 /path: 640x480 4 persons, 1 bus, 23.4ms`."""
    place = f"{frame.kind} {frame.index}/{frame.count}"
    if frame.kind != "image":
        place += f" ({frame.frame_number}/{frame.total})" if frame.total else f" ({frame.frame_number})"
    height, width = frame.image.shape[:2]
    found = in_words(rows[:, 5], names)
    return f"{place} {frame.path}: {height}x{width} {found}, {milliseconds:.1f}ms"


def in_words(classes: np.ndarray, names: dict[int, str]) -> str:
    """What was found, by class number: `4 persons, 1 bus`."""
    kinds, counts = np.unique(classes.astype(int), return_counts=True)
    found = ", ".join(
        f"{count} {names.get(kind, kind)}{'s' if count > 1 else ''}"
        for kind, count in zip(kinds.tolist(), counts.tolist(), strict=True)
    )
    return found or "(no detections)"


def _reading(
    source: Source,
    fit: Callable[[np.ndarray], np.ndarray],
    options: DetectOptions,
    workers: WorkerPool,
    pool: Executor | None,
) -> Generator[list[Frame], None, None]:
    """Frames to look at together, of one shape; read ahead unless they come by themselves.

    For workers the pool reads images ahead; all else is collected by a thread while the model works.
    """
    batches = source.batches(fit, pool)
    if source.live:
        return (frames for batch in batches for frames in _of_equal_shape(batch, len(batch)))
    size = 1 if options.visualize else options.batch_size  # feature maps are painted one image a time
    frames = (frame for batch in batches for frame in batch)
    groups = _of_equal_shape(frames, size)
    return groups if workers.count > 1 and _only_images(source) else prefetch(groups, AHEAD)


def _only_images(source: Source) -> bool:
    return all(map(is_image, source.files))


def _of_equal_shape(frames: Iterable[Frame], most: int) -> Generator[list[Frame], None, None]:
    """Group neighbours whose letterboxed images have one shape, at most so many."""
    group: list[Frame] = []
    for frame in frames:
        if group and frame.image.shape != group[0].image.shape:
            yield group
            group = []
        group.append(frame)
        if len(group) == most:
            yield group
            group = []
    if group:
        yield group


def _good_batch(options: DetectOptions, backend: Backend, pixels: int) -> int:
    """How many images of so many pixels to look at together when nobody has said.

    On the CPU small images spend their time between layers and in Python; of large ones a batch leaves the
    cache. Who looks on sees them one by one. Elsewhere nothing has been measured.
    """
    if options.view_img or not backend.pt or backend.device.type != "cpu":
        return 1
    return max(min(GOOD_PIXELS // pixels, MOST_TOGETHER), 1)


def _worker_pool(options: DetectOptions, backend: Backend, source: Source) -> WorkerPool:
    """What can be looked at side by side; other runtimes than PyTorch spread each image over all cores."""
    from utils.predict.parallel import MOST, WorkerPool

    if source.live or options.visualize or not backend.pt:
        return WorkerPool(backend.device, most=1)
    batches = -(-len(source.files) // options.batch_size) if _only_images(source) else MOST
    return WorkerPool(backend.device, batches)


def _feature_painter(folder: Path) -> Callable[[Any, Any], None]:
    """What a model calls with each layer and its output, to write images of it into `folder`."""
    from utils.plots.features import plot_features

    def paint(layer: Any, output: Any) -> None:
        plot_features(output, layer.type, layer.i, folder)

    return paint


def _to_image(frame: Frame, detections: torch.Tensor) -> np.ndarray:
    """(n, 6) detections in the image's own whole pixels, float64."""
    from utils.ops.boxes import scale_boxes

    scale_boxes(frame.image.shape[:2], detections[:, :4], frame.original.shape[:2])
    rows = detections.detach().float().cpu().numpy().astype(np.float64)
    rows[:, :4] = rows[:, :4].round()
    return rows


def _load_backend(options: DetectOptions) -> Backend:
    from models.backends import load_backend
    from utils.base.device import select_device

    names = None if all(name.endswith(".pt") for name in options.weights) else names_of(options.data)
    device = select_device(options.device)
    o = options
    backend = load_backend(o.weights, device, names=names, half=o.half, dnn=o.dnn, runtime=o.runtime)
    backend.warn_of_thresholds(o.conf_thres)
    return backend


def names_of(data: str) -> dict[int, str] | None:
    """Class names of a data yaml, for models that carry none."""
    try:
        names = read_yaml(find_file(data, ("data",), (".yaml", ".yml"), "--data")).get("names")
    except ConfigError as error:
        LOG.warning(f"{error}; classes that the model does not name are shown as numbers")
        return None
    return class_names(names) if isinstance(names, list | dict) else None


def _check_classes(options: DetectOptions, backend: Backend) -> None:
    last = max(backend.names, default=0)
    if wrong := [kind for kind in options.classes or [] if kind > last]:
        raise ConfigError(f"--classes {wrong[0]}: the model's classes are 0-{last} ({backend.names[last]})")


def _remove_if_empty(folder: Path) -> None:
    """Leave no folder behind in which nothing was written."""
    with suppress(OSError):
        folder.rmdir()


def _strip(weights: str) -> None:
    from models.weights import locate_weights, strip_checkpoint

    if not weights.endswith(".pt"):
        LOG.warning(f"--update: {weights} is no .pt file, there is nothing to strip")
        return
    strip_checkpoint(locate_weights(weights))
