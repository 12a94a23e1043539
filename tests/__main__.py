"""Check everything: `python -m tests [--all]`. One line a step; stops at the first that fails."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from utils.base.paths import ROOT


def steps(everything: bool) -> dict[str, list[str]]:
    """Name and command of each step, in order."""
    scripts = [path.name for path in sorted(ROOT.glob("*.py"))]
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
        "tests": ["pytest"] if everything else ["pytest", "-m", "not slow"],
    }


def main() -> int:
    """Run the steps; return 0, or the exit status of the one that failed."""
    parser = argparse.ArgumentParser(prog="python -m tests", description=__doc__)
    parser.add_argument("--all", action="store_true", help="the slow tests, too")
    for name, command in steps(parser.parse_args().all).items():
        start = time.perf_counter()
        if name == "tests":
            print(f"tests    {' '.join(command)}", flush=True)
        status = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=False).returncode
        verdict = "ok" if status == 0 else "FAILS"
        print(f"{name:8} {verdict:6} {time.perf_counter() - start:.1f} s", flush=True)
        if status != 0:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
