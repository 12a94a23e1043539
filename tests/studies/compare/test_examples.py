"""Example images: those on which models disagree, and their files in a report."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from studies.compare import examples
from studies.compare.examples import (
    KEPT,
    Example,
    Gallery,
    Objects,
    Split,
    count_unmatched,
    find_examples,
    read_gallery,
    unmatched,
)
from tests.utils.train.small import small_set
from utils.base.errors import DataError
from utils.data.dataset_yaml import read_data_yaml
from utils.data.image_lists import list_images

BOX = [10.0, 10, 30, 30, 0.9, 1]


def _boxes(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 6)


def test_boxes_match_by_iou_and_class() -> None:
    near, other_class = [12.0, 10, 32, 30, 0.4, 1], [10.0, 10, 30, 30, 0.9, 2]
    assert unmatched(_boxes(BOX, other_class), _boxes(near)).tolist() == [False, True]
    assert unmatched(_boxes(BOX), _boxes()).tolist() == [True]
    assert count_unmatched(_boxes(BOX, other_class), _boxes(near)) == 1
    assert count_unmatched(_boxes(BOX, BOX), _boxes(near)) == 1, "each box matches once"


def test_images_are_sorted_by_the_number_of_differing_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = read_data_yaml(small_set(tmp_path))
    images = list_images([folder for folder in data.val if isinstance(folder, Path)])
    third = images.read_image(2)

    class FakeBackend:
        """Detects `count` boxes on one image, and one that all models detect."""

        stride, pt, fp16, device = 32, True, False, torch.device("cpu")

        def __init__(self, name: str) -> None:
            self.count = {"a": 0, "b": 2}[name]

    def detect(backend: FakeBackend, image: np.ndarray, split: Split) -> Objects:
        extra = [[2.0, 40, 12, 50 + 5 * n, 0.6, 3] for n in range(backend.count)]
        return Objects(_boxes(BOX, *(extra if np.array_equal(image, third) else extra[:1])))

    monkeypatch.setattr("models.backends.load_backend", lambda files, device, names: FakeBackend(files[0]))
    monkeypatch.setattr(examples, "detect", detect)
    split = Split(data, "val", 64, False, "cpu")
    first, second = find_examples({"one": Path("a"), "two": Path("b")}, split, 2)

    assert first.title == f"{images[2].name}: 0 only in one, 2 only in two"
    assert second.title.endswith("0 only in one, 1 only in two")
    assert [label for label, _ in first.panels] == ["truth", "one", "two"]
    assert not np.array_equal(first.panels[1][1], first.panels[2][1])
    assert find_examples({"one": Path("a"), "same": Path("a")}, split, 2) == []


def test_a_gallery_can_be_read_again(tmp_path: Path) -> None:
    image = np.full((20, 30, 3), 90, np.uint8)
    Gallery(("python", "compare.py"), (Example("title", (("truth", image),)),)).write(tmp_path)
    kept = read_gallery(tmp_path)

    assert kept.command == ("python", "compare.py")
    assert kept.examples[0].title == "title" and kept.examples[0].panels[0][0] == "truth"
    assert np.abs(kept.examples[0].panels[0][1].astype(int) - image).max() <= 2
    (tmp_path / KEPT).write_text("[]")
    with pytest.raises(DataError, match=f"{KEPT}: damaged"):
        read_gallery(tmp_path)
    assert read_gallery(tmp_path / "nothing") == Gallery()
