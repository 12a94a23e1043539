from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest
import torch

from utils.val.outputs import COCO_IDS, JsonWriter, LabelWriter, coco_scores, find_annotations

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
    writer = JsonWriter(COCO_IDS)
    writer.add(Path("000000000139.jpg"), TWO[:1])
    writer.add(Path("cell 7.jpg"), TWO[1:])
    writer.save(tmp_path / "rows.json")

    assert json.loads((tmp_path / "rows.json").read_text()) == [
        {"image_id": 139, "category_id": 2, "bbox": [10.0, 20.0, 20.0, 40.0], "score": 0.87654},
        {"image_id": "cell 7", "category_id": 1, "bbox": [0.0, 0.0, 5.0, 5.0], "score": 0.5},
    ]


def test_coco_ids_are_80_numbers_from_1_to_90() -> None:
    assert (len(COCO_IDS), COCO_IDS[0], COCO_IDS[11], COCO_IDS[-1]) == (80, 1, 13, 90)


def test_annotations_are_found_below_the_dataset(tmp_path: Path) -> None:
    file = tmp_path / "annotations" / "instances_val2017.json"
    file.parent.mkdir()
    file.touch()
    assert find_annotations(tmp_path) == file


def test_coco_scores_need_the_coco_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("pycocotools", "pycocotools.coco", "faster_coco_eval"):
        monkeypatch.setitem(sys.modules, name, None)
    assert coco_scores(tmp_path / "p.json", tmp_path / "a.json", [1]) is None
    assert "pip install" in caplog.text


def test_coco_scores_are_computed_by_the_coco_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Truth:
        def __init__(self, path: str) -> None:
            self.path = path

        def loadRes(self, path: str) -> str:  # noqa: N802 - the name in the package
            return path

    class Scorer:
        def __init__(self, truth: Truth, results: str, kind: str) -> None:
            self.params = types.SimpleNamespace(imgIds=[])
            self.stats = [0.0, 0.0]

        def evaluate(self) -> None: ...
        def accumulate(self) -> None: ...
        def summarize(self) -> None:
            self.stats = [0.4, 0.6] if self.params.imgIds == [7] else [0.0, 0.0]

    fake = types.ModuleType("faster_coco_eval")
    fake.__dict__.update(COCO=Truth, COCOeval_faster=Scorer)
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    monkeypatch.setitem(sys.modules, "faster_coco_eval", fake)

    assert coco_scores(tmp_path / "p.json", tmp_path / "a.json", [7]) == (0.4, 0.6)


def test_errors_of_the_coco_tools_give_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: str) -> None:
        raise AssertionError("Results do not correspond to current coco set")

    fake = types.ModuleType("faster_coco_eval")
    fake.__dict__.update(COCO=fail, COCOeval_faster=None)
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    monkeypatch.setitem(sys.modules, "faster_coco_eval", fake)

    assert coco_scores(tmp_path / "p.json", tmp_path / "a.json", [7]) is None
    assert "do not correspond" in caplog.text
