"""Detection from source to files: read ahead, find boxes, write, report."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from utils.base.errors import ConfigError
from utils.base.log import LOG, color
from utils.base.paths import find_file, increment_path
from utils.base.timing import Stopwatch
from utils.base.yaml_io import read_yaml
from utils.data.frames import Frame
from utils.data.letterbox import check_img_size
from utils.data.prefetch import prefetch
from utils.data.sources import Source, find_source, fitting
from utils.predict.options import Options
from utils.predict.window import Window
from utils.predict.writers import Outputs

if TYPE_CHECKING:
    import torch

AHEAD = 2  # pictures read before they are needed


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
        """Run once on zeros, so that the first picture is not slower than the others."""
        ...


@dataclass
class Summary:
    """How a run went."""

    save_dir: Path
    frames: int = 0
    skipped: int = 0  # files or streams that could not be read
    detections: int = 0
    label_files: int = 0
    seconds: dict[str, float] = field(default_factory=dict)  # in all: pre-process, inference, NMS


def detect(options: Options, load: Callable[[Options], Backend] | None = None) -> Summary:
    """Detect objects in everything that `options.source` names.

    The source and the weights are checked before a run folder is made. On Ctrl-C all files are closed and
    the report is printed before the exception goes on.

    Raises:
        ConfigError, DataError: see `utils.data.sources` and `models.backends`.
    """
    source = find_source(options.source, options.vid_stride)
    backend = (load or _load_backend)(options)
    height, width = check_img_size(options.imgsz, stride=backend.stride)
    _check_classes(options, backend)
    if not (backend.pt and backend.device.type == "cpu"):  # there the first picture warms up well enough
        backend.warmup((1, 3, height, width))
    save_dir = increment_path(Path(options.project) / options.name, options.exist_ok)
    save_dir.mkdir(parents=True, exist_ok=True)
    save_pictures = not options.nosave and source.saves_pictures
    run = _Run(options, backend, Summary(save_dir))
    fit = fitting((height, width), backend.stride, auto=backend.pt)
    try:
        with Outputs(save_dir, source.files, backend.names, options, save_pictures) as outputs:
            run.go(_reading(source, fit), outputs)
    finally:
        run.summary.skipped = source.skipped
        _remove_if_empty(save_dir)
        run.report((height, width), something_saved=save_pictures or options.save_txt)
    if options.update:
        _strip(options.weights[0])
    return run.summary


class _Run:
    """One pass over a source: forward, thin out, write, count."""

    def __init__(self, options: Options, backend: Backend, summary: Summary) -> None:
        self.options = options
        self.backend = backend
        self.summary = summary
        self.watches = [Stopwatch(backend.device) for _ in range(3)]  # pre-process, inference, NMS

    def go(self, batches: Generator[list[Frame], None, None], outputs: Outputs) -> None:
        """Work until the source ends or the user presses `q` in a window."""
        import torch

        with torch.inference_mode(), closing(batches), closing(Window()) as window:
            for batch in batches:
                for frames in _of_equal_shape(batch):
                    seen = [self._deliver(*result, outputs, window) for result in self._find(frames, outputs)]
                    if not all(seen):
                        return

    def _find(self, frames: Sequence[Frame], outputs: Outputs) -> list[tuple[Frame, np.ndarray, str]]:
        """Detections of frames of one shape, and a line about each."""
        from utils.ops.nms import non_max_suppression

        o = self.options
        watch = _feature_painter(outputs.folder / outputs.frame_stem(frames[0])) if o.visualize else None
        with self.watches[0]:
            images = _to_tensor([frame.image for frame in frames], self.backend)
        with self.watches[1]:
            decoded = self.backend(images, augment=o.augment, visualize=watch)
        with self.watches[2]:
            found = non_max_suppression(
                decoded, o.conf_thres, o.iou_thres, o.classes, o.agnostic_nms, max_det=o.max_det
            )
        milliseconds = self.watches[1].last * 1e3 / len(frames)
        results = []
        for frame, detections in zip(frames, found, strict=True):
            rows = _to_picture(frame, detections)
            results.append((frame, rows, describe(frame, rows, self.backend.names, milliseconds)))
        return results

    def _deliver(self, frame: Frame, rows: np.ndarray, line: str, outputs: Outputs, window: Window) -> bool:
        """Write and show one result; False when the user wants to stop."""
        image = outputs.write(frame, rows)
        self.summary.frames += 1
        self.summary.detections += len(rows)
        self.summary.label_files = outputs.label_files
        LOG.info(line)
        return not self.options.view_img or window.show(outputs.stem(frame), image)

    def report(self, imgsz: tuple[int, int], something_saved: bool) -> None:
        """Print speed, what was skipped, and where the results are."""
        summary = self.summary
        names = ("pre-process", "inference", "NMS")
        summary.seconds = {name: watch.total for name, watch in zip(names, self.watches, strict=True)}
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
    classes, counts = np.unique(rows[:, 5].astype(int), return_counts=True)
    found = "".join(
        f"{count} {names.get(kind, kind)}{'s' if count > 1 else ''}, "
        for kind, count in zip(classes.tolist(), counts.tolist(), strict=True)
    )
    return f"{place} {frame.path}: {height}x{width} {found or '(no detections), '}{milliseconds:.1f}ms"


def _reading(source: Source, fit: Callable[[np.ndarray], np.ndarray]) -> Generator[list[Frame], None, None]:
    """Batches of the source, read ahead unless they come by themselves."""
    batches = source.batches(fit)
    if not source.live:
        return prefetch(batches, AHEAD)
    return (batch for batch in batches)


def _of_equal_shape(batch: list[Frame]) -> Iterator[list[Frame]]:
    """Split a batch into neighbours of one shape."""
    for _, group in groupby(batch, key=lambda frame: frame.image.shape):
        yield list(group)


def _to_tensor(pictures: list[np.ndarray], backend: Backend) -> torch.Tensor:
    """(H, W, 3) uint8 BGR pictures -> (B, 3, H, W) RGB in 0-1."""
    import torch

    stacked = np.ascontiguousarray(np.stack(pictures)[..., ::-1].transpose(0, 3, 1, 2))
    images = torch.from_numpy(stacked).to(backend.device)
    return (images.half() if backend.fp16 else images.float()) / 255


def _feature_painter(folder: Path) -> Callable[[Any, Any], None]:
    """What a model calls with each layer and its output, to write pictures of it into `folder`."""
    from utils.plots.features import plot_features

    def paint(layer: Any, output: Any) -> None:
        plot_features(output, layer.type, layer.i, folder)

    return paint


def _to_picture(frame: Frame, detections: torch.Tensor) -> np.ndarray:
    """(n, 6) detections in the picture's own whole pixels, float64."""
    from utils.ops.boxes import scale_boxes

    scale_boxes(frame.image.shape[:2], detections[:, :4], frame.original.shape[:2])
    rows = detections.detach().float().cpu().numpy().astype(np.float64)
    rows[:, :4] = rows[:, :4].round()
    return rows


def _load_backend(options: Options) -> Backend:
    from models.backends import load_backend
    from utils.base.device import select_device

    names = None if all(name.endswith(".pt") for name in options.weights) else _names_of(options.data)
    device = select_device(options.device)
    return load_backend(options.weights, device, names=names, half=options.half, dnn=options.dnn, fuse=True)


def _names_of(data: str) -> dict[int, str] | None:
    """Class names of a data yaml, for models that carry none."""
    try:
        names = read_yaml(find_file(data, ("data",), (".yaml", ".yml"), "--data")).get("names")
    except ConfigError as error:
        LOG.warning(f"{error}; classes that the model does not name are shown as numbers")
        return None
    if isinstance(names, list):
        return {index: str(name) for index, name in enumerate(names)}
    return {int(key): str(name) for key, name in names.items()} if isinstance(names, dict) else None


def _check_classes(options: Options, backend: Backend) -> None:
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
