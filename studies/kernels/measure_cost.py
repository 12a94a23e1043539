"""The kernel study: count parameters and multiply-adds, measure time and memory of all cases, report."""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.kernels.cases import Case, CurvesOptions, build, input_shape, make_groups, output_tensors
from studies.kernels.cost_table import CostRow, markdown, read_csv, write_csv
from studies.kernels.plot_cost import draw_all
from utils.base.log import LOG, Bar
from utils.base.paths import atomic_write, claim_folder, relative_to_cwd
from utils.base.timing import Stopwatch

if TYPE_CHECKING:
    import torch

ROUNDS = 5  # over all cases, so that a slow moment of the machine affects all of them
MIN_REPEATS = 3  # whatever they take
CSV = "curves.csv"


def count(case: Case) -> dict[str, float]:
    """Count parameters, and multiply-adds of one input in three conventions, in units of 1e9."""
    import torch

    from utils.ops.flops import macs_by_module, macs_with_biases

    with torch.device("meta"):
        model = build(case).eval()
        x = torch.empty(input_shape(case))
    gmacs = sum(macs_by_module(model, x).values()) / 1e9
    with_biases = sum(macs_by_module(model, x, cost=macs_with_biases).values()) / 1e9
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": parameters, "gmacs": gmacs, "gflops": 2 * gmacs, "gmacs_with_biases": with_biases}


class MeasuredCase:
    """The model of a case on a device, and its measurements so far.

    The forward pass is that of detection: eval mode, batch norms fused where possible, no gradients. The
    training step is a forward and a backward pass in train mode; for a single module also the gradient of
    its input, which a network would need. The memory format is channels last, as in train.py and
    detect.py.
    """

    def __init__(self, case: Case, device: torch.device, batch: int) -> None:
        import torch

        from models.yolo import DetectionModel

        torch.manual_seed(0)
        layout = torch.channels_last
        self.case, self.device = case, device
        self.model = build(case).to(device).to(memory_format=layout).train()
        self.deployed = deepcopy(self.model)
        if isinstance(self.deployed, DetectionModel):
            self.deployed.fuse()
        self.deployed.requires_grad_(False).eval()
        self.x = torch.rand(input_shape(case, batch)).to(device).to(memory_format=layout)
        self.x.requires_grad_(case.part == "module")
        self.forwards: list[float] = []  # seconds
        self.steps: list[float] = []
        self.peak = float("nan")  # bytes

    def forward(self) -> None:
        """Run a forward pass as in detection."""
        import torch

        with torch.inference_mode():
            self.deployed(self.x)

    def step(self) -> None:
        """Run a forward and a backward pass as in training."""
        import torch

        losses = [output.float().square().mean() for output in output_tensors(self.model(self.x))]
        torch.stack(losses).sum().backward()

    def clear(self) -> None:
        """Delete the gradients."""
        self.model.zero_grad(set_to_none=True)
        self.x.grad = None

    def warm_up(self) -> None:
        """Run once, and measure the memory of the training step."""
        self.forward()
        if self.device.type == "cuda":  # libraries allocate their workspaces in the first step and keep them
            self.step()
            self.clear()
        own = sum(t.nbytes for t in (*self.model.parameters(), *self.model.buffers(), self.x))
        self.peak = own + peak_of(self.step, self.device)
        self.clear()

    def visit(self, seconds: float, budget: float) -> None:
        """Repeat for about `seconds`, unless the budget of all visits is spent."""
        spent = sum(self.forwards) + sum(self.steps)
        if spent >= budget and len(self.steps) >= MIN_REPEATS:
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
    """Return the maximum number of bytes that `work` allocates at once; NaN if the device does not report it.

    CUDA counts them itself. On the CPU it is the maximum running sum of the allocations that torch's
    profiler records, without oneDNN's own scratch memory.
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
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences the profiler
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    changes = sorted(
        (e["ts"], i, e["args"]["Bytes"]) for i, e in enumerate(events) if e.get("name") == "[memory]"
    )
    held = highest = 0
    for _, _, change in changes:
        held += change
        highest = max(highest, held)
    return float(highest)


def measure(
    cases: list[Case],
    device: torch.device,
    batch: int,
    budget: float,
    results: list[dict[str, Any]],
    info: dict[str, str],
) -> Iterator[Case]:
    """Measure a group of cases, which take turns.

    Args:
        cases: the group.
        device: to measure on.
        batch: batch size.
        budget: seconds for each case after its warm-up; each is repeated at least MIN_REPEATS times.
        results: the rows are appended at the end, each with the fields of `CostRow`.
        info: machine and command, for the rows.

    Yields:
        The case that was visited; (ROUNDS + 1) * len(cases) times.
    """
    measured_cases = []
    for case in cases:
        measured_cases.append(MeasuredCase(case, device, batch))
        measured_cases[-1].warm_up()
        yield case
    for _ in range(ROUNDS):
        for one in measured_cases:
            one.visit(budget / ROUNDS, budget)
            yield one.case
    results += [_row(one, batch) | info for one in measured_cases]


def _row(one: MeasuredCase, batch: int) -> dict[str, Any]:
    measured = {"repeats": len(one.steps), "peak_mib": one.peak / 2**20, "batch": batch}
    times = _spread("forward", one.forwards) | _spread("step", one.steps)
    return asdict(one.case) | count(one.case) | times | measured


def _spread(name: str, seconds: list[float]) -> dict[str, float]:
    """Return median and quartiles in milliseconds."""
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {f"{name}_ms": 1e3 * median, f"{name}_low_ms": 1e3 * low, f"{name}_high_ms": 1e3 * high}


if TYPE_CHECKING:
    import torch


def run(options: CurvesOptions) -> Path:
    """Run the study, or only draw it with --plot-only; return the folder.

    Raises:
        ConfigError, DataError: options or a csv that cannot be used.
    """
    if options.plot_only:
        file = Path(options.plot_only)
        write_report(read_csv(file), file.parent)
        return file.parent
    cases = make_groups(options.part, options.design_names, options.kernels, options.channels, options.sizes)
    device, machine = prepare_device(options)
    info = {"machine": machine, "command": shlex.join(["python", *sys.argv])}
    folder = claim_folder(Path(options.project) / options.name, options.exist_ok)
    rows: list[CostRow] = []
    for group in cases:
        rows += measure_group(group, device, options, info)
        write_csv(folder / CSV, rows)  # after each group, so that a stopped run leaves its results
    write_report(read_csv(folder / CSV), folder)  # rounded, so that --plot-only gives the same tables
    return folder


def prepare_device(options: CurvesOptions) -> tuple[torch.device, str]:
    """Select device and threads; also return their description."""
    import torch

    from utils.base.device import describe, select_device

    device = select_device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    name = f"{describe(device)} ({processor()})" if device.type == "cpu" else describe(device)
    return device, f"{name}, threads: {torch.get_num_threads()}, torch {torch.__version__}"


def processor() -> str:
    """Return the name of the CPU, if the system provides it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def measure_group(
    group: list[Case], device: torch.device, options: CurvesOptions, info: dict[str, str]
) -> list[CostRow]:
    """Measure a group with a progress bar."""
    start, title = time.perf_counter(), group[0].title
    results: list[dict[str, Any]] = []
    visits = measure(group, device, options.batch_size, options.budget, results, info)
    bar = Bar(visits, title, total=(ROUNDS + 1) * len(group))
    for _ in bar:
        bar.set_text(f"{title}: {len(group)} cases in {time.perf_counter() - start:.0f} s")
    return [CostRow(**result) for result in results]


def write_report(rows: list[CostRow], folder: Path) -> None:
    """Write the markdown table and the plots."""
    with atomic_write(folder / "curves.md", "w", encoding="utf-8") as file:
        file.write(markdown(rows))
    plots = draw_all(rows, folder)
    names = ", ".join(["curves.md", *(path.name for path in plots)])
    LOG.info(f"Results saved to {relative_to_cwd(folder)}: {names}")
