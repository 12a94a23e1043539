"""The loaders of utils.dataloaders and utils.datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from utils import dataloaders, datasets
from utils.base.paths import ROOT

IMAGES = ROOT / "data/images"


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 12 frames, 96 x 64."""
    path = tmp_path_factory.mktemp("videos") / "twelve.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (96, 64))
    for index in range(12):
        writer.write(np.full((64, 96, 3), 20 * index, np.uint8))
    writer.release()
    return path


def test_items_of_datasets_unpack_into_four_names_or_five() -> None:
    loader = datasets.LoadImages(str(IMAGES / "shapes-1.jpg"), img_size=64)
    for path, im, im0, cap in loader:
        four = path, im, im0, cap
    for path, im, im0, cap, text in loader:
        assert text.startswith("image 1/1 ") and path == four[0]
    for index, (path, im, im0, cap) in enumerate(loader):
        assert index == 0 and im.shape[0] == 3 and im0.ndim == 3 and cap is None
    for path, *rest in loader:
        assert len(rest) == 4
    (item,) = loader
    assert len(item) == 5 and item[4] == text and len(list(item)) == 5 and len(tuple(item)) == 5
    path, im, im0, cap = item
    path, im, im0, cap, text = item
    first, *_ = map(lambda row: row, item)  # noqa: C417 - called from C
    assert first == path
    with pytest.raises(ValueError, match="too many values"):
        path, im, im0 = item


def test_items_of_datasets_unpack_the_same_after_the_loop_is_optimized() -> None:
    loader = datasets.LoadImages([str(IMAGES)] * 40, img_size=32)
    count = 0
    for path, im, im0, cap in loader:
        count += im.shape[0] == 3
    assert count == len(loader) >= 160


def test_items_of_dataloaders_have_five_elements() -> None:
    for path, im, im0, cap, text in dataloaders.LoadImages(str(IMAGES / "shapes-1.jpg"), img_size=(64, 96)):
        assert im.flags.c_contiguous and im.dtype == np.uint8
        assert im.shape[1] % 32 == 0 and Path(path).name == "shapes-1.jpg" and cap is None and text
    assert type(next(iter(dataloaders.LoadImages(str(IMAGES))))) is tuple


def test_images_come_first_then_the_frames_of_videos(video: Path, tmp_path: Path) -> None:
    for file in (IMAGES / "shapes-2.jpg", video):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    loader = dataloaders.LoadImages(str(tmp_path), img_size=64, vid_stride=2)
    modes, frames = [], []
    for _, im, im0, cap, text in loader:
        modes.append(loader.mode)
        frames.append(loader.frame)
        if loader.mode == "video":
            assert im0.shape == (64, 96, 3) and cap.get(cv2.CAP_PROP_FPS) == 25.0
            assert f"({loader.frame}/6)" in text
    assert modes == ["image"] + ["video"] * 6 and frames == [0, 1, 2, 3, 4, 5, 6]
    assert len(loader) == 2 and loader.nf == 2 and loader.video_flag == [False, True]


def test_errors_are_those_that_scripts_catch(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing.jpg does not exist"):
        dataloaders.LoadImages(str(tmp_path / "nothing.jpg"))
    with pytest.raises(AssertionError, match="no image .*jpg"):
        dataloaders.LoadImages(str(tmp_path))
    (tmp_path / "broken.jpg").write_bytes(b"not an image")
    with pytest.raises(AssertionError, match="Image Not Found .*broken.jpg"):
        next(iter(dataloaders.LoadImages(str(tmp_path))))


def test_videos_that_cannot_be_read_are_skipped_with_a_warning(
    video: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(3):
        (tmp_path / f"{index}.avi").write_bytes(b"no video")
    (tmp_path / "z.avi").write_bytes(video.read_bytes())
    assert sum(1 for _ in dataloaders.LoadImages(str(tmp_path), img_size=64)) == 12
    assert caplog.text.count("no frame of the video could be read") == 3


def test_a_glob_a_list_and_transforms_are_accepted() -> None:
    assert len(dataloaders.LoadImages(str(IMAGES / "shapes-*.jpg"))) == 3
    assert len(dataloaders.LoadImages([str(IMAGES / "shapes-1.jpg"), IMAGES / "shapes-2.jpg"])) == 2
    from utils.augmentations import classify_transforms

    for _, im, *_ in dataloaders.LoadImages(str(IMAGES / "shapes-1.jpg"), transforms=classify_transforms(96)):
        assert isinstance(im, torch.Tensor) and im.shape == (3, 96, 96)


@pytest.mark.parametrize("module", [datasets, dataloaders])
def test_streams_give_batches_until_they_end(module: Any, video: Path, tmp_path: Path) -> None:
    listed = tmp_path / "streams.txt"
    listed.write_text(f"{video}\n{video}\n")
    loader = module.LoadStreams(str(listed), img_size=64, stride=32)
    assert len(loader) == 2 and loader.mode == "stream" and loader.sources == [str(video)] * 2
    count = 0
    for paths, im, im0s, cap, text in loader:
        assert paths == loader.sources and im.shape[:2] == (2, 3) and len(im0s) == 2
        assert cap is None and text == "" and loader.count == count
        count += 1
    assert count >= 1


def test_a_stream_that_cannot_be_opened_is_an_error() -> None:
    with pytest.raises(AssertionError, match="cannot be opened"):
        dataloaders.LoadStreams("/dev/null/camera", img_size=64)
