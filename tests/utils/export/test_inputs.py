"""The example batch and the calibration images."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from utils.base.errors import DataError
from utils.data.letterbox import letterbox
from utils.export.export_job import example_images, load_calibration_images
from utils.tasks.task import Task


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A dataset of five images of one colour each, of which the last cannot be read."""
    (tmp_path / "images").mkdir()
    for index in range(4):
        image = np.full((40, 80, 3), (50 * index, 0, 255), np.uint8)  # BGR
        cv2.imwrite(str(tmp_path / "images" / f"{index}.png"), image)
    (tmp_path / "images" / "4.png").write_bytes(b"no image")
    yaml = tmp_path / "d.yaml"
    yaml.write_text(f"path: {tmp_path}\ntrain: images\nval: images\nnames: [cell]\n")
    return yaml


def test_a_folder_without_images_gives_a_pattern(tmp_path: Path) -> None:
    images = example_images((64, 96), 2, tmp_path)

    assert images.shape == (2, 3, 64, 96)
    assert 0 <= images.min() < images.max() <= 1
    assert torch.equal(images[0], images[1])


def test_the_example_batch_is_the_first_image_letterboxed(data: Path) -> None:
    images = example_images((64, 64), 1, data.parent / "images")

    boxed = letterbox(cv2.imread(str(data.parent / "images" / "0.png")), 64, auto=False)[0]
    expected = torch.from_numpy(boxed[..., ::-1].transpose(2, 0, 1).copy()).float() / 255
    assert torch.equal(images[0], expected) and images.is_contiguous()


def test_calibration_images_are_evenly_spaced(data: Path) -> None:
    batches = load_calibration_images(Task().training_images(str(data)), (32, 32), 3, batch_size=2)()

    assert [batch.shape for batch in batches] == [(2, 3, 32, 32)] * 2  # the fifth cannot be read
    assert [round(float(batch[0, 2, 16, 16]) * 255) for batch in batches] == [0, 100]


def test_a_dataset_without_readable_images_is_an_error(data: Path) -> None:
    for file in (data.parent / "images").iterdir():
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match="none of the 5 training images can be read"):
        load_calibration_images(Task().training_images(str(data)), (32, 32), 3)()
