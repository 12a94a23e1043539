from __future__ import annotations

import json
from pathlib import Path

import torch

from utils.val.coco_truth import CocoTruth
from utils.val.outputs import JsonWriter, LabelWriter

TWO = torch.tensor([[10.0, 20, 30, 60, 0.87654321, 1], [0, 0, 5, 5, 0.5, 0]])
NONE = torch.zeros(0, 6)


def test_labels_are_fractions_of_the_image(tmp_path: Path) -> None:
    LabelWriter(tmp_path).add(Path("a/x.jpg"), TWO, (200, 100))
    assert (tmp_path / "x.txt").read_text() == "1 0.2 0.2 0.2 0.2\n0 0.025 0.0125 0.05 0.025\n"


def test_a_second_run_replaces_the_label_files(tmp_path: Path) -> None:
    for rows in (TWO, TWO):
        LabelWriter(tmp_path, with_confidence=True).add(Path("x.jpg"), rows, (200, 100))
    assert len((tmp_path / "x.txt").read_text().splitlines()) == 2

    LabelWriter(tmp_path).add(Path("x.jpg"), NONE, (200, 100))
    assert not (tmp_path / "x.txt").exists()


def test_images_of_one_name_have_separate_label_files(tmp_path: Path) -> None:
    writer = LabelWriter(tmp_path)
    writer.add(Path("a/x.jpg"), TWO, (200, 100))
    writer.add(Path("b/x.jpg"), TWO[:1], (200, 100))
    assert len((tmp_path / "x.txt").read_text().splitlines()) == 2
    assert len((tmp_path / "x2.txt").read_text().splitlines()) == 1


def test_json_rows_have_the_format_of_coco(tmp_path: Path) -> None:
    writer = JsonWriter()
    writer.add(Path("000000000139.jpg"), TWO[:1])
    writer.add(Path("cell 7.jpg"), TWO[1:])
    writer.save(tmp_path / "rows.json")

    assert json.loads((tmp_path / "rows.json").read_text()) == [
        {"image_id": 139, "category_id": 1, "bbox": [10.0, 20.0, 20.0, 40.0], "score": 0.87654},
        {"image_id": "cell 7", "category_id": 0, "bbox": [0.0, 0.0, 5.0, 5.0], "score": 0.5},
    ]


def test_json_rows_have_the_ids_of_the_annotations() -> None:
    writer = JsonWriter(CocoTruth(Path("a.json"), {"x/1.jpg": "first", "x/2.jpg": 7}, (None, 30)))
    for name in ("x/1.jpg", "x/2.jpg", "x/3.jpg"):  # the last is not listed
        writer.add(Path(name), TWO)

    assert writer.image_ids == ["first", 7]
    assert [(row["image_id"], row["category_id"]) for row in writer.rows] == [("first", 30), (7, 30)]


def test_numbered_label_files_leave_the_names_of_other_images(tmp_path: Path) -> None:
    writer = LabelWriter(tmp_path, stems={"a", "a2"})
    for name in ("a.jpg", "a.png", "a2.jpg"):
        writer.add(Path(name), TWO, (200, 100))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "a2.txt", "a3.txt"]
