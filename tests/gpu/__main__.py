"""Check this project on a CUDA device, without a network and in less than 10 minutes: `python -m tests.gpu`.

Prints a row for each check and writes a report in Markdown. A check that cannot run says why it is skipped.
The exit status is 1 if a check fails, and 2 without CUDA. With `--device cpu` all checks that need no GPU are
rehearsed with small sizes.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from utils.base.script import wait_passively


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="0", help="number of the GPU, or cpu for a rehearsal")
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="NAME", help="names of checks, with * and ?"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/gpu-report.md"), help="file of the report")
    parser.add_argument("--list", action="store_true", help="list the names of the checks")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the checks; return 0, 1 if one fails, or 2 if the device does not exist."""
    options = parse(argv)
    wait_passively()
    os.environ["YOLOV5_LOGGERS"] = "none"  # no service, no network
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it once; for --deterministic
    import torch

    from tests.gpu import distributed, inference, parity, runs, speed
    from tests.gpu.checks import WIDTH, Context, run_checks
    from tests.gpu.report import describe_machine, summary, write_report

    checks = [*parity.CHECKS, *inference.CHECKS, *runs.CHECKS, *distributed.CHECKS, *speed.CHECKS]
    chosen = [check for check in checks if any(fnmatch.fnmatch(check.name, name) for name in options.only)]
    if options.list or not chosen:
        print("\n".join(check.name for check in checks))
        return 0 if options.list else 2
    number = options.device.removeprefix("cuda:")
    if number != "cpu" and not (number.isdigit() and int(number) < torch.cuda.device_count()):
        print(
            f"--device {options.device}: torch {torch.__version__} can use {torch.cuda.device_count()} CUDA "
            "devices here; --device cpu rehearses the checks that need none",
            file=sys.stderr,
        )
        return 2
    device = torch.device("cpu" if number == "cpu" else f"cuda:{number}")
    with tempfile.TemporaryDirectory(prefix="yolov5-gpu-") as home:
        context = Context(device, Path(home))
        machine = describe_machine(context)
        versions = ", ".join(f"{name} {machine[name]}" for name in ("driver", "CUDA", "torch"))
        print(f"{machine['device']}, {versions}")
        print(f"{'check':{WIDTH}}  seconds  result and numbers")
        rows = run_checks(chosen, context, lambda line: print(line, flush=True))
        failed = any(row.result == "FAILS" for row in rows)
        log = (Path(home) / "log.txt").read_text(encoding="utf-8", errors="replace")
    write_report(options.out, machine, rows)
    print(f"{summary(rows)}; the report is {options.out}")
    if failed:
        written = options.out.with_suffix(".log")
        written.write_text(log, encoding="utf-8")
        print(f"What the checks printed is in {written}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
