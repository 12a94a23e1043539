"""Run all checks: `python -m tests [--all] [--jobs 1]`. One line per step; stops at the first that fails."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from utils.base.paths import ROOT


def steps(slow: bool, jobs: int) -> dict[str, list[str]]:
    """Return the name and command of each step, in order."""
    scripts = [
        *(path.name for path in sorted(ROOT.glob("*.py"))),
        *(
            f"{folder}/{name}.py"
            for folder in ("segment", "classify")
            for name in ("train", "val", "predict")
        ),
    ]
    workers = ["-n", str(jobs), "--dist", "loadfile"] if jobs > 1 else []
    return {
        "lint": ["ruff", "check", "--quiet"],
        "format": ["ruff", "format", "--check", "--quiet"],
        "types": [
            "mypy",
            "--no-error-summary",
            "models",
            "utils",
            "studies",
            "serve",
            "yolov5_lska",
            *scripts,
        ],
        "tests": ["pytest", "--durations=25", *workers, *([] if slow else ["-m", "not slow"])],
    }


def main() -> int:
    """Run the steps; return 0, or the exit status of the step that failed."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__)
    parser.add_argument("--all", action="store_true", help="run the slow tests as well")
    parser.add_argument(
        "--jobs", type=int, default=2, help="test files at a time, on one thread each; 1: on all threads"
    )
    args = parser.parse_args()
    if args.jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    for name, command in steps(args.all, args.jobs).items():
        start = time.perf_counter()
        if name == "tests":
            print(f"tests    {' '.join(command)}", flush=True)
        status = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False).returncode
        outcome = "ok" if status == 0 else "FAILS"
        print(f"{name:8} {outcome:6} {time.perf_counter() - start:.1f} s", flush=True)
        if status != 0:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
