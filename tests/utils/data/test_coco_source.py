"""A data yaml with `annotations:` takes its labels from COCO annotations."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.utils.data.coco_files import NAMES, CocoSet
from utils.base.errors import ConfigError, DataError, MissingFileError
from utils.base.log import LOG
from utils.base.paths import relative_to_cwd
from utils.data import coco_scan
from utils.data.class_folders import load_split
from utils.data.convert import convert_coco, convert_data, convert_in_place
from utils.data.dataset import DetectionDataset
from utils.data.dataset_yaml import DataSpec, read_data_yaml
from utils.data.scan import LabelledFiles, load_labels
from utils.data.shards.pack import pack_dataset
from utils.tasks.segment.rasterize import MaskFormat


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(LOG, "propagate", True)
    caplog.set_level("INFO", logger=LOG.name)
    return caplog


def load(given: CocoSet, split: str = "train", boxes: bool = False) -> LabelledFiles:
    data = read_data_yaml(given.write())
    return load_labels(getattr(data, split), data.names, f"{split}: ", boxes=boxes)


def warnings(logged: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in logged.records if record.levelname == "WARNING")


def assert_equal(one: LabelledFiles, other: LabelledFiles) -> None:
    assert [path.name for path in one.images] == [path.name for path in other.images]
    assert one.sizes.tolist() == other.sizes.tolist()
    for a, b in zip(one.labels, other.labels, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)
    for a, b in zip(one.polygons, other.polygons, strict=True):
        assert len(a) == len(b)
        for points, others in zip(a, b, strict=True):
            np.testing.assert_allclose(points, others, atol=2e-6)


def test_labels_are_the_annotated_boxes_and_polygons(tmp_path: Path) -> None:
    given = CocoSet(tmp_path)
    for boxes in (True, False):
        files = load(given, boxes=boxes)
        assert len(files.images) == 6
        for number, (rows, size) in enumerate(zip(files.labels, files.sizes, strict=True)):
            assert size.tolist() == [80, 60 + 4 * number]
            pixels = rows[:, 1:] * np.tile(size, 2)
            found = np.concatenate((rows[:, :1], pixels[:, :2] - pixels[:, 2:] / 2, pixels[:, 2:]), 1)
            # The names are those of the categories in the order of their ids: plate, cell.
            expected = [[1, 8, 6, 24, 30], [0, 40 + number, 20, 20, 16]]
            np.testing.assert_allclose(found, expected, atol=0.02)
            assert [len(points) for points in files.polygons[number]] == ([] if boxes else [4, 4])


def test_a_box_counts_for_detection_where_the_polygon_differs(tmp_path: Path) -> None:
    given = CocoSet(tmp_path, count=1)
    given.raw["train"]["annotations"][0]["bbox"] = [0, 0, 40, 60]
    given.yaml["names"] = list(NAMES)
    data = read_data_yaml(given.write())

    detection = DetectionDataset(data.train, 80, names=data.names)
    masks = DetectionDataset(data.train, 80, names=data.names, masks=MaskFormat(1, False))
    assert detection.labels[0][0].tolist() == [0, 0.25, 0.5, 0.5, 1]
    np.testing.assert_allclose(masks.labels[0][0], [0, 0.25, 0.35, 0.3, 0.5], atol=1e-5)
    assert masks[0].masks is not None and int(masks[0].masks[0].sum()) == pytest.approx(24 * 30, abs=60)


def test_label_files_of_the_same_annotations_give_the_same_labels(tmp_path: Path) -> None:
    given = CocoSet(tmp_path)
    direct = load(given)
    data = read_data_yaml(given.write())
    convert_data(data)
    convert_data(data, tmp_path / "new")

    assert_equal(direct, load_labels([given.images("train")]))
    assert_equal(direct, load_labels(read_data_yaml(tmp_path / "new/data.yaml").train))
    packed = read_data_yaml(pack_dataset(data, tmp_path / "shards", seed=None))
    assert_equal(direct, load_labels(packed.train))


def test_one_file_may_hold_all_splits(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    given = CocoSet(tmp_path)
    expected = [load(given, split) for split in ("train", "val")]
    for entry in given.raw["val"]["images"] + given.raw["val"]["annotations"]:
        key = "image_id" if "image_id" in entry else "id"
        entry[key] += 1000
    for split, raw in given.raw.items():
        for entry in raw["images"]:
            entry["file_name"] = f"{split}/{entry['file_name']}"
    whole = given.raw["train"]
    whole["images"] += given.raw["val"]["images"]
    whole["annotations"] += given.raw["val"]["annotations"]
    given.raw = {"all": whole}
    given.yaml["annotations"] = "all.json"
    logged.clear()

    for split, files in zip(("train", "val"), expected, strict=True):
        assert_equal(load(given, split), files)
    assert not warnings(logged)  # images of the other split are not missing


def test_lists_may_be_relative_to_the_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: pytest.LogCaptureFixture
) -> None:
    given = CocoSet(tmp_path, count=2)
    whole = given.raw["train"]
    whole["images"] = [
        {
            "id": 2 * number + which,
            "file_name": f"{split}/{number:03d}.png",
            "width": 80,
            "height": 60 + 4 * number,
        }
        for number in range(2)
        for which, split in enumerate(("train", "val"))
    ]
    whole["annotations"] = [{"image_id": n, "category_id": 4, "bbox": [8, 6, 24, 30]} for n in range(4)]
    given.raw = {"all": whole}
    given.yaml |= {"annotations": "all.json", "nc": "2"}  # text that is the number of categories
    (tmp_path / "ImageSets").mkdir()
    for split in ("train", "val"):
        given.yaml[split] = f"ImageSets/{split}.txt"
        lines = [f"images/{split}/{number:03d}.png\n" for number in range(2)]
        (tmp_path / given.yaml[split]).write_text("".join(lines))
    data = read_data_yaml(given.write())
    for split in ("train", "val"):
        files = load_labels(getattr(data, split), data.names, root=data.root, boxes=True)
        assert files.labels.counts.tolist() == [1, 1]
    convert_data(data)
    assert len(list(tmp_path.glob("labels/*/*.txt"))) == 4
    assert not warnings(logged)


def test_ids_may_be_numbers_or_text(tmp_path: Path) -> None:
    given = CocoSet(tmp_path)
    expected = load(given)
    for number, entry in enumerate(given.raw["train"]["annotations"]):
        kind = (str, float)[number % 2]
        entry |= {key: kind(entry[key]) for key in ("image_id", "category_id")}
    given.raw["train"]["annotations"][0]["iscrowd"] = math.nan  # pandas writes what is missing
    given.raw["train"]["images"][1]["id"] = "101"
    given.raw["train"]["images"][2]["id"] = 102.0
    assert_equal(load(given), expected)
    convert_data(read_data_yaml(given.write()))
    assert_equal(load_labels([given.images("train")]), expected)

    given.raw["train"]["images"][1]["id"] = "100"
    with pytest.raises(DataError, match=r"images\[1\]\.id: 100 is the id of two images"):
        load(given)


def test_classes_are_matched_by_name(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    given = CocoSet(tmp_path, count=1)
    given.yaml["names"] = ["Cell", "rod", "plate"]  # the ids of the annotations are 30 and 4
    given.raw["train"]["categories"].append({"id": 1, "name": "things"})  # the parent of all, without objects
    files = load(given)

    assert files.labels[0][:, 0].tolist() == [0, 2]
    assert "train.json: has no category for 1 of the names: rod" in warnings(logged)
    given.yaml["names"] = ["Cell", "rod"]
    with pytest.raises(DataError, match=r"train\.json: annotations\[1\]\.category_id: 4 is 'plate'"):
        load(given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": 5}, "annotations: expected a JSON file, or one for each split, found 5"),
        ({"annotations": {}}, "annotations: expected a JSON file, or one for each split"),
        ({"annotations": {"valid": "a.json"}}, "annotations: valid: is no split; expected train, val, test"),
        ({"annotations": {"val": "a.txt"}}, "annotations: val: expected a JSON file, found 'a.txt'"),
        ({"annotations": "nowhere.json"}, "nowhere.json: no such file, and 'names:' is missing"),
        ({"nc": 3}, "nc: 3, but .*train.json has 2 categories; correct one of them"),
        ({"nc": "3"}, "nc: 3, but .*train.json has 2 categories"),
        ({"nc": "two"}, "nc: 'two' is not a number; expected nc: 2, as .*train.json has 2 categories"),
        ({"train": "x-{0..1}.tar"}, "annotations: train: shards contain their labels; leave train.json out"),
    ],
)
def test_errors_of_the_yaml_name_the_key(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    given = CocoSet(tmp_path, count=1)
    given.yaml |= change
    with pytest.raises(ConfigError, match=rf"data\.yaml: .*{message}"):
        read_data_yaml(given.write())


def test_a_missing_file_is_an_error_only_where_it_is_used(tmp_path: Path) -> None:
    given = CocoSet(tmp_path, count=1)
    del given.raw["train"]
    given.yaml["names"] = list(NAMES)
    assert len(load(given, "val").images) == 1
    with pytest.raises(MissingFileError, match=r"^annotations: .*train\.json: no such file$"):
        load(given)


def test_bad_annotations_are_skipped_with_a_line_each(
    tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    given = CocoSet(tmp_path)
    entries = given.raw["train"]["annotations"]
    entries[0]["bbox"] = entries[2]["bbox"] = [1, 2, -3, 4]
    entries[3]["bbox"] = ["a", 1, 2, 3]
    entries[4]["iscrowd"] = 1
    entries[6]["image_id"] = 7
    entries[8]["bbox"] = [500, 500, 10, 10]
    given.raw["train"]["images"][5]["width"] = 160
    for _ in range(2):  # the second run reads the cache
        logged.clear()
        files = load(given, boxes=True)
        assert [path.stem for path in files.images] == ["000", "002", "003", "004", "005"]
        assert files.labels.counts.tolist() == [1, 1, 1, 1, 2]
        assert warnings(logged).replace(f"{tmp_path}/", "").splitlines() == [
            "train: train.json: left out: 1 crowd (iscrowd: 1), first: annotations[4]",
            "train: train.json: left out: 1 annotation of an image that is not listed, first: "
            "annotations[6].image_id: 7",
            "train: train.json: left out: 1 annotation without any area inside the image, first: "
            "annotations[8]",
            "train: train.json: annotations[0].bbox: width -3 and height 4 may not be negative; "
            "the annotation is skipped",
            "train: train.json: annotations[2].bbox: width -3 and height 4 may not be negative; "
            "the annotation is skipped",
            "train: train.json: annotations[3].bbox: expected numbers, found ['a', 1, 2, 3]; "
            "the annotation is skipped",
            "train: images/train/001.png: no valid annotation is left; the image is skipped",
            "train: images/train/005.png: 80x80 pixels, but train.json lists 160x80: labels may not fit",
            "train: 1 image and 3 annotations are skipped in total",
        ]


def test_images_that_are_not_listed_or_do_not_exist(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    given = CocoSet(tmp_path)
    del given.raw["train"]["images"][1]
    (given.images("train") / "004.png").unlink()
    (given.images("train") / "005.png").write_bytes(b"junk")
    files = load(given)

    assert [path.stem for path in files.images] == ["000", "002", "003"]
    text = warnings(logged)
    assert f"1 of 5 listed images are not in {given.images('train')}: 004.png" in text
    assert f"does not list 1 image of {given.images('train')}; left out, first: " in text
    assert "005.png: skipped, not an image" in text

    given.raw["train"]["images"] = [{"id": 1, "file_name": "x.png", "width": 9, "height": 9}]
    with pytest.raises(DataError, match=r"train\.json: none of its 1 images is among .*'x.png'"):
        load(given)


def test_images_without_annotations_are_backgrounds(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    given = CocoSet(tmp_path)
    given.raw["train"]["annotations"] = []
    data = read_data_yaml(given.write())
    assert load(given).labels.counts.tolist() == [0] * 6
    assert "6 backgrounds" in logged.text
    with pytest.raises(DataError, match=r"train\.json: no labels found \(no object is annotated\); there is"):
        DetectionDataset(data.train, 64, augment=True, hyp={})


def test_the_cache_follows_the_annotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = CocoSet(tmp_path)
    read: list[Path] = []
    original = coco_scan.read_coco

    def watched(file: Path, **options: Any) -> Any:
        read.append(file)
        return original(file, **options)

    monkeypatch.setattr(coco_scan, "read_coco", watched)
    first = load(given)
    os.utime(tmp_path / "train.json", ns=(0, 10**18))
    second = load(given)  # written again with the same content
    assert len(read) == 1 and second.content == first.content
    assert not list(tmp_path.rglob("labels"))

    (tmp_path / "labels/train").mkdir(parents=True)  # label files do not count
    (tmp_path / "labels/train/000.txt").write_text("0 0.5 0.5 1 1\n")
    assert_equal(load(given), first)
    assert len(read) == 1
    load(given, boxes=True)
    assert len(read) == 2
    del given.raw["train"]["annotations"][0]
    changed = load(given)
    assert len(read) == 3 and changed.content != first.content and len(changed.labels[0]) == 1
    given.yaml["names"] = list(NAMES)
    assert load(given).labels[1][:, 0].tolist() == [0, 1]


def test_a_list_of_images_takes_its_part(tmp_path: Path) -> None:
    given = CocoSet(tmp_path)
    (tmp_path / "some.txt").write_text("./images/train/003.png\n./images/train/001.png\n")
    given.yaml["train"] = "some.txt"
    assert [path.stem for path in load(given).images] == ["001", "003"]


def test_a_classifier_takes_the_first_object(tmp_path: Path) -> None:
    given = CocoSet(tmp_path, count=2)
    del given.raw["train"]["annotations"][0]
    files = load_split(spec(given), "train", {0: "plate", 1: "cell"})
    assert files.labels.joined()[:, 0].tolist() == [0, 1]


def spec(given: CocoSet) -> DataSpec:
    return read_data_yaml(given.write())


def test_conversion_in_place_keeps_what_exists(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    given = CocoSet(tmp_path, count=2)
    extra = given.images("train") / "extra.png"
    extra.write_bytes((given.images("train") / "000.png").read_bytes())
    linked = given.images("train") / "001.png"
    elsewhere = linked.rename(tmp_path / "elsewhere.png")
    linked.symlink_to(elsewhere)
    convert_data(spec(given), boxes=True)

    labels = tmp_path / "labels"
    assert sorted(str(path.relative_to(labels)) for path in labels.rglob("*.txt")) == [
        "train/000.txt", "train/001.txt", "val/000.txt", "val/001.txt",
    ]  # fmt: skip
    assert (labels / "train/000.txt").read_text().splitlines()[0] == "1 0.250000 0.350000 0.300000 0.500000"
    assert linked.is_symlink()
    assert "without a label file: 1 image; training takes such images for backgrounds" in warnings(logged)
    with pytest.raises(ConfigError, match=r"000\.txt: exists already; .*--exist-ok"):
        convert_data(spec(given))
    given.raw["train"]["annotations"][0]["bbox"] = "no"
    given.write()
    with pytest.raises(DataError, match=r"train\.json: annotations\[0\]\.bbox: 'no' is not accepted"):
        convert_in_place(tmp_path / "train.json", given.images("train"), boxes=True, exist_ok=True)
    convert_in_place(tmp_path / "val.json", given.images("val"), exist_ok=True)
    assert len((labels / "val/000.txt").read_text().splitlines()[0].split()) == 9


def test_lines_that_training_refuses_are_not_written(
    tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    given = CocoSet(tmp_path, count=2, splits=("train", "val"))
    entries = given.raw["train"]["annotations"]
    entries[0] |= {"segmentation": None, "bbox": [8, 6, 1e-5, 30]}
    entries[2]["segmentation"] = entries[3]["segmentation"] = [[8, 6, 18, 16, 28, 26]]  # on one line
    convert_data(spec(given))

    text = warnings(logged)
    assert "train.json: left out: 3 annotations, first: annotations[0]: the box has no width" in text
    assert "train.json: without a valid annotation: 1 image; training takes such images for back" in text
    logged.clear()
    assert load_labels([given.images("train")]).labels.counts.tolist() == [1, 0]
    assert not warnings(logged)


def test_the_yaml_is_not_replaced(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    given = CocoSet(tmp_path, count=1)
    yaml = given.write()
    yaml.write_text(f"{yaml.read_text()}  # mine")
    before = yaml.read_text()
    with pytest.raises(
        ConfigError, match=r"data\.yaml: exists already; leave --output out to write .*--exist-ok"
    ):
        convert_data(read_data_yaml(yaml), tmp_path)
    assert not (tmp_path / "labels").exists()
    convert_data(read_data_yaml(yaml))
    assert yaml.read_text() == before
    assert (
        f"remove annotations: from {relative_to_cwd(yaml)}, and add names: ['plate', 'cell']" in logged.text
    )

    convert_data(read_data_yaml(yaml), tmp_path, exist_ok=True)
    data = read_data_yaml(yaml)
    assert data.train == [given.images("train")] and data.names == {0: "plate", 1: "cell"}
    given.write()
    with pytest.raises(ConfigError, match=r"data\.yaml: annotations: label files would not be used; choose"):
        convert_coco(tmp_path / "train.json", given.images("train"), tmp_path, exist_ok=True)


def test_a_yaml_without_annotations_is_not_converted(tmp_path: Path) -> None:
    given = CocoSet(tmp_path, count=1)
    given.yaml |= {"annotations": None, "names": list(NAMES)}
    with pytest.raises(ConfigError, match=r"data\.yaml: has no annotations: of COCO"):
        convert_data(spec(given))


def test_names_of_images_may_be_written_on_windows(tmp_path: Path) -> None:
    given = CocoSet(tmp_path, count=1)
    given.raw["train"]["images"][0]["file_name"] = "images\\train\\000.png"
    assert len(load(given).images) == 1
    assert json.loads((tmp_path / "train.json").read_text())["images"][0]["file_name"].count("\\") == 2
