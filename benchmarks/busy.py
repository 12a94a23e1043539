"""Time of train.py, val.py and detect.py beside other programs, as a multiple of the time without them.

    python benchmarks/busy.py
    python benchmarks/busy.py --others 1 4 --jobs train val --weights best.pt --data cells.yaml

The other programs are loops on one thread each. "as set" is what the scripts do by themselves: idle OpenMP
threads sleep. "spinning" is the default of GNU OpenMP, with which YOLOv5 runs; it is stopped after `--most`
times the time without others. "20000 spins" is between the two. Whole processes, on all cores; nothing else
should run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from timing import ROOT, ResultTable, format_seconds, parser, ratio

from utils.base.paths import relative_to_cwd

SHARED = ROOT.parent / "shared"
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
SETTINGS: dict[str, dict[str, str]] = {
    "as set": {},
    "spinning": {"GOMP_SPINCOUNT": "300000"},
    "20000 spins": {"GOMP_SPINCOUNT": "20000"},
}
WITH_TARGETS, TARGETS = ("train", "val", "detect"), {1: "<= 2.5", 4: "<= 6"}  # number of others -> target
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def main() -> None:
    """Run the benchmark."""
    opt = options()
    table = ResultTable("Beside other programs", opt.csv)
    with tempfile.TemporaryDirectory() as folder:
        commands = jobs(opt, folder)
        for name in opt.jobs:
            report(table, opt, name, measure(opt, commands[name]))


def options() -> argparse.Namespace:
    """Read the command line."""
    data = SHARED / "data"
    defaults = {
        "weights": SHARED / "weights" / "bccd_yolov5n.pt",
        "data": data / "bccd.yaml",
        "source": data / "bccd" / "images" / "test",
    }
    p = parser(__doc__)
    for name, path in defaults.items():
        p.add_argument(f"--{name}", default=relative_to_cwd(path), help="as of the scripts")
    p.add_argument("--others", nargs="+", type=int, default=[1, 2, 4], help="numbers of other programs")
    p.add_argument("--jobs", nargs="+", default=list(WITH_TARGETS), help="what to time")
    p.add_argument(
        "--settings", nargs="+", default=["as set", "spinning"], choices=SETTINGS, help="of threads"
    )
    p.add_argument("--most", type=float, default=10, help="stop what takes so many times as long")
    opt = p.parse_args()
    if unknown := set(opt.jobs) - set(jobs(opt, "")):
        p.error(f"--jobs {' '.join(sorted(unknown))}: known are {', '.join(jobs(opt, ''))}")
    return opt


def jobs(opt: argparse.Namespace, folder: str) -> dict[str, list[str]]:
    """Return the arguments of Python for each job."""
    on = ["--weights", opt.weights, "--img", "320", "--device", "cpu", "--project", folder]
    epoch = [*on, "--data", opt.data, "--batch-size", "16", "--epochs", "1"]
    train = [str(ROOT / "train.py"), *epoch, "--noval", "--nosave", "--noplots"]
    return {
        "train": train,
        "val": [str(ROOT / "val.py"), *on, "--data", opt.data, "--batch-size", "16"],
        "detect": [str(ROOT / "detect.py"), *on, "--source", opt.source],
        "compare --jobs 2": [
            *(str(ROOT / "compare.py"), "--cfg", "yolov5n.yaml", *epoch),
            *("--jobs", "2", "--seeds", "0", "1", "--rounds", "0"),
        ],
        "torchrun, 2 processes": [*TORCHRUN, *train],
        "pytest": ["-m", "pytest", "-q", str(ROOT / "tests/utils/ops"), "-m", "not slow"],
    }


def measure(opt: argparse.Namespace, command: list[str]) -> dict[tuple[str, int], list[float]]:
    """Return the seconds of a job by setting and number of other programs, for each round."""
    seconds: dict[tuple[str, int], list[float]] = {}
    run(command, "as set")  # compiles the kernels, scans the dataset, and fills the page cache
    for _ in range(opt.rounds):
        for setting in opt.settings:
            quiet = run(command, setting)
            seconds.setdefault((setting, 0), []).append(quiet)
            for others in opt.others:
                with competitors(others):
                    taken = run(command, setting, opt.most * quiet)
                seconds.setdefault((setting, others), []).append(taken)
    return seconds


def report(
    table: ResultTable, opt: argparse.Namespace, name: str, seconds: dict[tuple[str, int], list[float]]
) -> None:
    """Add the rows of one job."""
    for setting in opt.settings:
        quiet = seconds[setting, 0]
        if setting != opt.settings[0]:
            first = opt.settings[0]
            sides = f"{setting} {_median(quiet)}, {first} {_median(seconds[first, 0])}"
            table.add(ratio(f"{name} alone, {setting} over {first}", "", quiet, seconds[first, 0], sides))
        for others in opt.others:
            busy = seconds[setting, others]
            is_target = setting == "as set" and name in WITH_TARGETS
            sides = f"beside {others} {_median(busy)}, alone {_median(quiet)}"
            stopped = sum(one >= opt.most * two for one, two in zip(busy, quiet, strict=True))
            row = ratio(
                f"{name} beside {others}, {setting}",
                TARGETS.get(others, "") if is_target else "",
                busy,
                quiet,
                sides + (f", stopped in {stopped} of {len(busy)}" if stopped else ""),
            )
            table.add(row)


def _median(seconds: list[float]) -> str:
    return format_seconds(statistics.median(seconds))


@contextmanager
def competitors(number: int) -> Iterator[None]:
    """Run so many other programs, which never wait, on one thread each."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def run(command: list[str], setting: str, most: float | None = None) -> float:
    """Return the seconds of a whole process; `most` if it was stopped because it took longer."""
    kept = {key: value for key, value in os.environ.items() if key not in WAITING}
    words = [sys.executable, *command]
    process = subprocess.Popen(
        words, cwd=Path.cwd(), env=kept | SETTINGS[setting], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    start = time.perf_counter()
    try:
        _, errors = process.communicate(timeout=most)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.communicate()
        return float(most or 0)
    if process.returncode:
        tail = errors.decode(errors="replace").strip()[-300:]
        sys.exit(f"{' '.join(command)} ended with {process.returncode}: {tail}")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
