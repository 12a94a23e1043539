"""Count, time and weigh the cells of a group, side by side."""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.kernels.cells import Cell, build, input_shape, outputs
from utils.base.timing import Stopwatch

if TYPE_CHECKING:
    import torch

ROUNDS = 5  # visits to every cell, so that a slow minute of the machine falls on all of them
LEAST = 3  # repeats, whatever they cost


def count(cell: Cell) -> dict[str, float]:
    """Parameters, and multiply-adds of one input in three conventions, in units of 1e9."""
    import torch

    from utils.ops.flops import macs_by_module, macs_with_biases

    with torch.device("meta"):
        model = build(cell).eval()
        x = torch.empty(input_shape(cell))
    gmacs = sum(macs_by_module(model, x).values()) / 1e9
    with_biases = sum(macs_by_module(model, x, cost=macs_with_biases).values()) / 1e9
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": parameters, "gmacs": gmacs, "gflops": 2 * gmacs, "gmacs_with_biases": with_biases}


class MeasuredCell:
    """A cell's model on a device, and what was measured of it so far.

    The forward pass runs as detection does: eval mode, batch norms folded where the model can, no
    gradients. The training step is a forward and a backward pass in train mode; of a module alone also
    the gradient of its input, which it would have to hand on inside a network. Memory is laid out
    channels last, as in train.py and detect.py.
    """

    def __init__(self, cell: Cell, device: torch.device, batch: int) -> None:
        import torch

        from models.yolo import DetectionModel

        torch.manual_seed(0)
        layout = torch.channels_last
        self.cell, self.device = cell, device
        self.model = build(cell).to(device).to(memory_format=layout).train()
        self.deployed = deepcopy(self.model)
        if isinstance(self.deployed, DetectionModel):
            self.deployed.fuse()
        self.deployed.requires_grad_(False).eval()
        self.x = torch.rand(input_shape(cell, batch)).to(device).to(memory_format=layout)
        self.x.requires_grad_(cell.part == "module")
        self.forwards: list[float] = []  # seconds
        self.steps: list[float] = []
        self.peak = float("nan")  # bytes

    def forward(self) -> None:
        """One pass as in detection."""
        import torch

        with torch.inference_mode():
            self.deployed(self.x)

    def step(self) -> None:
        """A forward and a backward pass as in training."""
        import torch

        losses = [made.float().square().mean() for made in outputs(self.model(self.x))]
        torch.stack(losses).sum().backward()

    def clear(self) -> None:
        """Drop the gradients."""
        self.model.zero_grad(set_to_none=True)
        self.x.grad = None

    def warm_up(self) -> None:
        """Run once, and weigh the training step."""
        self.forward()
        if self.device.type == "cuda":  # libraries take their workspaces in the first step, for good
            self.step()
            self.clear()
        own = sum(t.nbytes for t in (*self.model.parameters(), *self.model.buffers(), self.x))
        self.peak = own + peak_of(self.step, self.device)
        self.clear()

    def visit(self, seconds: float, budget: float) -> None:
        """Repeat for about so many seconds, unless the budget of all visits is spent."""
        spent = sum(self.forwards) + sum(self.steps)
        if spent >= budget and len(self.steps) >= LEAST:
            return
        end = spent + seconds
        while True:
            with Stopwatch(self.device) as watch:
                self.forward()
            self.forwards.append(watch.last)
            with Stopwatch(self.device) as watch:
                self.step()
            self.steps.append(watch.last)
            self.clear()
            spent += self.forwards[-1] + self.steps[-1]
            if spent >= end:
                return


def peak_of(work: Callable[[], None], device: torch.device) -> float:
    """Most bytes that `work` holds at once beyond what was there before; NaN where that is not known.

    CUDA keeps the account itself. On the CPU it is the highest running sum of what torch's profiler
    notes for its allocator; oneDNN's own scratch memory is not in it.
    """
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return float(torch.cuda.max_memory_allocated(device) - before)
    if device.type != "cpu":
        work()
        return float("nan")
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler writes lines of its own
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    noted = sorted(
        (e["ts"], i, e["args"]["Bytes"]) for i, e in enumerate(events) if e.get("name") == "[memory]"
    )
    held = highest = 0
    for _, _, change in noted:
        held += change
        highest = max(highest, held)
    return float(highest)


def measure(
    cells: list[Cell],
    device: torch.device,
    batch: int,
    budget: float,
    results: list[dict[str, Any]],
    info: dict[str, str],
) -> Iterator[Cell]:
    """Measure a group of cells, a visit to each in turn.

    Args:
        cells: the group.
        device: where to.
        batch: inputs at once.
        budget: seconds for each cell, after its warm-up; at least LEAST repeats are made.
        results: receives the rows in the end, each with the fields of `table.CostRow`.
        info: machine and command, for the rows.

    Yields:
        The cell that was visited, (ROUNDS + 1) * len(cells) in all.
    """
    subjects = []
    for cell in cells:
        subjects.append(MeasuredCell(cell, device, batch))
        subjects[-1].warm_up()
        yield cell
    for _ in range(ROUNDS):
        for subject in subjects:
            subject.visit(budget / ROUNDS, budget)
            yield subject.cell
    results += [_row(subject, batch) | info for subject in subjects]


def _row(subject: MeasuredCell, batch: int) -> dict[str, Any]:
    measured = {"repeats": len(subject.steps), "peak_mib": subject.peak / 2**20, "batch": batch}
    times = _spread("forward", subject.forwards) | _spread("step", subject.steps)
    return asdict(subject.cell) | count(subject.cell) | times | measured


def _spread(name: str, seconds: list[float]) -> dict[str, float]:
    """Median and quartiles in milliseconds."""
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {f"{name}_ms": 1e3 * middle, f"{name}_low_ms": 1e3 * low, f"{name}_high_ms": 1e3 * high}
