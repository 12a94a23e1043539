"""COCO results files of any framework, measured as val.py measures models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import compare
import val
from studies.compare.prediction_files import load_truth, measure_predictions, read_predictions
from studies.compare.records import read_records
from tests.known import SHARED, needs_shared
from tests.utils.train.small import small_set
from utils.base.errors import ConfigError, DataError, MissingFileError
from utils.data.dataset_yaml import read_data_yaml
from utils.data.scan import load_labels
from utils.ops.boxes import xywhn2xyxy
from utils.val.measure import measure
from utils.val.val_options import options_from

Rows = list[dict[str, Any]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return small_set(tmp_path / "a folder ü")


def perfect(data: Path, categories: int = 0) -> Rows:
    """Every label of val, found exactly; the ids of categories are class numbers plus `categories`."""
    spec = read_data_yaml(data)
    files = load_labels(spec.val, root=spec.root)
    rows: Rows = []
    for path, labels, (width, height) in zip(files.images, files.labels, files.sizes, strict=True):
        for cls, *box in labels.tolist():
            x1, y1, x2, y2 = xywhn2xyxy(np.array([box]), width, height)[0].tolist()
            row = {"image_id": path.stem, "category_id": int(cls) + categories, "score": 0.9}
            rows.append(row | {"bbox": [x1, y1, x2 - x1, y2 - y1]})
    return rows


def measured(data: Path, file: Path, **options: Any) -> Any:
    chosen = options_from({"data": str(data), "workers": 0, **options})
    truth = load_truth(read_data_yaml(data), chosen)
    return measure_predictions(read_predictions(file, truth), truth, chosen)


def test_perfect_detections_have_the_highest_map(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps(perfect(data)))
    assert measured(data, file).map == pytest.approx(0.995, abs=0.001)
    file.write_text(json.dumps([row | {"bbox": [0, 0, 1, 1]} for row in perfect(data)]))
    assert measured(data, file).map == 0
    file.write_text("[]")
    assert measured(data, file).map == 0


def test_ids_of_annotations_are_used(data: Path, tmp_path: Path) -> None:
    """Images and categories numbered from 100, as in the file that --ann names."""
    rows, spec = perfect(data, categories=100), read_data_yaml(data)
    stems = sorted({row["image_id"] for row in rows})
    images = [{"id": 100 + stems.index(stem), "file_name": f"{stem}.png"} for stem in stems]
    categories = [{"id": 100 + cls, "name": name} for cls, name in spec.names.items()]
    ann, file = tmp_path / "ann.json", tmp_path / "p.json"
    ann.write_text(json.dumps({"images": images, "categories": categories, "annotations": []}))
    file.write_text(json.dumps([row | {"image_id": 100 + stems.index(row["image_id"])} for row in rows]))
    assert measured(data, file, ann=str(ann)).map == pytest.approx(0.995, abs=0.001)
    with pytest.raises(DataError, match=r"category_id is 10\d, but the categories of the images are 0"):
        measured(data, file)


def test_a_single_class_ignores_categories(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps([row | {"category_id": 7} for row in perfect(data)]))
    chosen = options_from({"data": str(data), "workers": 0, "single_cls": True})
    truth = load_truth(read_data_yaml(data), chosen)
    result = measure_predictions(read_predictions(file, truth), truth, chosen)
    assert result.map == pytest.approx(0.995, abs=0.001) and result.names == {0: "item"}


def test_a_planted_difference_is_found(data: Path, tmp_path: Path) -> None:
    """The second model misses all objects of class 0."""
    rows = perfect(data)
    present = {row["category_id"] for row in rows}
    (tmp_path / "all.json").write_text(json.dumps(rows))
    (tmp_path / "some.json").write_text(json.dumps([row for row in rows if row["category_id"]]))
    files = [str(tmp_path / name) for name in ("all.json", "some.json")]
    output = ["--project", str(tmp_path / "out"), "--resamples", "100", "--device", "cpu"]
    compare.main(["--predictions", *files, "--data", str(data), *output])
    text = (tmp_path / "out" / "exp" / "report.md").read_text()
    assert "| some | " in text and "What errors cost" in text
    name = read_data_yaml(data).names[0]
    row = next(line for line in text.splitlines() if line.startswith("| some | 0.000"))
    assert name in text and "(-99.5" in row
    found = read_records(tmp_path / "out" / "exp")
    assert found.classes == [name for cls, name in read_data_yaml(data).names.items() if cls in present]
    assert list((tmp_path / "out" / "exp" / "examples").glob("*.jpg"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("{}", "expected a list of detections, found a dict"),
        ("[1]", r"\[0\]: expected an object, found 1"),
        ('[{"image_id": 1}]', r"\[0\]: category_id is missing"),
        ('[{"image_id": 1, "category_id": 0, "bbox": [1, 2, 3], "score": 1}]', r"\[0\].bbox: expected left"),
        ('[{"image_id": 1, "category_id": 0, "bbox": [1, 2, 3, NaN], "score": 1}]', r"\[0\].bbox: expected"),
        ('[{"image_id": 1, "category_id": 0, "bbox": [1, 2, 3, 4], "score": "1"}]', r"\[0\].score: expected"),
        ('[{"image_id": [1], "category_id": 0, "bbox": [1, 2, 3, 4], "score": 1}]', r"\[0\].*image_id"),
        ('[{"image_id": "no", "category_id": 0, "bbox": [1, 2, 3, 4], "score": 1}]', "no detection is in an"),
    ],
)
def test_files_that_are_no_results_are_refused(
    data: Path, tmp_path: Path, content: str, message: str
) -> None:
    file = tmp_path / "p.json"
    file.write_text(content)
    with pytest.raises(DataError, match=message):
        measured(data, file)


def test_missing_files_and_other_flags_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="--predictions .*no.json: no such file"):
        measured(data, tmp_path / "no.json")
    with pytest.raises(ConfigError, match="--predictions: are compared with each other only"):
        compare.main(["--predictions", "a.json", "--weights", "a.pt"])
    with pytest.raises(ConfigError, match="--ann"):
        (tmp_path / "p.json").write_text("[]")
        measured(data, tmp_path / "p.json", ann=str(tmp_path / "no.json"))


@needs_shared
def test_the_results_file_of_val_has_the_map_of_val(tmp_path: Path) -> None:
    """But for its rounding: boxes have 3 decimals, scores 5."""
    keywords = {"weights": str(SHARED / "weights" / "bccd_yolov5n.pt"), "imgsz": 160, "workers": 0}
    content = {"path": str(SHARED / "data" / "bccd"), "train": "images/test", "val": "images/test"}
    data = tmp_path / "data.yaml"
    data.write_text(yaml.safe_dump(content | {"names": ["Platelets", "RBC", "WBC"]}))
    val.run(**keywords, data=str(data), save_json=True, project=str(tmp_path), device="cpu")
    (file,) = tmp_path.glob("exp/*_predictions.json")
    expected = measure(options_from({**keywords, "data": str(data), "device": "cpu"}))
    found = measured(data, file)
    assert found.metrics == pytest.approx(expected.metrics, abs=5e-4)
