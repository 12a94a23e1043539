"""Images fitted to the network, and maps and boxes scaled back to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from studies.explain.labelled_models import ModelInputs, frames_of, open_images
from tests.utils.sources.test_source import make_image_file, video
from utils.base.errors import ConfigError
from utils.sources.frame import Frame


def frame(height: int, width: int, name: str = "a.jpg", number: int = 0) -> Frame:
    image = np.zeros((height, width, 3), np.uint8)
    return Frame(Path(name), image, frame_number=number)


def make_inputs(imgsz: tuple[int, int] = (64, 64)) -> ModelInputs:
    return ModelInputs(imgsz, 32, torch.device("cpu"))


@pytest.mark.parametrize(("height", "width"), [(40, 60), (60, 41), (64, 64), (3000, 1999), (7, 300)])
def test_the_padding_is_cropped_exactly(height: int, width: int) -> None:
    shot = frame(height, width)
    shot.image[:] = 255
    item = make_inputs().make(shot)
    grey = (item.images[0, 0].numpy() * 255).round()
    inner = item.crop(grey)
    assert (inner == 255).all()
    assert inner.size == (grey == 255).sum()


def test_maps_and_boxes_are_scaled_back() -> None:
    shot = frame(200, 400)
    shot.image[100:140, 300:340] = 255
    item = make_inputs().make(shot)
    bright = item.crop(item.images[0, 0].numpy())
    row, column = np.unravel_index(bright.argmax(), bright.shape)
    assert 100 <= row / bright.shape[0] * 200 < 140
    assert 300 <= column / bright.shape[1] * 400 < 340
    box = np.array([[300, 100, 340, 140, 0.5, 0]]) * [64 / 400, 64 / 400, 64 / 400, 64 / 400, 1, 1]
    box[:, [1, 3]] += 0 if item.images.shape[2] == 32 else 16
    np.testing.assert_allclose(item.scale_boxes(box), [[300, 100, 340, 140, 0.5, 0]], atol=1e-6)


def test_large_images_are_reduced_and_boxes_with_them() -> None:
    item = make_inputs().make(frame(1280, 2560))
    assert item.image.shape == (640, 1280, 3)
    np.testing.assert_allclose(
        item.scale_boxes(np.array([[0.0, 0, 64, 32, 1, 0]])), [[0, 0, 1280, 640, 1, 0]]
    )


def test_images_of_all_shapes_are_padded_to_the_same_shape() -> None:
    inputs = make_inputs((64, 96))
    assert {inputs.full(frame(h, w)).shape for h, w in ((40, 60), (60, 40))} == {(1, 3, 64, 96)}


def test_names_are_unique() -> None:
    inputs = make_inputs()
    shots = [frame(8, 8), frame(8, 8, "c/a.png"), frame(8, 8, "b.bmp"), frame(8, 8, "v.mp4", number=3)]
    made = [inputs.make(shot) for shot in shots]
    assert [item.name for item in made] == ["a", "a2", "b", "v_3"]
    assert made[3].title == "v.mp4, frame 3"


def test_images_and_frames_are_read_up_to_the_limit(tmp_path: Path) -> None:
    make_image_file(tmp_path / "a.jpg")
    video(tmp_path / "v.mp4", frames=6)
    shots = list(frames_of(open_images(str(tmp_path), vid_stride=2), 3))
    assert [(shot.path.name, shot.frame_number) for shot in shots] == [
        ("a.jpg", 0),
        ("v.mp4", 1),
        ("v.mp4", 2),
    ]


def test_live_sources_are_an_error() -> None:
    with pytest.raises(ConfigError, match="--source 0: expected a file"):
        open_images("0")
