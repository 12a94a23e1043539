"""Run checks one after the other: each gives a row with its result, its numbers and its time."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from utils.base.errors import one_line
from utils.base.paths import ROOT

WIDTH = 36  # of the first column


class SkippedCheck(Exception):
    """A check that cannot run here; the message says why."""


@dataclass(frozen=True)
class Context:
    """Where the checks run, and how large their models, images and datasets are."""

    device: torch.device
    home: Path  # folder for datasets and runs
    cache: dict[str, Any] = field(default_factory=dict)  # runs that several checks use

    @property
    def on_cuda(self) -> bool:
        """Whether this is a real GPU, and not a rehearsal."""
        return self.device.type == "cuda"

    @property
    def flag(self) -> str:
        """The value of `--device`."""
        return str(self.device.index or 0) if self.on_cuda else "cpu"

    @property
    def imgsz(self) -> int:
        """Side of the images, pixels."""
        return 256 if self.on_cuda else 64

    @property
    def images(self) -> int:
        """Images of a drawn training set."""
        return 64 if self.on_cuda else 8

    @property
    def batch(self) -> int:
        """Images of a batch."""
        return 16 if self.on_cuda else 4

    @property
    def steps(self) -> int:
        """Steps of a training that is timed or watched."""
        return 30 if self.on_cuda else 2

    def synchronize(self) -> None:
        """Wait until the device has finished."""
        if self.on_cuda:
            torch.cuda.synchronize(self.device)

    def require_cuda(self, reason: str) -> None:
        """Skip this check in a rehearsal.

        Raises:
            SkippedCheck: the device is not CUDA.
        """
        if not self.on_cuda:
            raise SkippedCheck(f"needs CUDA, {reason}")


class Check(NamedTuple):
    """A check: `run` returns the numbers it found, and raises if they are wrong."""

    name: str
    run: Callable[[Context], str]


class Row(NamedTuple):
    """What a check gave."""

    name: str
    result: str  # ok, FAILS or skipped
    numbers: str  # or the error, or the reason
    seconds: float

    def __str__(self) -> str:
        return f"{self.name:{WIDTH}} {self.seconds:6.1f} s  {self.result}: {self.numbers}"


def run_checks(checks: Sequence[Check], context: Context, show: Callable[[str], None]) -> list[Row]:
    """Run all checks, also after one that fails; show each row when it is there.

    What the checks print is written to `log.txt` in the home of the context.
    """
    rows = []
    for check in checks:
        with (context.home / "log.txt").open("a", encoding="utf-8") as log, _written_to(log):
            print(f"\n--- {check.name}")
            rows.append(_run(check, context))
        show(str(rows[-1]))
        if context.on_cuda:
            torch.cuda.empty_cache()
    return rows


def _run(check: Check, context: Context) -> Row:
    start = time.monotonic()
    try:
        result, numbers = "ok", check.run(context)
    except SkippedCheck as reason:
        result, numbers = "skipped", str(reason)
    except (Exception, SystemExit) as error:  # whatever it is: the other checks have to run
        traceback.print_exc()
        result, numbers = "FAILS", _describe(error)
    return Row(check.name, result, numbers, time.monotonic() - start)


def _describe(error: BaseException) -> str:
    """Return an error as one line, with the last line of this project that it passed."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(str(ROOT))
    ]
    where = f" ({Path(frames[-1].filename).relative_to(ROOT)}:{frames[-1].lineno})" if frames else ""
    kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
    return f"{kind}{one_line(error)[:300]}{where}"


@contextmanager
def _written_to(log: Any) -> Iterator[None]:
    """Write what is printed and logged to a file."""
    with redirect_stdout(log), redirect_stderr(log):
        yield


def compare(name: str, found: Any, expected: Any, rtol: float, atol: float) -> float:
    """Compare tensors of any devices; return the largest difference.

    Raises:
        AssertionError: they differ by more than `atol + rtol * abs(expected)`, or a value is not finite.
    """
    one, two = (torch.as_tensor(value).detach().double().cpu() for value in (found, expected))
    assert one.shape == two.shape, f"{name}: shape {tuple(one.shape)}, expected {tuple(two.shape)}"
    assert torch.isfinite(one).all(), f"{name}: a value is not finite"
    difference = (one - two).abs()
    most = float(difference.max()) if difference.numel() else 0.0
    wrong = difference > atol + rtol * two.abs()
    assert not wrong.any(), f"{name}: {int(wrong.sum())} values differ, by up to {most:.3g}"
    return most
