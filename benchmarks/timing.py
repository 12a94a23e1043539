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


class TimedProcess:
    """The parent's end: call it, and the process does a round."""

    def __init__(self, script: str, *arguments: str, native: bool = True) -> None:
        environment = {**os.environ, "YOLOV5_NATIVE": "1" if native else "0"}
        self.answers: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [sys.executable, script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._read()

    def __call__(self) -> dict[str, Any]:
        """What a round gave; its last line is kept in `answers`, too."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.answers.append(self._read())
        return self.answers[-1]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"{self._process.args} ended before its turn")

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(work: Callable[[], dict[str, Any] | None]) -> None:
    """The process's end: a round for each line."""
    print("{}", flush=True)
    for _ in sys.stdin:
        print(json.dumps(work() or {}), flush=True)


def present_memory() -> float:
    """Bytes that this process has in memory now."""
    import psutil

    return float(psutil.Process().memory_info().rss)


def peak_memory() -> float:
    """Most bytes that this process has had in memory."""
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the packages of the project, from whichever folder the script is started


@dataclass(frozen=True)
class Ratio:
    """One line of the table. A target reads `>= 1.4` or `<= 1.15`; empty: only reported."""

    what: str
    target: str
    median: float
    low: float  # quartiles of the rounds
    high: float
    sides: str  # what was timed, as `new 1.20 ms, old 2.40 ms`

    @property
    def verdict(self) -> str:
        """Whether the median meets the target."""
        if not self.target:
            return ""
        sign, bound = self.target.split()
        met = self.median >= float(bound) if sign == ">=" else self.median <= float(bound)
        return "met" if met else "missed"


def timed(work: Callable[[], Any]) -> float:
    """Seconds of one call."""
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
    """Seconds of each side in each round; the sides take turns, and the order changes from round to round.

    Args:
        sides: what to call, by name.
        rounds: that count.
        warm: rounds before, that do not.
        least: seconds a measurement lasts at least; short calls are repeated.
        pause: seconds before each measurement, and then a call that does not count: the idle threads of
            another process spin for a while, on our cores.
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


def ratio(what: str, target: str, over: Sequence[float], under: Sequence[float], sides: str = "") -> Ratio:
    """The ratio `over` / `under`, round by round."""
    rounds = sorted(a / b for a, b in zip(over, under, strict=True))
    low, middle, high = statistics.quantiles(rounds, n=4) if len(rounds) > 1 else rounds * 3
    return Ratio(what, target, middle, low, high, sides)


def span(seconds: float) -> str:
    """Seconds in a unit that reads well."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def faster(what: str, target: str, seconds: dict[str, list[float]], new: str, old: str) -> Ratio:
    """How many times faster `new` is than `old`."""
    return ratio(what, target, seconds[old], seconds[new], _both(seconds, new, old))


def slower(what: str, target: str, seconds: dict[str, list[float]], new: str, old: str) -> Ratio:
    """The time of `new` as a multiple of the time of `old`."""
    return ratio(what, target, seconds[new], seconds[old], _both(seconds, new, old))


def _both(seconds: dict[str, list[float]], new: str, old: str) -> str:
    return ", ".join(f"{name} {span(statistics.median(seconds[name]))}" for name in (new, old))


class ResultTable:
    """Prints each line when it is known, and keeps all for a csv file."""

    def __init__(self, title: str, path: str = "") -> None:
        self.path = Path(path) if path else None
        self.lines: list[Ratio] = []
        print(f"{title}\n{describe_machine()}\n", flush=True)
        print(f"{'what':58}{'target':>9}{'ratio':>8}{'quartiles':>15}  {'':7}sides")

    def add(self, line: Ratio) -> None:
        """Print a line; the csv file is written again, so that nothing is lost when a run is stopped."""
        self.lines.append(line)
        spread = f"{line.low:.3g}-{line.high:.3g}"
        print(
            f"{line.what:58}{line.target:>9}{line.median:8.3g}{spread:>15}  {line.verdict:7}{line.sides}",
            flush=True,
        )
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow([*(field.name for field in fields(Ratio)), "verdict"])
                writer.writerows([*_rounded(line), line.verdict] for line in self.lines)


def _rounded(line: Ratio) -> list[Any]:
    return [f"{value:.4g}" if isinstance(value, float) else value for value in astuple(line)]


def describe_machine() -> str:
    """Processor, cores and versions, as one line."""
    import torch

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return f"{model}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def parser(words: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks share."""
    made = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=9, help="measurements of each side")
    made.add_argument("--csv", default="", help="file for the figures")
    return made
