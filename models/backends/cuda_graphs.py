"""Replay a model as a CUDA graph, in place of launching its kernels one by one: `--runtime graph`.

For one image, launching the kernels of a small model can take longer than running them. A graph holds all
launches of a forward pass for one input shape (https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from utils.base.errors import first_line
from utils.base.log import LOG

Model = Callable[[Tensor], Any]  # images -> a tensor, or several

MAX_SHAPES = 16  # graphs that are kept, each with its own memory; images of other shapes run without one
_WARM_UP = 3  # passes before the capture, in which cuDNN chooses its algorithms and caches are filled


class GraphedModel:
    """A model with a CUDA graph for each of the first `MAX_SHAPES` input shapes.

    Where a graph cannot be captured, one warning says so, and the model runs as it is from then on.

    Args:
        model: function of images on one CUDA device; nothing that it does may depend on their values.
        capture: makes the function that replays `model` on images of one shape; see `capture_graph`.
    """

    def __init__(self, model: Model, capture: Callable[[Model, Tensor], Model] | None = None) -> None:
        self._model = model
        self._capture = capture or capture_graph
        self._graphs: dict[tuple[torch.Size, torch.dtype], Model] = {}
        self._works = True
        self._lock = Lock()  # all calls with one shape share its memory

    def __call__(self, images: Tensor) -> Any:
        """Return what the model returns, in memory of its own."""
        with self._lock:
            replay = self._graph_of(images)
            if replay is not None:
                output = replay(images)
                return (
                    output.clone() if isinstance(output, Tensor) else tuple(each.clone() for each in output)
                )
        return self._model(images)

    def _graph_of(self, images: Tensor) -> Model | None:
        """Return the graph for images of this shape, which is captured at first; None where there is none."""
        key = images.shape, images.dtype
        if key not in self._graphs and self._works and len(self._graphs) < MAX_SHAPES:
            try:
                self._graphs[key] = self._capture(self._model, images)
            except RuntimeError as error:  # of CUDA: an operator that cannot be captured, or no memory
                self._works = False
                LOG.warning(
                    f"--runtime graph: no CUDA graph of this model, running it without ({first_line(error)})"
                )
        return self._graphs.get(key)


def capture_graph(model: Model, images: Tensor) -> Model:
    """Capture a forward pass; the returned function gives the same tensors, with other values, in each call.

    Raises:
        RuntimeError: an operator of the model cannot be captured.
    """
    with torch.cuda.device(images.device):
        given = images.clone()
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                model(given)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads load images
            output = model(given)

    def replay(images: Tensor) -> Any:
        given.copy_(images, non_blocking=True)
        graph.replay()
        return output

    return replay
