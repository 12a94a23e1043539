"""Detections are scored against the user's annotations, with the numbers of the COCO tools."""

from __future__ import annotations

import io
import json
import math
import re
import sys
import types
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.utils.data.coco_files import NAMES, CocoSet
from utils.base.errors import ConfigError, DataError
from utils.data.dataset_yaml import DataSpec, read_data_yaml
from utils.tasks.segment.polygons import encode_rle
from utils.val.coco_scores import check_tools, coco_scores
from utils.val.coco_truth import COCO_IDS, CocoTruth, load_truth
from utils.val.outputs import EvalOutputs, JsonWriter, OutputOptions


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package of the COCO tools that is found, and that nothing calls."""
    fake = types.ModuleType("faster_coco_eval")
    fake.__dict__.update(COCO=None, COCOeval_faster=None)
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    monkeypatch.setitem(sys.modules, "faster_coco_eval", fake)


def read(given: CocoSet) -> tuple[DataSpec, list[str]]:
    data = read_data_yaml(given.write())
    return data, [str(path) for path in sorted(given.images("val").iterdir())]


def truth_of(given: CocoSet, **options: Any) -> CocoTruth | None:
    return load_truth(read(given)[0], "val", read(given)[1], **options)


def with_labels(root: Path) -> CocoSet:
    """Return a dataset whose labels are files, and whose annotations are where COCO has them."""
    given = CocoSet(root, count=3)
    given.yaml |= {"annotations": None, "names": list(NAMES)}
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        given.raw[f"annotations/instances_{split}2030"] = given.raw.pop(split)
    return given


def test_annotations_of_the_labels_come_first_then_those_of_the_folder(tmp_path: Path, tools: None) -> None:
    given = CocoSet(tmp_path / "one", count=3)
    truth = truth_of(given)
    assert truth is not None and truth.file == tmp_path / "one/val.json" and not truth.required
    assert list(truth.image_ids.values()) == [100, 101, 102]
    assert truth.category_ids == [4, 30]  # names and order of the data are those of the categories

    truth = truth_of(with_labels(tmp_path / "two"))
    assert truth is not None and truth.file.name == "instances_val2030.json"
    assert truth.category_ids == [30, 4]  # by name


@pytest.mark.parametrize(
    ("names", "expected", "warning"),
    [
        (["plate", "cell"], [4, 30], ""),
        (["Plate ", "CELL"], [4, 30], ""),
        (["cell", "dish"], [30, 4], "1 classes are matched to categories by their order"),
        (["a", "b"], [4, 30], "2 classes are matched .*; class 0 is a, category 4 is plate"),
        (["a", "cell", "b"], [None, 30, None], "2 classes have no category, .*; class 0 is a"),
        (
            ["a", "b", "c"],
            None,
            "no category has the name of a class; class 0 is a, categories are plate, ce",
        ),
    ],
)
def test_classes_have_the_category_of_their_name(
    tmp_path: Path,
    tools: None,
    caplog: pytest.LogCaptureFixture,
    names: list[str],
    expected: Any,
    warning: str,
) -> None:
    given = with_labels(tmp_path)
    given.yaml["names"] = names
    truth = truth_of(given)
    assert (None if truth is None else truth.category_ids) == expected
    assert re.search(warning, caplog.text) if warning else "WARNING" not in caplog.text


def test_a_category_without_objects_gives_way_to_one_of_its_name(tmp_path: Path, tools: None) -> None:
    given = with_labels(tmp_path)
    given.raw["annotations/instances_val2030"]["categories"].insert(0, {"id": 0, "name": "cell"})
    truth = truth_of(given)
    assert truth is not None and truth.category_ids == [30, 4]


def test_the_ids_of_coco_are_fixed() -> None:
    assert (len(COCO_IDS), COCO_IDS[0], COCO_IDS[11], COCO_IDS[-1]) == (80, 1, 13, 90)


def test_images_are_matched_by_name_or_else_by_id(
    tmp_path: Path, tools: None, caplog: pytest.LogCaptureFixture
) -> None:
    given = with_labels(tmp_path)
    entries = given.raw["annotations/instances_val2030"]["images"]
    for entry, name in zip(entries, ("images/val/000.png", "001", "002.jpg"), strict=True):
        entry["file_name"] = name
    truth = truth_of(given)
    assert truth is not None and list(truth.image_ids.values()) == [100, 101, 102]

    entries.pop()
    truth = truth_of(given)
    assert truth is not None and list(truth.image_ids.values()) == [100, 101]
    assert "does not list 1 of the 3 images; they are not scored, first: " in caplog.text

    for number, entry in enumerate(entries):
        entry |= {"file_name": f"COCO_{number}.jpg", "id": number}
    truth = truth_of(given)
    assert truth is not None and list(truth.image_ids.values()) == [0, 1]
    for entry in entries:
        entry["id"] += 50
    assert truth_of(given) is None
    assert "instances_val2030.json: none of its 2 images is among the 3 that are evaluated" in caplog.text


def test_what_is_missing_is_a_warning_and_an_error_if_it_was_asked_for(
    tmp_path: Path, tools: None, caplog: pytest.LogCaptureFixture
) -> None:
    given = with_labels(tmp_path)
    data, paths = read(given)
    assert load_truth(data, "test", paths) is None
    assert f"no COCO scores: {tmp_path}/annotations/instances_test*.json: no such file; give" in caplog.text
    (tmp_path / "annotations/instances_val_b.json").touch()
    assert load_truth(data, "val", paths) is None
    assert "instances_val2030.json, instances_val_b.json: choose one with --ann FILE" in caplog.text

    with pytest.raises(ConfigError, match=r"^--ann nowhere\.json: no such file$"):
        load_truth(data, "val", paths, file="nowhere.json")
    bad = tmp_path / "bad.json"
    bad.write_text('{"images": [], "annotations": [], "categories": [{"id": 1}]}')
    with pytest.raises(DataError, match=r"^--ann .*bad\.json: categories\[0\]\.name is missing$"):
        load_truth(data, "val", paths, file=str(bad))
    file = str(tmp_path / "annotations/instances_val2030.json")
    with pytest.raises(DataError, match=r"^--ann .*2030\.json: none of its 3 images is among the 1"):
        load_truth(data, "val", ["/elsewhere/x.jpg"], file=file)
    truth = load_truth(data, "val", paths, file=file)
    assert truth is not None and truth.required


def test_the_tools_have_to_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("pycocotools", "pycocotools.coco", "faster_coco_eval"):
        monkeypatch.setitem(sys.modules, name, None)
    given = CocoSet(tmp_path, count=1)
    assert truth_of(given) is None
    assert "--save-json: no COCO scores: pycocotools or faster-coco-eval is not installed: pip" in caplog.text
    with pytest.raises(ConfigError, match=r"--ann .*val\.json: pycocotools or faster-coco-eval is not"):
        truth_of(given, file=str(tmp_path / "val.json"))


def test_errors_of_the_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: str) -> None:
        raise AssertionError("Results do not correspond to current coco set")

    fake = types.ModuleType("faster_coco_eval")
    fake.__dict__.update(COCO=fail, COCOeval_faster=None)
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    monkeypatch.setitem(sys.modules, "faster_coco_eval", fake)
    given = CocoSet(tmp_path, count=1)
    given.write()
    for required in (False, True):
        truth = CocoTruth(tmp_path / "val.json", {"x.png": 100}, [4], required=required)
        outputs = EvalOutputs(OutputOptions(tmp_path, save_json=True, truth=truth), {0: "plate"})
        assert outputs.json is not None
        if not required:
            assert outputs.save_json("bbox") == [(0.0, 0.0)]
            assert "no detections, so the COCO scores" in caplog.text
        outputs.json.add(Path("x.png"), torch.tensor([[1.0, 1, 9, 9, 0.5, 0]]))
        if required:
            with pytest.raises(DataError, match="do not correspond"):
                outputs.save_json("bbox")
        else:
            assert outputs.save_json("bbox", "segm") == [None, None]
            assert "do not correspond" in caplog.text


PACKAGES = ("pycocotools", "faster_coco_eval")


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    pytest.importorskip(request.param)
    if request.param != PACKAGES[0]:
        monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    return str(request.param)


def score_by_hand(results: list[dict[str, Any]], file: Path, ids: list[int], kind: str) -> list[float]:
    """Return mAP50-95 and mAP50 as a user of the tools computes them."""
    coco_class, eval_class = check_tools()
    with redirect_stdout(io.StringIO()):
        truth = coco_class(str(file))
        scorer = eval_class(truth, truth.loadRes(results), kind)
        scorer.params.imgIds = ids
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    return [float(value) for value in scorer.stats[:2]]


def detections(given: CocoSet, seed: int) -> list[tuple[Path, torch.Tensor, list[dict[str, Any]]]]:
    """Draw detections of each image near its objects: rows (n, 6), and the RLE of their masks."""
    rng = np.random.default_rng(seed)
    (raw,) = (given.raw[split] for split in given.raw if "val" in split)
    made = []
    for number, path in enumerate(sorted(given.images("val").iterdir())):
        rows, masks = [], []
        for entry in raw["annotations"][2 * number : 2 * number + 2] * 3:
            x, y, w, h = np.array(entry["bbox"]) + rng.integers(-4, 5, 4)
            rows.append([x, y, x + w, y + h, rng.random(), rng.random() < 0.3])
            mask = np.zeros((60 + 4 * number, 80), bool)
            mask[max(y, 0) : y + h, max(x, 0) : x + w] = True
            masks.append(encode_rle(mask))
        made.append((path, torch.tensor(rows), masks))
    return made


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_scores_equal_those_of_the_tools(tmp_path: Path, package: str, kind: str, seed: int) -> None:
    given = with_labels(tmp_path)
    raw = given.raw["annotations/instances_val2030"]
    raw["annotations"][1]["iscrowd"] = 1
    raw["annotations"][1]["segmentation"] = encode_rle(np.tri(60, 80, dtype=bool))
    truth = truth_of(given)
    assert truth is not None
    found = detections(given, seed)[:2]  # the third image is not evaluated
    writer = JsonWriter(truth)
    for path, rows, masks in found:
        writer.add(path, rows, masks)
    writer.save(tmp_path / "p.json")

    by_hand = [
        {
            "image_id": 100 + number,
            "category_id": 4 if row[5] else 30,
            "bbox": [row[0], row[1], row[2] - row[0], row[3] - row[1]],
            "score": round(row[4], 5),
            "segmentation": mask,
        }
        for number, (_, rows, masks) in enumerate(found)
        for row, mask in zip(rows.tolist(), masks, strict=True)
    ]
    expected = score_by_hand(by_hand, truth.file, [100, 101], kind)
    assert coco_scores(tmp_path / "p.json", truth.file, writer.image_ids, kind) == pytest.approx(expected)
    assert 0.05 < expected[0] < expected[1]


def test_annotations_need_no_area_nor_ids(tmp_path: Path, package: str) -> None:
    given = with_labels(tmp_path)
    file = tmp_path / "annotations/instances_val2030.json"
    truth = truth_of(given)
    writer = JsonWriter(truth)
    for path, rows, masks in detections(given, 0):
        writer.add(path, rows, masks)
    writer.save(tmp_path / "p.json")
    expected = [coco_scores(tmp_path / "p.json", file, writer.image_ids, kind) for kind in ("bbox", "segm")]

    raw = given.raw["annotations/instances_val2030"]
    for number, entry in enumerate(raw["annotations"]):
        for key in ("area", "iscrowd", "id", "segmentation" if number % 2 else "bbox"):
            del entry[key]
    given.write()
    found = [coco_scores(tmp_path / "p.json", file, writer.image_ids, kind) for kind in ("bbox", "segm")]
    assert found == [pytest.approx(each) for each in expected]
    assert json.loads(file.read_text())["annotations"][0].keys() == {
        "image_id",
        "category_id",
        "segmentation",
    }


def test_a_single_class_is_scored_without_categories(tmp_path: Path, package: str) -> None:
    given = with_labels(tmp_path)
    truth = truth_of(given, single_cls=True)
    writer = JsonWriter(truth)
    for path, rows, _ in detections(given, 0):
        rows[:, 5] = 0
        writer.add(path, rows)
    writer.save(tmp_path / "p.json")
    assert truth is not None
    files = tmp_path / "p.json", truth.file, writer.image_ids
    assert coco_scores(*files, single_cls=True)[1] > 1.5 * coco_scores(*files)[1]


def scores_of(given: CocoSet, kinds: tuple[str, ...] = ("bbox", "segm")) -> list[tuple[float, float]]:
    """Return the scores of drawn detections against the annotations as they are now."""
    writer = JsonWriter(truth_of(given))
    for path, rows, masks in detections(given, 0):
        writer.add(path, rows, masks)
    folder = given.root / "annotations"
    writer.save(folder / "p.json")
    return [
        coco_scores(folder / "p.json", folder / "instances_val2030.json", writer.image_ids, kind)
        for kind in kinds
    ]


def test_annotations_that_are_not_valid_are_not_scored(
    tmp_path: Path, package: str, caplog: pytest.LogCaptureFixture
) -> None:
    given = with_labels(tmp_path)
    expected = scores_of(given)
    entries = given.raw["annotations/instances_val2030"]["annotations"]
    for box in ([math.nan, 1, 2, 2], [1, 1, math.inf, 2], [1, 1, -2, 2], [1, 2, 3], "text", None):
        entries.append({"image_id": 100, "category_id": 4, "bbox": box, "area": math.nan})
    entries.append({"bbox": [1, 1, 2, 2]})
    caplog.clear()

    assert scores_of(given) == [pytest.approx(each) for each in expected]
    for kind in ("bbox", "segm"):
        first = "first: annotations[6].bbox: contains values that are not positions in an image, such as NaN"
        assert f"2030.json: not scored ({kind}): 7 annotations, {first}" in caplog.text
    entries[0] |= {"area": math.nan, "iscrowd": math.nan}  # as pandas writes what is missing
    assert scores_of(given, ("bbox",)) == [pytest.approx(expected[0])]
    entries[0]["segmentation"] = "text"  # which boxes do not need
    assert scores_of(given, ("bbox",)) == [pytest.approx(expected[0])]


def test_ids_may_be_numbers_or_text(tmp_path: Path, package: str) -> None:
    given = with_labels(tmp_path)
    expected = scores_of(given)
    raw = given.raw["annotations/instances_val2030"]
    for number, entry in enumerate(raw["annotations"]):
        kind = (str, float)[number % 2]
        entry |= {key: kind(entry[key]) for key in ("image_id", "category_id")}
    assert scores_of(given) == [pytest.approx(each) for each in expected]

    raw["images"][0]["id"] = "100"
    raw["categories"][0]["id"] = str(raw["categories"][0]["id"])
    assert scores_of(given) == [pytest.approx(each) for each in expected]
    rows = json.loads((tmp_path / "annotations/p.json").read_text())
    assert {row["image_id"] for row in rows} == {"100", 101, 102}  # as other programs read the file


def test_where_nothing_can_be_scored_a_line_says_so(
    tmp_path: Path, package: str, caplog: pytest.LogCaptureFixture
) -> None:
    given = with_labels(tmp_path)
    raw = given.raw["annotations/instances_val2030"]
    for entry in raw["annotations"]:
        entry["iscrowd"] = 1
    message = r"2030\.json: nothing to score: no valid annotation in the 3 evaluated images, only 6 crowds$"
    with pytest.raises(DataError, match=message):
        scores_of(given)
    outputs = EvalOutputs(OutputOptions(tmp_path, save_json=True, truth=truth_of(given)), {0: "a", 1: "b"})
    assert outputs.json is not None
    outputs.json.add(given.images("val") / "000.png", torch.tensor([[1.0, 1, 9, 9, 0.5, 0]]))
    assert outputs.save_json("bbox") == [None]
    assert "no valid annotation in the 1 evaluated image, only 2 crowds" in caplog.text
    for entry in raw["annotations"]:
        entry["category_id"] = 99
    with pytest.raises(DataError, match="no valid annotation in the 3 evaluated images$"):
        scores_of(given)
