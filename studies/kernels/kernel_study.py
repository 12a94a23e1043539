"""The kernel study: measure all cases, write the tables, draw the plots."""

from __future__ import annotations

import platform
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.kernels.cases import Case, make_groups
from studies.kernels.cost_table import CostRow, markdown, read_csv, write_csv
from studies.kernels.curves_options import CurvesOptions
from studies.kernels.measure_cost import ROUNDS, measure
from studies.kernels.plot_cost import draw_all
from utils.base.log import LOG, Bar
from utils.base.paths import atomic_write, increment_path, relative_to_cwd

if TYPE_CHECKING:
    import torch

CSV = "curves.csv"


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
    folder = increment_path(Path(options.project) / options.name, options.exist_ok)
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
