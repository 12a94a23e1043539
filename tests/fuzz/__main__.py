"""Fuzz the readers with atheris: `python -m tests.fuzz [TARGET ...] [--minutes 15] [--jobs 2]`.

Each target runs in a process of its own, which atheris guides by the lines that an input reaches. An input
that raises anything but a YoloError, takes over 10 s, or more than 1 GB beside torch, is written to
the folder `found` here. Move it to `cases` with the fix; `tests/test_fuzz_cases.py` reads all of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.targets import MOST_BYTES, TARGETS
from utils.base.errors import ConfigError
from utils.base.paths import ROOT

SECONDS, MEGABYTES = 10, 1024 + 700  # for one input; torch itself takes 700 MB
FOUND = ROOT / "tests/fuzz/found"
_INSTRUMENTED = [
    "models",
    "utils",
    "serve",
    "yaml",
    "zipfile",
    "tarfile",
    "pickle",
    "python_multipart",
    "PIL",
]


def fuzz_here(name: str, seconds: int, corpus: Path) -> None:
    """Fuzz one target in this process, which ends with it."""
    import atheris

    with atheris.instrument_imports(include=_INSTRUMENTED):
        import utils.data.dataset_yaml
        import utils.data.download
        import utils.data.images
        import utils.data.labels
        import utils.train.hyp  # noqa: F401

    target = TARGETS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    FOUND.mkdir(exist_ok=True)
    flags = [f"-max_total_time={seconds}", f"-timeout={SECONDS}", f"-rss_limit_mb={MEGABYTES}"]
    flags += [f"-max_len={MOST_BYTES}", f"-artifact_prefix={FOUND}/{name}-", "-print_final_stats=1"]
    atheris.Setup(["fuzz", *flags, str(corpus)], target.check)
    atheris.Fuzz()


def fuzz(name: str, minutes: float) -> str:
    """Fuzz one target in a process; return a line about it."""
    start, log = time.monotonic(), FOUND / f"{name}.log"
    FOUND.mkdir(exist_ok=True)
    with log.open("w") as file:
        command = [sys.executable, "-m", "tests.fuzz", name, "--here", str(int(minutes * 60))]
        status = subprocess.run(command, cwd=ROOT, stdout=file, stderr=file, check=False).returncode
    text = log.read_text(errors="replace")
    runs = [line.split()[-1] for line in text.splitlines() if "number_of_executed_units" in line]
    outcome = "ok" if status == 0 else f"FOUND an input, see {log.relative_to(ROOT)}"
    return f"{name:12} {time.monotonic() - start:6.0f} s {(runs or ['?'])[-1]:>9} inputs  {outcome}"


def main() -> int:
    """Fuzz the targets and print a line for each; return 1 if an input was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help=f"of {', '.join(TARGETS)}; none: all")
    parser.add_argument("--minutes", type=float, default=15, help="for each target")
    parser.add_argument("--jobs", type=int, default=2, help="targets at a time")
    parser.add_argument("--here", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        raise ConfigError(f"no target {', '.join(unknown)}; expected {', '.join(TARGETS)}")
    if options.here:
        fuzz_here(options.targets[0], options.here, FOUND / f"corpus-{options.targets[0]}")
    lines = []
    with ThreadPoolExecutor(options.jobs) as threads:
        for line in threads.map(lambda name: fuzz(name, options.minutes), options.targets or TARGETS):
            print(line, flush=True)
            lines.append(line)
    return int(any("FOUND" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
