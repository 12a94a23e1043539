"""Replay a model as a CUDA graph, in place of launching its kernels one by one: `--runtime graph`.

For one image, launching the kernels of a small model can take longer than running them. A graph holds all
launches of a forward pass for one input shape (https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from utils.base.errors import first_line
from utils.base.log import LOG

Model = Callable[[Tensor], Any]  # images -> a tensor, or several
Capture = Callable[[Model, Tensor], Model]

MAX_SHAPES = 16  # graphs that are kept; images of other shapes run without one
USES = 3  # passes with a shape before it gets a graph: a capture takes as long as several of them
_WARM_UP = 2  # passes on the stream of the capture before it


class GraphedModel:
    """A model with a CUDA graph for each of the first `MAX_SHAPES` input shapes that recur.

    Where a graph cannot be captured, one warning says so, and the model runs as it is from then on. Graphs
    read the weights where they are in memory: make a new `GraphedModel` after they have moved. Threads may
    call it at the same time, if they use the same CUDA stream.

    Args:
        model: function of images on one CUDA device; nothing that it does may depend on their values.
        capture: makes the function that replays `model` on images of one shape; see `GraphCapture`.
    """

    def __init__(self, model: Model, capture: Capture | None = None) -> None:
        self._model = model
        self._capture = capture or GraphCapture()
        self._graphs: dict[tuple[torch.Size, torch.dtype], Model] = {}
        self._uses: Counter[tuple[torch.Size, torch.dtype]] = Counter()
        self._works = True
        self._lock = Lock()  # all calls with one shape share its memory

    @property
    def graphs(self) -> int:
        """Number of graphs."""
        return len(self._graphs)

    def __call__(self, images: Tensor) -> Any:
        """Return what the model returns, in memory of its own."""
        with self._lock:
            replay = self._graph_of(images) if self._works else None
            if replay is not None:
                output = replay(images)
                return (
                    output.clone() if isinstance(output, Tensor) else tuple(each.clone() for each in output)
                )
        return self._model(images)

    def _graph_of(self, images: Tensor) -> Model | None:
        """Return the graph for images of this shape; None where there is none yet."""
        key = images.shape, images.dtype
        self._uses[key] += 1
        if key not in self._graphs and self._uses[key] >= USES and len(self._graphs) < MAX_SHAPES:
            try:
                self._graphs[key] = self._capture(self._model, images)
            except RuntimeError as error:  # of CUDA: an operator that cannot be captured, or no memory
                self._works = False
                self._graphs.clear()
                if images.is_cuda:
                    torch.cuda.empty_cache()  # eager passes cannot use the memory of graphs
                reason = first_line(error.__context__ or error)  # the end of a failed capture raises, too
                LOG.warning(f"--runtime graph: no CUDA graph of this model, running it without ({reason})")
        return self._graphs.get(key)


class GraphCapture:
    """Captures forward passes, whose graphs share their memory: one of them runs at a time."""

    def __init__(self) -> None:
        self._pool: Any = None

    def __call__(self, model: Model, images: Tensor) -> Model:
        """Capture a pass; the returned function gives the same tensors, with other values, in each call.

        Raises:
            RuntimeError: an operator of the model cannot be captured.
        """
        with torch.cuda.device(images.device):
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            given = images.clone()
            side, current = torch.cuda.Stream(), torch.cuda.current_stream()
            side.wait_stream(current)
            with torch.cuda.stream(side):
                for _ in range(_WARM_UP):
                    model(given)
            current.wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            try:  # `thread_local`, as other threads load images
                with torch.cuda.graph(graph, self._pool, side, capture_error_mode="thread_local"):
                    output = model(given)
            finally:  # a capture that fails at its end leaves its own stream as the current one
                torch.cuda.set_stream(current)

        def replay(images: Tensor) -> Any:
            given.copy_(images, non_blocking=True)
            graph.replay()
            return output

        return replay
