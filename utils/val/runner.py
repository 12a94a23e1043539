"""Run a model over batches: on one device as a whole, on the cores of a CPU in parts side by side."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from models.backends.base import cpu_batch_size
from models.base_model import BaseModel
from models.user_blocks import loaded_blocks
from models.weights import Ensemble
from utils.base.device import return_freed_memory
from utils.base.parallel import MAX_WORKERS, WorkerPool
from utils.native.library import is_watched
from utils.native.maps import unit_images

if TYPE_CHECKING:
    from utils.data.loader import Batch

Predictor = Callable[..., Any]  # images (B, 3, H, W) -> decoded (B, N, 5 + nc), or (decoded, maps)


class ModelRunner:
    """A model with the device, precision and memory format in which it runs."""

    def __init__(
        self, model: Predictor, device: torch.device, half: bool = False, augment: bool = False
    ) -> None:
        half = half and device.type == "cuda"
        self.model = model
        self.device = device
        self.autocast = half and isinstance(model, nn.Module)
        self.dtype = torch.float16 if half and not self.autocast else torch.float32
        self.options = {"augment": True} if augment else {}
        self.layout = torch.channels_last if device.type in ("cpu", "cuda") else torch.contiguous_format

    @property
    def most_workers(self) -> int:
        """How many threads may run the model at the same time, on a CPU.

        1 for other runtimes, which use all cores themselves, and for models that may keep something between
        calls: those with hooks or blocks of the user, and those that are not of this project.
        """
        model = self.model if isinstance(self.model, nn.Module) else getattr(self.model, "model", None)
        if not isinstance(model, BaseModel | Ensemble) or loaded_blocks():
            return 1
        return 1 if any(map(is_watched, model.modules())) else MAX_WORKERS

    def prepare(self, images: Tensor) -> Tensor:
        """Copy uint8 images (0-255) to the device, as floating point numbers (0-1)."""
        on_device = images.to(self.device, non_blocking=True)
        if (self.dtype, self.layout) == (torch.float32, torch.channels_last):
            return unit_images(on_device)
        return on_device.to(self.dtype, memory_format=self.layout).div_(255)

    def __call__(self, images: Tensor) -> Any:
        """Return the output of the model."""
        with torch.autocast(self.device.type, enabled=self.autocast):
            return self.model(images, **self.options)


class Found(NamedTuple):
    """What a model found in B images of a batch."""

    images: list[Tensor]  # of each image: (n, 6 + nm) boxes in pixels of the input; or (k,) classes
    raw: Any = None  # what the loss takes: tensors, or lists and tuples of them, all (B, ...)
    protos: Sequence[Tensor] = ()  # of each image: (nm, h, w) mask prototypes of a segmentation model
    seconds: tuple[float, ...] = (0.0, 0.0, 0.0)  # pre-process, inference, post-process


Predict = Callable[["Batch", slice], Found]  # what the model finds in some images of a batch


def predict_batches(
    predict: Predict,
    batches: Iterable[Batch],
    device: torch.device,
    most: int = MAX_WORKERS,
    on_start: Callable[[int], None] = lambda index: None,
) -> Generator[tuple[Batch, Found], None, None]:
    """Yield each batch with what is found in it, in order.

    On the cores of a CPU a batch is processed in parts: as many as there are workers or more, so that it
    needs no more memory than at once; and no larger than what a CPU runs fastest. The seconds are those of
    all workers divided by their number.

    Args:
        predict: called by several threads at the same time.
        batches: taken in this thread.
        device: where `predict` computes.
        most: upper limit of the workers; there are no more than images in the first batch.
        on_start: called with the index of a batch before its first part is.
    """

    def run(job: tuple[Batch, slice]) -> tuple[Batch, slice, Found]:
        with torch.inference_mode():  # a setting of each thread
            return *job, predict(*job)

    def results() -> Generator[tuple[Batch, slice, Found], None, None]:
        # Alone, as its shape decides the layout of the weights (`PackedConvolution`), and so the rounding.
        yield run(next(jobs))
        if workers.count == 1:
            yield from map(run, jobs)
            return
        return_freed_memory()  # of a training step: the peak would be the sum
        yield from workers.map(run, jobs)
        return_freed_memory()  # of the workers

    rest = iter(batches)
    if (first := next(rest, None)) is None:
        return
    parts: list[Found] = []
    with WorkerPool(device, min(most, len(first.paths))) as workers:
        jobs = _jobs(chain((first,), rest), workers.count, on_start)
        del first  # memory for the next batch
        with closing(results()) as finished:
            for batch, part, found in finished:
                parts.append(found)
                del found
                if part.stop == len(batch.paths):
                    yield batch, _joined(parts, workers.count)
                    parts = []


def _jobs(
    batches: Iterable[Batch], workers: int, on_start: Callable[[int], None]
) -> Iterator[tuple[Batch, slice]]:
    for index, batch in enumerate(batches):
        on_start(index)
        size = count = len(batch.paths)
        if workers > 1:
            size = min(-(-count // workers), cpu_batch_size(*batch.images.shape[2:]))
        yield from ((batch, slice(first, min(first + size, count))) for first in range(0, count, size))


def _joined(parts: Sequence[Found], workers: int) -> Found:
    seconds = tuple(sum(each) / workers for each in zip(*(part.seconds for part in parts), strict=True))
    if len(parts) == 1:
        return parts[0]._replace(seconds=seconds)
    return Found(
        [image for part in parts for image in part.images],
        _concatenated([part.raw for part in parts]),
        [protos for part in parts for protos in part.protos],
        seconds,
    )


def _concatenated(parts: Sequence[Any]) -> Any:
    """Concatenate tensors, or those in lists and tuples of one structure; None stays None."""
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat([*parts])
    if isinstance(first, list | tuple):
        return type(first)(_concatenated(each) for each in zip(*parts, strict=True))
    return None
