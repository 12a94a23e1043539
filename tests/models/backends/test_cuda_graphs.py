"""Graphs are captured by a stand-in here; `python -m tests.gpu` captures real ones where there is a GPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from models.backends import cuda_graphs, load_backend
from models.backends.cuda_graphs import GraphedModel
from tests.models.backends.files import CPU, checkpoint, example
from utils.base.errors import ConfigError


class Recorder:
    """Captures as CUDA does: one pass at the capture, then the same memory for each call."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, model: cuda_graphs.Model, images: Tensor) -> cuda_graphs.Model:
        self.shapes.append(tuple(images.shape))
        kept = model(images)

        def replay(images: Tensor) -> Any:
            for old, new in zip(_tensors(kept), _tensors(model(images)), strict=True):
                old.copy_(new)
            return kept

        return replay


def _tensors(output: Any) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)


@pytest.mark.parametrize("model", [lambda x: x * 2, lambda x: (x * 2, x + 1)], ids=["one", "several"])
def test_shapes_that_recur_are_captured_once_and_results_stay(model: cuda_graphs.Model) -> None:
    capture = Recorder()
    graphed = GraphedModel(model, capture)
    inputs = [torch.rand(shape) for shape in [(1, 3, 8, 8), (2, 3, 8, 16), (1, 3, 8, 8)] * 3]

    found = [graphed(images) for images in inputs]

    assert capture.shapes == [(1, 3, 8, 8), (2, 3, 8, 16)] and graphed.graphs == 2
    for output, images in zip(found, inputs, strict=True):  # the graph's memory was overwritten since
        assert isinstance(output, Tensor) == isinstance(model(images), Tensor)
        for one, expected in zip(_tensors(output), _tensors(model(images)), strict=True):
            assert torch.equal(one, expected)


def test_a_failed_capture_warns_once_and_runs_the_model(caplog: pytest.LogCaptureFixture) -> None:
    works = Recorder()

    def fails(model: cuda_graphs.Model, images: Tensor) -> cuda_graphs.Model:
        if images.shape[-1] == 8:
            return works(model, images)
        try:
            raise RuntimeError("operation not permitted when stream is capturing\nmore lines")
        finally:  # as the end of a real capture does
            raise RuntimeError("a previous error during capture")  # noqa: B012

    graphed = GraphedModel(lambda x: x + 1, fails)

    for side in (8, 8, 8, 16, 16, 16, 16, 8):
        assert torch.equal(graphed(torch.zeros(1, 3, side, side)), torch.ones(1, 3, side, side))
    assert works.shapes == [(1, 3, 8, 8)] and graphed.graphs == 0
    assert caplog.text.count("running it without (operation not permitted when stream is capturing)") == 1


def test_the_number_of_graphs_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_graphs, "MAX_SHAPES", 2)
    capture = Recorder()
    graphed = GraphedModel(lambda x: x + 1, capture)

    for side in (8, 16, 24) * 4:
        assert graphed(torch.zeros(1, 3, side, side)).shape == (1, 3, side, side)
    assert len(capture.shapes) == 2


def test_a_checkpoint_runs_as_a_graph_where_nothing_else_is_asked() -> None:
    backend = load_backend([str(checkpoint())], CPU)
    expected, augmented = backend(example()), backend(example(), augment=True)
    capture = Recorder()
    backend._graphed = GraphedModel(backend._run, capture)  # type: ignore[attr-defined]

    for _ in range(cuda_graphs.USES + 1):
        assert torch.equal(backend(example()), expected)
        assert torch.equal(backend(example(), augment=True), augmented)  # passes of several sizes, no graph
    assert len(capture.shapes) == 1


def test_graphs_are_for_cuda(caplog: pytest.LogCaptureFixture) -> None:
    backend = load_backend([str(checkpoint())], CPU, runtime="graph")

    assert "--runtime graph: for CUDA only, so without graphs on cpu" in caplog.text
    assert torch.equal(backend(example()), load_backend([str(checkpoint())], CPU)(example()))
    with pytest.raises(ConfigError, match="bf16 .bfloat16., graph .CUDA graphs., or bf16,graph"):
        load_backend([str(checkpoint())], CPU, runtime="graph,fp8")
