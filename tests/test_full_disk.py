"""A full disk: a training continues and says what is complete; no partial file is left."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.weights import read_checkpoint
from tests.utils.train.small import small_models, small_set
from utils.base.errors import WriteError
from utils.base.paths import ROOT
from utils.predict.writers import VideoFile
from utils.train import run_dir
from utils.train.run_dir import RunDir
from utils.train.train_options import TrainOptions

KILOBYTE = 1024


def command(home: Path, project: Path, epochs: int = 2) -> list[str]:
    data, (model, _) = small_set(home), small_models(home)
    flags = ["--data", data, "--cfg", model, "--weights", "", "--img", 64, "--batch-size", 4, "--workers", 0]
    flags += ["--epochs", epochs, "--device", "cpu", "--loggers", "none", "--project", project]
    return [sys.executable, "train.py", *map(str, flags)]


def run(command: list[str], **kwargs: Any) -> tuple[int, str]:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, **kwargs)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


class Disk:
    """Replacement of `save_checkpoint` with a disk that can be full."""

    def __init__(self) -> None:
        self.full = False

    def save(self, path: Path, content: dict[str, Any]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, path)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr(run_dir, "save_checkpoint", disk.save)
    return disk


def test_the_best_checkpoint_is_written_once_there_is_space(
    disk: Disk, tmp_path: Path, logged: list[str]
) -> None:
    run = RunDir(tmp_path / "exp")
    weights = torch.zeros(1)
    run.save({"epoch": 0, "model": weights}, best=True)
    disk.full = True
    weights += 1
    run.save({"epoch": 1, "model": weights}, best=True)
    weights += 1  # training continues, in place
    run.save({"epoch": 2, "model": weights}, best=False)
    assert "what is there is of epoch 0, and complete; the next save tries again" in logged[-1]
    with pytest.raises(WriteError, match=r"last.pt: cannot be written \(No space left on device\)"):
        run.check_saved()
    disk.full = False
    run.save({"epoch": 3, "model": weights}, best=False)
    run.check_saved()
    best, last = (torch.load(file, weights_only=True) for file in (run.best, run.last))
    assert (best["epoch"], best["model"].item()) == (1, 1)
    assert (last["epoch"], last["model"].item()) == (3, 2)


def test_rows_of_the_table_are_written_once_there_is_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    run = RunDir(tmp_path / "exp")
    run.open(TrainOptions(), {})
    rows = [dict.fromkeys(run.columns, float(number)) for number in range(3)]
    run.write_row(rows[0])
    before = run.table.read_text()
    real = Path.open

    def partly(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = real(path, mode, *args, **kwargs)
        if mode == "a":
            file.write("1,2,")
            file.close()
            raise OSError(errno.ENOSPC, "No space left on device")
        return file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", partly)
        run.write_row(rows[1])
    assert run.table.read_text() == before
    assert "the next epoch tries again" in logged[-1]
    run.write_row(rows[2])
    assert [line.split(",")[0] for line in run.table.read_text().splitlines()[1:]] == ["0", "1", "2"]


def test_a_limit_of_file_sizes_ends_a_training_with_one_line(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60 * KILOBYTE, 60 * KILOBYTE))

    flags = [*command(tmp_path / "data", tmp_path / "runs"), "--noplots"]
    status, output = run(flags, preexec_fn=limit)
    assert status == 1
    assert "last.pt: cannot be written (File too large); no epoch is saved yet" in output
    assert len((tmp_path / "runs/exp/results.csv").read_text().splitlines()) == 3
    assert not list((tmp_path / "runs").rglob("*.pt*"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 12 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("free", [0, 8, 40, 120, 200, 300, 400, 450, 500, 550, 600, 700, 800, 1200])
def test_a_training_on_a_small_disk(free: int, small_disk: Path, tmp_path: Path) -> None:
    flags = command(tmp_path / "data", small_disk / "runs", epochs=3)
    space = shutil.disk_usage(small_disk).free
    (small_disk / "fill").write_bytes(bytes(space - free * KILOBYTE))
    status, output = run(flags)
    assert status == 0 or "No space left on device" in output.splitlines()[-1], output
    checkpoints = list(small_disk.rglob("*.pt"))
    for file in checkpoints:
        read_checkpoint(file)
    assert not list(small_disk.rglob("*.part"))
    os.truncate(small_disk / "fill", 0)
    if status and small_disk / "runs/exp/weights/last.pt" in checkpoints:
        status, output = run(
            [sys.executable, "train.py", "--resume", str(small_disk / "runs/exp/weights/last.pt")]
        )
        assert status == 0, output
        assert len((small_disk / "runs/exp/results.csv").read_text().splitlines()) == 4


@pytest.mark.slow
def test_a_video_on_a_full_disk_is_reported(small_disk: Path) -> None:
    """OpenCV itself writes a file that cannot be opened, and reports nothing."""
    frames = np.random.default_rng(0).integers(0, 256, (4, 480, 640, 3), np.uint8)
    for name, free in (("a.mp4", 4000), ("b.mp4", 100)):
        fill = small_disk / "fill"
        fill.write_bytes(b"")
        fill.write_bytes(bytes(shutil.disk_usage(small_disk).free - free * KILOBYTE))
        video = VideoFile(small_disk / name, 30, 640, 480)
        for frame in frames:
            video.write(frame)
        if name == "a.mp4":
            video.close()
    with pytest.raises(WriteError, match="could not be written completely"):
        video.close()
    assert sorted(path.name for path in small_disk.iterdir()) == ["a.mp4", "fill"]
