"""The drawn dataset: reproducible, complete, and labelled exactly."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from utils.base.errors import DataError
from utils.base.paths import ROOT
from utils.base.seeds import generator
from utils.base.yaml_io import read_yaml
from utils.data import shapes
from utils.data.dataset import DetectionDataset
from utils.data.shapes import MARKER, NAMES, draw_image, draw_objects, make_shapes
from utils.tasks.segment.rasterize import MaskFormat


def content(folder: Path) -> dict[str, str]:
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_a_seed_gives_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    one = content(make_shapes(tmp_path / "one", seed=3, train=4, val=2, size=96))
    same = content(make_shapes(tmp_path / "same", seed=3, train=4, val=2, size=96))
    other = content(make_shapes(tmp_path / "other", seed=4, train=4, val=2, size=96))

    assert one == same
    assert not set(one.values()) & set(other.values())
    assert len(one) == 2 * (4 + 2) + 1


def test_every_image_has_a_label_file_of_legal_rows(tmp_path: Path) -> None:
    root = make_shapes(tmp_path / "shapes", train=12, val=4, size=128)

    files = sorted((root / "images").rglob("*.jpg"))
    assert len({file.stem for file in files}) == 16  # names differ between the splits
    for file in files:
        image = cv2.imread(str(file))
        assert image is not None
        assert image.shape == (128, 128, 3)
        text = (root / "labels" / file.parent.name / f"{file.stem}.txt").read_text()
        for line in text.splitlines():
            kind, *box = line.split()
            x, y, w, h = map(float, box)
            assert int(kind) in range(len(NAMES))
            assert min(w, h) > 0.05
            assert min(x - w / 2, y - h / 2) > -1e-5
            assert max(x + w / 2, y + h / 2) < 1 + 1e-5


def test_a_box_encloses_its_shape_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    white, black = np.full(3, 255, np.float32), np.zeros(3, np.float32)
    monkeypatch.setattr(
        shapes, "_background", lambda rng, h, w: (np.zeros((h, w, 3), np.float32), black.copy())
    )
    monkeypatch.setattr(shapes, "_distinct_colour", lambda rng, used: white)
    for number in range(20):
        image, labels = draw_image(generator(5, number), 200, 260, objects=1)
        _, cx, cy, w, h = labels[0]
        rows, columns = np.nonzero(image.max(2) > 127)
        found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        box = ((cx - w / 2) * 260, (cy - h / 2) * 200, (cx + w / 2) * 260, (cy + h / 2) * 200)
        assert box == pytest.approx(found, abs=1.1)  # edges blend over one pixel


def test_all_classes_and_images_without_objects_occur() -> None:
    drawn = [draw_image(generator(0, number), 64, 64)[1] for number in range(80)]

    counts = np.bincount(np.concatenate(drawn)[:, 0].astype(int), minlength=len(NAMES))
    assert counts.min() > 0.1 * counts.sum()
    assert 0 < sum(len(labels) == 0 for labels in drawn) < 12


def test_most_of_each_shape_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    painted: list[np.ndarray] = []
    monkeypatch.setattr(shapes, "_paint", lambda rng, canvas, mask, colour: painted.append(mask))
    draw_image(generator(2), 200, 200, objects=12)

    assert len(painted) > 5
    for number, mask in enumerate(painted):
        later = np.any(painted[number + 1 :], axis=0) if painted[number + 1 :] else np.zeros_like(mask)
        assert (mask & ~later).sum() >= 0.5 * mask.sum()


def test_an_existing_dataset_is_not_drawn_again(tmp_path: Path) -> None:
    root = make_shapes(tmp_path / "shapes", train=2, val=1, size=64)
    (root / "labels" / "train.cache").write_text("a cache")
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*")}

    make_shapes(root, train=2, val=1, size=64)

    assert {file: file.stat().st_mtime_ns for file in root.rglob("*")} == before


def test_an_older_version_is_replaced(tmp_path: Path) -> None:
    root = make_shapes(tmp_path / "shapes", train=2, val=1, size=64)
    marker = json.loads((root / MARKER).read_text())
    (root / MARKER).write_text(json.dumps(marker | {"version": 0}))
    (root / "labels" / "train" / "stale.txt").write_text("")

    make_shapes(root, train=2, val=1, size=64)

    assert json.loads((root / MARKER).read_text()) == marker
    assert not (root / "labels" / "train" / "stale.txt").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["shapes"]  # no temporary folder is left


def test_an_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: Path, image: np.ndarray, quality: int = 90) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shapes, "save_jpeg", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make_shapes(tmp_path / "shapes", train=2, val=1, size=64)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("dear")

    with pytest.raises(DataError, match=f"{tmp_path.name}.*contains other files"):
        make_shapes(tmp_path, train=1, val=1, size=64)

    assert (tmp_path / "holiday.jpg").read_text() == "dear"


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(DataError, match="file/shapes: the shapes cannot be drawn there"):
        make_shapes(tmp_path / "file" / "shapes", train=1, val=1, size=64)


@pytest.mark.parametrize("name", ["shapes.yaml", "shapes-seg.yaml"])
def test_the_yaml_names_the_classes_in_order(name: str) -> None:
    assert tuple(read_yaml(ROOT / "data" / name)["names"].values()) == NAMES


def test_polygons_are_the_visible_parts_of_the_same_shapes(tmp_path: Path) -> None:
    boxes = make_shapes(tmp_path / "boxes", seed=1, train=24, val=2, size=200)
    root = make_shapes(tmp_path / "polygons", seed=1, train=24, val=2, size=200, polygons=True)
    assert content(root / "images") == content(boxes / "images")

    data = DetectionDataset([root / "images" / "train"], 200, masks=MaskFormat(1, False))
    rings = 0
    for number in range(24):
        _, rows, visible = draw_objects(generator(1, number), 200, 200)
        item = data[number]
        assert item.masks is not None
        assert item.labels[:, 1].tolist() == rows[:, 0].tolist()
        for kind, again, mask in zip(rows[:, 0], item.masks.numpy().astype(bool), visible, strict=True):
            assert (again & mask).sum() / (again | mask).sum() > 0.95
            rings += NAMES[int(kind)] == "ring"  # their holes are not in the mask
        if len(visible):
            assert (np.sum(visible, axis=0) <= 1).all()
    assert rings > 5


def test_a_dataset_of_boxes_is_not_one_of_polygons(tmp_path: Path) -> None:
    root = make_shapes(tmp_path / "shapes", train=2, val=1, size=64)
    boxes = content(root)
    make_shapes(root, train=2, val=1, size=64, polygons=True)
    polygons = content(root)

    assert boxes != polygons == content(make_shapes(root, train=2, val=1, size=64, polygons=True))
    assert json.loads((root / MARKER).read_text())["polygons"]


def test_images_for_detection_are_shipped() -> None:
    images = sorted((ROOT / "data" / "images").glob("*.jpg"))

    assert len(images) == 4
    assert all(cv2.imread(str(image)) is not None for image in images)
