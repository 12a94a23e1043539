"""Time two implementations against each other in one run, and tabulate the ratios."""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the project's packages, whatever the current folder is
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads do not spin; before torch is imported


@dataclass(frozen=True)
class Ratio:
    """One row of the table. A target is written `>= 1.4` or `<= 1.15`; rows without one are only reported."""

    what: str
    target: str
    median: float
    low: float  # quartiles of the rounds
    high: float
    sides: str  # what was timed, such as `new 1.20 ms, old 2.40 ms`

    @property
    def status(self) -> str:
        """`met`, `missed`, or empty without a target."""
        if not self.target:
            return ""
        sign, bound = self.target.split()
        met = self.median >= float(bound) if sign == ">=" else self.median <= float(bound)
        return "met" if met else "missed"


def ratio(what: str, target: str, over: Sequence[float], under: Sequence[float], sides: str = "") -> Ratio:
    """Compute `over` / `under` for each round, and the quartiles."""
    rounds = sorted(a / b for a, b in zip(over, under, strict=True))
    low, median, high = statistics.quantiles(rounds, n=4) if len(rounds) > 1 else rounds * 3
    return Ratio(what, target, median, low, high, sides)


def faster(what: str, target: str, seconds: dict[str, list[float]], new: str, old: str) -> Ratio:
    """Compute how many times faster `new` is than `old`."""
    return ratio(what, target, seconds[old], seconds[new], _both(seconds, new, old))


def slower(what: str, target: str, seconds: dict[str, list[float]], new: str, old: str) -> Ratio:
    """Compute the time of `new` as a multiple of the time of `old`."""
    return ratio(what, target, seconds[new], seconds[old], _both(seconds, new, old))


def _both(seconds: dict[str, list[float]], new: str, old: str) -> str:
    return ", ".join(f"{name} {format_seconds(statistics.median(seconds[name]))}" for name in (new, old))


def format_seconds(seconds: float) -> str:
    """Format a duration in s, ms or µs."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def timed(work: Callable[[], Any]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(
    sides: dict[str, Callable[[], Any]],
    rounds: int = 9,
    warm: int = 1,
    least: float = 0.01,
    pause: float = 0.0,
) -> dict[str, list[float]]:
    """Time functions in turns; the order is reversed from round to round.

    Args:
        sides: functions by name.
        rounds: number of measurements of each.
        warm: number of calls before, which are not measured.
        least: minimum seconds of a measurement; short calls are repeated.
        pause: seconds to wait before each measurement, followed by a call that is not measured. Idle
            threads of another process keep spinning for a while, on the same cores.

    Returns:
        Seconds per call, by name and round.
    """
    repeats = {}
    for name, work in sides.items():
        for _ in range(warm):
            work()
        repeats[name] = max(1, round(least / max(timed(work), 1e-7)))
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 else -1]:
            work = sides[name]
            if pause:
                time.sleep(pause)
                work()
            start = time.perf_counter()
            for _ in range(repeats[name]):
                work()
            seconds[name].append((time.perf_counter() - start) / repeats[name])
    return seconds


class TimedProcess:
    """A subprocess that does one round of work per call, see `run_rounds`."""

    def __init__(self, script: str, *arguments: str, native: bool = True) -> None:
        environment = {**os.environ, "YOLOV5_NATIVE": "1" if native else "0"}
        self.results: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [sys.executable, script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._read()

    def __call__(self) -> dict[str, Any]:
        """Run a round; its result is also appended to `results`."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.results.append(self._read())
        return self.results[-1]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                result: dict[str, Any] = json.loads(line)
                return result
        raise RuntimeError(f"{self._process.args} ended before it returned a result")

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def run_rounds(work: Callable[[], dict[str, Any] | None]) -> None:
    """Run `work` once per line of stdin and print its result as JSON: the subprocess of TimedProcess."""
    print("{}", flush=True)
    for _ in sys.stdin:
        print(json.dumps(work() or {}), flush=True)


def current_memory() -> float:
    """Return the resident memory of this process in bytes."""
    import psutil

    return float(psutil.Process().memory_info().rss)


def peak_memory() -> float:
    """Return the peak resident memory of this process in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


class ResultTable:
    """Table that prints each row when it is added, and writes all rows to a csv file."""

    def __init__(self, title: str, path: str = "") -> None:
        self.path = Path(path) if path else None
        self.rows: list[Ratio] = []
        self.machine = describe_machine()
        print(f"{title}\n{self.machine}\n", flush=True)
        print(f"{'what':58}{'target':>9}{'ratio':>8}{'quartiles':>15}  {'':7}sides")

    def add(self, row: Ratio) -> None:
        """Print a row and rewrite the csv file, so that an interrupted run keeps its results."""
        self.rows.append(row)
        spread = f"{row.low:.3g}-{row.high:.3g}"
        print(
            f"{row.what:58}{row.target:>9}{row.median:8.3g}{spread:>15}  {row.status:7}{row.sides}",
            flush=True,
        )
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow([*(field.name for field in fields(Ratio)), "verdict", "machine"])
                writer.writerows([*_rounded(row), row.status, self.machine] for row in self.rows)


def _rounded(row: Ratio) -> list[Any]:
    return [f"{value:.4g}" if isinstance(value, float) else value for value in astuple(row)]


def describe_machine() -> str:
    """Return processor, instruction set, number of threads and PyTorch version as one line."""
    import torch

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    instructions = torch.backends.cpu.get_cpu_capability()
    if instructions == "AVX512" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        instructions += " with BF16"
    return f"{model} ({instructions}), {torch.get_num_threads()} threads, torch {torch.__version__}"


def parser(description: str | None) -> argparse.ArgumentParser:
    """Make a parser with the flags that all benchmarks share."""
    p = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=9, help="number of measurements of each side")
    p.add_argument("--csv", default="", help="csv file to write the results to")
    return p
