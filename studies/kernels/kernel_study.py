"""The kernel curves from options to files: measure, tabulate, draw."""

from __future__ import annotations

import platform
import shlex
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.kernels.cells import Cell, make_groups
from studies.kernels.cost_table import CostRow, markdown, read_csv, write_csv
from studies.kernels.measure_cost import ROUNDS, measure
from studies.kernels.plot_cost import draw_all
from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.base.paths import atomic_write, increment_path, relative_to_cwd
from utils.base.progress import Bar

if TYPE_CHECKING:
    import torch

CSV = "curves.csv"


def run(opt: Namespace) -> Path:
    """Do what the options of studies/curves.py say; return the folder.

    Raises:
        ConfigError, DataError: options or a csv that cannot be used.
    """
    if opt.plot_only:
        file = Path(opt.plot_only)
        present(read_csv(file), file.parent)
        return file.parent
    check(opt)
    cells = make_groups(opt.part, opt.designs, opt.kernels, opt.channels, opt.sizes)
    device, machine = prepare(opt)
    info = {"machine": machine, "command": shlex.join(["python", *sys.argv])}
    folder = increment_path(Path(opt.project) / opt.name, opt.exist_ok)
    rows: list[CostRow] = []
    for group in cells:
        rows += watch_group(group, device, opt, info)
        write_csv(folder / CSV, rows)  # after each, so that a stopped run leaves what it has
    present(read_csv(folder / CSV), folder)  # with its rounding, so that --plot-only gives the same tables
    return folder


def check(opt: Namespace) -> None:
    """Refuse numbers that cannot work."""
    for name in ("kernels", "channels", "sizes"):
        if wrong := [value for value in getattr(opt, name) if value < 1]:
            raise ConfigError(f"--{name} {wrong[0]}: whole numbers from 1 on are needed")
    if not opt.budget >= 0:
        raise ConfigError(f"--budget {opt.budget}: seconds for each cell, 0 or more")
    if opt.batch_size < 1:
        raise ConfigError(f"--batch-size {opt.batch_size}: expected at least 1")
    if opt.threads < 0:
        raise ConfigError(f"--threads {opt.threads}: expected 0, for torch's own choice, or more")


def prepare(opt: Namespace) -> tuple[torch.device, str]:
    """Choose device and threads; also say in words what they are."""
    import torch

    from utils.base.device import describe, select_device

    device = select_device(opt.device)
    if opt.threads:
        torch.set_num_threads(opt.threads)
    name = f"{describe(device)} ({processor()})" if device.type == "cpu" else describe(device)
    return device, f"{name}, threads: {torch.get_num_threads()}, torch {torch.__version__}"


def processor() -> str:
    """The CPU's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def watch_group(
    group: list[Cell], device: torch.device, opt: Namespace, info: dict[str, str]
) -> list[CostRow]:
    """Measure a group under a progress bar."""
    start, title = time.perf_counter(), group[0].title
    results: list[dict[str, Any]] = []
    visits = measure(group, device, opt.batch_size, opt.budget, results, info)
    bar = Bar(visits, title, total=(ROUNDS + 1) * len(group))
    for _ in bar:
        bar.say(f"{title}: {len(group)} cells in {time.perf_counter() - start:.0f} s")
    return [CostRow(**result) for result in results]


def present(rows: list[CostRow], folder: Path) -> None:
    """Write the tables and images of measured rows."""
    with atomic_write(folder / "curves.md", "w", encoding="utf-8") as file:
        file.write(markdown(rows))
    images = draw_all(rows, folder)
    names = ", ".join(["curves.md", *(path.name for path in images)])
    LOG.info(f"Results saved to {relative_to_cwd(folder)}: {names}")
