"""Images that are in two splits are found, also if they were changed on the way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from utils.data import __main__ as commands
from utils.data.dataset_yaml import read_data_yaml
from utils.data.shapes import draw_image
from utils.data.similar import find_similar

Change = Callable[[np.ndarray], np.ndarray]
CHANGES: dict[str, Change] = {
    "copied": lambda image: image,
    "smaller": lambda image: cv2.resize(image, (90, 60), interpolation=cv2.INTER_AREA),
    "brighter": lambda image: cv2.convertScaleAbs(image, alpha=0.8, beta=40),
    "grey": lambda image: cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR),
    "mirrored": lambda image: image[:, ::-1],
}


def write(path: Path, image: np.ndarray, quality: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Return the yaml of 12 + 6 + 4 images, all different."""
    for number in range(22):
        split = "train" if number < 12 else "val" if number < 18 else "test"
        image, _ = draw_image(np.random.default_rng(number), 120, 180)
        write(tmp_path / "images" / split / f"{number:02}.jpg", image)
    splits = {split: f"images/{split}" for split in ("train", "val", "test")}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"path": ".", "names": ["a"], **splits}))
    return tmp_path / "data.yaml"


def test_different_images_are_not_similar(dataset: Path) -> None:
    assert find_similar(read_data_yaml(dataset)) == []


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("splits", [("train", "val"), ("train", "test"), ("val", "test")])
def test_a_planted_copy_is_found(dataset: Path, change: str, splits: tuple[str, str]) -> None:
    images = dataset.parent / "images"
    source = sorted((images / splits[0]).iterdir())[1]
    copied = CHANGES[change](cv2.imread(str(source)))
    write(images / splits[1] / "planted.jpg", copied, quality=60)
    (pair,) = find_similar(read_data_yaml(dataset))
    assert pair.splits == splits
    assert pair.images == (source, images / splits[1] / "planted.jpg")
    assert pair.correlation > 0.98 and pair.mirrored == (change == "mirrored")


def test_unreadable_and_plain_images_are_left_out(dataset: Path) -> None:
    images = dataset.parent / "images"
    for split in ("train", "val"):
        write(images / split / "white.jpg", np.full((50, 50, 3), 255, np.uint8))
        (images / split / "broken.jpg").write_bytes(b"no image")
    assert find_similar(read_data_yaml(dataset)) == []


def test_the_command_lists_the_pairs(
    dataset: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = dataset.parent / "images"
    write(images / "val/planted.jpg", cv2.imread(str(images / "train/03.jpg")))
    monkeypatch.setattr(sys, "argv", ["-m utils.data", "similar", str(dataset)])
    with pytest.raises(SystemExit) as ended:
        commands.script.main(commands.main)
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"train and val: {images}/train/03.jpg and {images}/val/planted.jpg" in lines[-2]
    assert lines[-1] == "1 image with a nearly equal one in an earlier split"
