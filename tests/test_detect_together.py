"""detect.py with batches, batches side by side, and files that threads write."""

from __future__ import annotations

import errno
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.detecting import Finder, detect_in, frames_of, made
from tests.utils.sources.test_source import make_image_file, video
from utils.base.errors import WriteError


def mixed(folder: Path) -> Path:
    """Images of two shapes, mixed, and a video of the first shape."""
    for number, (height, width) in enumerate([(40, 60)] * 5 + [(20, 60)] * 2 + [(40, 60)]):
        make_image_file(folder / f"{number}.png", height, width)
    video(folder / "clip.mp4", frames=5)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in made(folder)}


@pytest.mark.parametrize("threads", [1, 2])
def test_the_batch_size_changes_neither_files_nor_log_lines(
    tmp_path: Path, logged: list[str], threads: int
) -> None:
    source, before = mixed(tmp_path / "in"), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        results = []
        for size in (1, 3):
            logged.clear()
            finder = Finder()
            flags = {"save_txt": True, "save_csv": True, "save_crop": True, "batch_size": size}
            summary = detect_in(source, tmp_path / "runs", finder, **flags)
            lines = [re.sub(r"[\d.]+ms$", "", line) for line in logged[:-2]]
            results.append((lines, contents(summary.save_dir), summary.frames, summary.detections))
            batches = sorted(shape[0] for shape in finder.shapes)
            assert batches == ([1] * 13 if size == 1 else [2, 2, 3, 3, 3])
        assert results[0] == results[1]
        assert results[0][2] == 13
    finally:
        torch.set_num_threads(before)


def test_feature_maps_are_saved_for_every_image(tmp_path: Path) -> None:
    for name in "ab":
        make_image_file(tmp_path / "in" / f"{name}.jpg")
    folder = detect_in(tmp_path / "in", tmp_path / "runs", visualize=True, nosave=True, batch_size=2).save_dir
    assert {path.parent.name for path in folder.rglob("*.png")} == {"a", "b"}


def test_a_full_disk_is_an_error_that_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        make_image_file(tmp_path / "in" / f"{number:02}.jpg")

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WriteError, match=r"00\.jpg: cannot be written \(No space left on device\)"):
        detect_in(tmp_path / "in", tmp_path / "runs")


@pytest.mark.parametrize(("batch_size", "stop_at", "fewest", "most"), [(1, 5, 3, 5), (0, 2, 0, 8)])
def test_ctrl_c_saves_the_images_that_were_logged(
    tmp_path: Path, logged: list[str], batch_size: int, stop_at: int, fewest: int, most: int
) -> None:
    for number in range(9):
        make_image_file(tmp_path / "in" / f"{number}.jpg")
    with pytest.raises(KeyboardInterrupt):
        detect_in(tmp_path / "in", tmp_path / "runs", Finder(stop_at=stop_at), batch_size=batch_size)
    lines = [line for line in logged if line.startswith("image")]
    assert fewest <= len(lines) <= most  # side by side, another one may have been the one that stops
    assert len(made(tmp_path / "runs")) == len(lines)


def test_ctrl_c_leaves_a_playable_video_and_logs_its_folder(tmp_path: Path, logged: list[str]) -> None:
    file = video(tmp_path / "a.mp4", frames=9)
    with pytest.raises(KeyboardInterrupt):
        detect_in(file, tmp_path / "runs", Finder(stop_at=4), batch_size=1)
    lines = [line for line in logged if line.startswith("video")]
    assert 2 <= len(lines) <= 4  # side by side, another frame may have been the one that stops
    assert frames_of(tmp_path / "runs" / "exp" / "a.mp4")[0] == len(lines)
    assert logged[-1].startswith("Results saved to")


@pytest.mark.parametrize(
    ("imgsz", "flags", "largest"),
    [
        (64, {}, 8),
        (64, {"view_img": True}, 1),
        (640, {}, 2),
        (1280, {}, 1),
        (64, {"batch_size": 3}, 3),
    ],
)
def test_small_images_are_batched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, imgsz: int, flags: dict[str, Any], largest: int
) -> None:
    monkeypatch.setattr("utils.predict.writers.Window.show", lambda *_: True)
    for number in range(9):
        make_image_file(tmp_path / "in" / f"{number}.jpg", 64, 64)
    finder = Finder()

    assert (
        detect_in(tmp_path / "in", tmp_path / "runs", finder, imgsz=imgsz, nosave=True, **flags).frames == 9
    )
    assert max(shape[0] for shape in finder.shapes) == largest
