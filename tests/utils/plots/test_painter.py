"""Plots that a process of its own draws: the same files, errors as without it, and no process left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from utils.base.errors import DataError
from utils.base.paths import ROOT
from utils.plots import painter
from utils.plots.batches import plot_images, plot_labels
from utils.plots.curves import plot_confusion_matrix, plot_mc_curve
from utils.plots.painter import Painter
from utils.plots.results import plot_results

PX = np.linspace(0, 1, 1000)
CURVES = np.stack([PX, 1 - PX])


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[painter._Shared]:
    """Give the test a process of its own."""
    monkeypatch.setattr(painter, "usable_cores", lambda: 2)
    monkeypatch.setattr(painter, "_shared", own := painter._Shared())
    yield own
    if own.process is not None:
        own.process.end()


def drawn(folder: Path) -> None:
    """Draw plots with arrays, tensors, paths, dictionaries, names in other scripts and empty lists."""
    folder.mkdir()
    images = torch.arange(2 * 3 * 32 * 32).reshape(2, 3, 32, 32).remainder(256).byte()
    targets = torch.tensor([[0, 1, 0.5, 0.5, 0.4, 0.3], [1, 0, 0.3, 0.3, 0.2, 0.2]])
    names, masks = {0: "café 细胞", 1: "$b"}, [np.ones((1, 8, 8), bool)] * 2
    one = Painter()
    one.draw(plot_images, images, targets, ["/a b/ü.jpg", "c.jpg"], folder / "b.jpg", names, masks=masks)
    one.draw(plot_mc_curve, PX, CURVES[:, ::-1], folder / "c.png", [*names.values()], ylabel="F1")
    one.draw(plot_mc_curve, PX, np.zeros((0, 1000)), folder / "none.png", [])
    one.draw(plot_confusion_matrix, np.eye(3), folder / "m.png", [*names.values()])
    one.draw(plot_labels, np.random.default_rng(0).random((50, 5)).round(2), names, folder)
    one.wait()
    one.close()


def test_the_process_draws_what_a_thread_draws(
    shared: painter._Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn(tmp_path / "process")
    assert shared.process is not None
    shared.process.end()
    shared.process = None
    monkeypatch.setattr(painter, "usable_cores", lambda: 1)
    drawn(tmp_path / "thread")
    assert shared.process is None

    files = sorted(path.name for path in (tmp_path / "thread").iterdir())
    assert len(files) == 6 and files == sorted(path.name for path in (tmp_path / "process").iterdir())
    for name in files:
        one, other = (cv2.imread(str(tmp_path / kind / name)) for kind in ("process", "thread"))
        assert one is not None and np.array_equal(one, other), name


def test_relative_paths_are_those_of_the_folder_at_that_time(
    shared: painter._Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Painter()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        one.draw(plot_mc_curve, PX, CURVES, Path("c.png"), [])
        one.wait()
    assert (tmp_path / "a" / "c.png").is_file() and (tmp_path / "b" / "c.png").is_file()


def test_errors_are_those_of_the_function(
    shared: painter._Shared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    one = Painter()
    one.draw(plot_mc_curve, PX, CURVES, tmp_path / "file" / "c.png", [])  # only a warning: plots are extras
    one.wait()
    assert str(tmp_path / "file") in caplog.text

    one.draw(plot_results, tmp_path / "results.csv")
    one.draw(plot_mc_curve, PX, CURVES, tmp_path / "after.png", [])
    with pytest.raises(DataError, match=r"results\.csv"):
        one.wait()
    one.close()
    assert shared.process is not None and not shared.failed  # an error of a plot does not end it


def test_functions_of_others_and_odd_arguments_are_called_here(
    shared: painter._Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    one = Painter()
    one.draw(lambda *values: calls.append((os.getpid(), values)), 1, object)
    monkeypatch.setattr("utils.plots.curves.plot_mc_curve", lambda *values: calls.append("replaced"))
    one.draw(plot_mc_curve, PX, CURVES, tmp_path / "original.png", [])
    one.draw(plot_confusion_matrix, np.array([[1, None], [2, 3]], object), tmp_path / "m.png", ["a"])
    with pytest.raises(TypeError):  # objects cannot be drawn; nor are they pickled
        one.wait()
    assert calls == [(os.getpid(), (1, object))]
    assert (tmp_path / "original.png").is_file() and not shared.failed


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_what_a_killed_process_has_not_drawn_is_drawn_here(shared: painter._Shared, tmp_path: Path) -> None:
    process = painter.start()
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    one = Painter()
    for number in range(3):
        one.draw(plot_mc_curve, PX, CURVES, tmp_path / f"{number}.png", [])
    one.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.png", "1.png", "2.png"]
    assert shared.process is None and shared.failed  # it is not started again


def test_it_rests_after_its_plots_and_starts_again(shared: painter._Shared, tmp_path: Path) -> None:
    one = Painter()
    for number in range(2):
        one.draw(plot_mc_curve, PX, CURVES, tmp_path / f"{number}.png", [])
        one.rest()
        one.wait()
        assert (tmp_path / f"{number}.png").is_file() and shared.process is None
    assert not shared.failed


def test_a_system_that_starts_no_process_draws_here(
    shared: painter._Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(painter, "module_command", lambda name: [str(tmp_path / "missing")])
    one = Painter()
    one.draw(plot_mc_curve, PX, CURVES, tmp_path / "c.png", [])
    one.wait()
    assert (tmp_path / "c.png").is_file() and shared.failed


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs /proc")
@pytest.mark.parametrize("end", ["return", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_no_process_is_left_when_the_program_ends(end: str) -> None:
    code = (
        "import os, signal; from utils.plots import painter; painter.usable_cores = lambda: 2\n"
        f"print(painter.start().pid, flush=True)\n{end.replace('return', '')}"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    wait_for_end(int(printed.stdout))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forks_neither_hold_the_process_nor_use_it(shared: painter._Shared, tmp_path: Path) -> None:
    process = painter.start()
    assert process is not None
    child = os.fork()
    if not child:  # as a worker of a loader, which lives as long as the training
        one = Painter()
        one.draw(plot_mc_curve, PX, CURVES, tmp_path / "fork.png", [])
        one.wait()
        time.sleep(60)
        os._exit(0)
    try:
        one = Painter()
        one.draw(plot_mc_curve, PX, CURVES, tmp_path / "c.png", [])
        one.rest()
        start = time.monotonic()
        one.wait()
        assert time.monotonic() - start < 30 and (tmp_path / "c.png").is_file()
        wait_for_end(process.pid)
        while not (tmp_path / "fork.png").exists():
            assert time.monotonic() - start < 60, "the fork has not drawn"
            time.sleep(0.05)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def wait_for_end(pid: int) -> None:
    """Wait until a process has ended."""
    folder, limit = Path("/proc", str(pid)), time.monotonic() + 30
    while folder.exists() and (folder / "stat").read_text().split()[2] != "Z":
        assert time.monotonic() < limit, "the process goes on without its program"
        time.sleep(0.05)


def test_one_painter_may_end_the_process_while_another_has_plots(
    shared: painter._Shared, tmp_path: Path
) -> None:
    one, other = Painter(), Painter()
    process = painter.start()
    assert process is not None
    other.rest()
    other.wait()
    assert not process.run("curves", "plot_mc_curve", [PX, CURVES, tmp_path / "late.png", []], {})
    one.draw(plot_mc_curve, PX, CURVES, tmp_path / "new.png", [])
    one.wait()
    assert (tmp_path / "new.png").is_file() and not shared.failed
