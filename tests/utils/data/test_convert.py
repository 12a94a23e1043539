"""Annotations of COCO become a dataset of YOLO: the same objects, and nothing outside of the folder."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from utils.base.errors import ConfigError, DataError, MissingFileError
from utils.base.log import LOG
from utils.base.seeds import generator
from utils.data import __main__ as commands
from utils.data.convert import convert_coco
from utils.data.dataset import DetectionDataset
from utils.data.dataset_yaml import read_data_yaml
from utils.data.shapes import draw_objects, save_jpeg
from utils.tasks.segment.polygons import encode_rle
from utils.tasks.segment.rasterize import MaskFormat

SIZE = 160
SQUARE = [20, 20, 60, 20, 60, 60, 20, 60]


def rle(mask: np.ndarray) -> dict[str, Any]:
    return encode_rle(mask)


def rle_of_numbers(mask: np.ndarray) -> dict[str, Any]:
    pixels = np.concatenate(([False], mask.ravel(order="F")))
    changes = np.flatnonzero(pixels[1:] != pixels[:-1])
    runs = np.diff(np.concatenate(([0], changes, [mask.size])))
    return {"size": list(mask.shape), "counts": runs.tolist()}


def polygons(mask: np.ndarray) -> list[list[float]]:
    found = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    return [points.ravel().astype(float).tolist() for points in found if len(points) > 2]


class Given:
    """Annotations and images in a folder, which a test may change before they are written and converted."""

    def __init__(self, folder: Path, names: tuple[str, ...] = ("a.png",), size: int = SIZE) -> None:
        self.folder = folder
        self.file, self.images, self.output = folder / "instances.json", folder / "photos", folder / "set"
        self.raw: Any = {
            "images": [
                {"id": number, "file_name": name, "height": size, "width": size}
                for number, name in enumerate(names, 1)
            ],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [20, 20, 40, 40]}],
            "categories": [{"id": 7, "name": "cell"}, {"id": 3, "name": "größe"}],
        }
        for name in names:
            path = self.images / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".png", np.zeros((size, size, 3), np.uint8))[1].tobytes())

    def convert(self, **options: Any) -> Path:
        self.file.write_text(json.dumps(self.raw), encoding="utf-8")
        return convert_coco(self.file, self.images, self.output, **options)

    def labels(self, name: str = "a", split: str = "train") -> str:
        return (self.output / "labels" / split / f"{name}.txt").read_text(encoding="utf-8")


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given(tmp_path)


@pytest.mark.parametrize("encode", [rle, rle_of_numbers, polygons])
def test_masks_survive_conversion(tmp_path: Path, encode: Any) -> None:
    """Holes are in the run lengths only; polygons of COCO have none."""
    given = Given(tmp_path, tuple(f"{number}.jpg" for number in range(12)))
    given.raw["categories"] = [{"id": 10 + kind, "name": str(kind)} for kind in range(5)]
    given.raw["annotations"] = []
    drawn: list[list[np.ndarray]] = []
    for number in range(12):
        image, rows, masks = draw_objects(generator(3, number), SIZE, SIZE)
        save_jpeg(given.images / f"{number}.jpg", image)
        for row, mask in zip(rows, masks, strict=True):
            kind = {"image_id": number + 1, "category_id": 10 + int(row[0]), "iscrowd": 0}
            given.raw["annotations"].append({**kind, "segmentation": encode(mask)})
        drawn.append([_without_holes(mask) if encode is polygons else mask for mask in masks])
    given.convert()

    data = DetectionDataset([given.output / "images/train"], SIZE, masks=MaskFormat(1, False))
    assert len(data) == 12
    for item in (data[index] for index in range(12)):
        expected = drawn[int(Path(item.path).stem)]
        assert item.masks is not None
        read = item.masks.numpy().astype(bool)
        assert len(read) == len(item.labels) == len(expected)
        for mask, again, (x, y, w, h) in zip(expected, read, item.labels[:, 2:].tolist(), strict=True):
            assert (mask & again).sum() / (mask | again).sum() > 0.95
            rows, columns = np.nonzero(mask)
            box = np.array((x - w / 2, y - h / 2, x + w / 2, y + h / 2)) * SIZE
            tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert box.tolist() == pytest.approx(tight, abs=1.1)


def _without_holes(mask: np.ndarray) -> np.ndarray:
    found = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0]
    solid = np.zeros(mask.shape, np.uint8)
    for points in found:
        cv2.fillPoly(solid, [points], 1)
    return solid.astype(bool)


def test_the_result_is_a_dataset(tmp_path: Path) -> None:
    given = Given(tmp_path, ("sub folder/ä 1.png", "images/b.png"))
    given.raw["annotations"] += [
        {"image_id": 1, "category_id": 3, "bbox": [0, 0, 9, 9], "segmentation": [SQUARE]}
    ]
    given.convert()
    other = Given(tmp_path, ("c.png",))
    path = other.convert(split="val")

    data = read_data_yaml(path)
    assert path == given.output / "data.yaml"
    assert data.names == {0: "größe", 1: "cell"}  # in the order of their ids
    assert (data.train, data.val) == ([given.output / "images/train"], [given.output / "images/val"])
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["path"] == "."  # the folder may be moved
    assert given.labels("sub folder/ä 1").splitlines()[0] == "1 0.250000 0.250000 0.250000 0.250000"
    assert given.labels("sub folder/ä 1").splitlines()[1].split()[:3] == ["0", "0.125001", "0.125001"]
    assert given.labels("b") == ""  # an image without objects
    train = DetectionDataset(data.train, SIZE, names=data.names)
    assert train.labels.counts.tolist() == [0, 2]
    source = given.images / "images/b.png"
    assert (given.output / "images/train/b.png").read_bytes() == source.read_bytes()


def test_boxes_on_request_and_where_there_is_no_polygon(given: Given) -> None:
    triangle = {"image_id": 1, "category_id": 3, "segmentation": [[40, 40, 80, 40, 80, 120]]}
    given.raw["annotations"] = [
        {**triangle, "bbox": [0, 0, 16, 32]},
        triangle,
        {"image_id": 1, "category_id": 7, "segmentation": [], "bbox": [-16, 80, 32, 160]},
        {"image_id": 1, "category_id": 7, "segmentation": [[]], "bbox": [0, 0, 160, 160]},
    ]
    given.convert(boxes=True)
    assert given.labels().splitlines() == [
        "0 0.050000 0.100000 0.100000 0.200000",
        "0 0.375000 0.500000 0.250000 0.500000",
        "1 0.050000 0.750000 0.100000 0.500000",
        "1 0.500000 0.500000 1.000000 1.000000",
    ]
    given.convert(exist_ok=True)
    assert [len(line.split()) for line in given.labels().splitlines()] == [7, 7, 5, 5]


def masks_of(given: Given) -> np.ndarray:
    given.convert()
    data = DetectionDataset([given.output / "images/train"], SIZE, masks=MaskFormat(1, False))
    masks = data[0].masks
    assert masks is not None
    return masks.numpy().astype(bool)


@pytest.mark.parametrize(
    "parts",
    [
        [SQUARE, [100, 100, 140, 100, 140, 140, 100, 140]],
        [SQUARE, [40, 20, 90, 20, 90, 60, 40, 60]],  # they overlap
        [SQUARE, [30, 30, 50, 30, 50, 50, 30, 50]],  # one in the other is no hole in COCO
        [SQUARE, SQUARE],
        [SQUARE, [200, 200, 240, 200, 240, 240]],  # the second is not in the image
        [[-80, 100, 80, 20, 80, 180]],  # cut at the border, not pushed to it
    ],
)
def test_several_polygons_are_one_object(given: Given, parts: list[list[float]]) -> None:
    given.raw["annotations"] = [{"image_id": 1, "category_id": 7, "segmentation": parts}]
    whole = np.zeros((SIZE, SIZE), np.uint8)
    for part in parts:
        cv2.fillPoly(whole, [np.array(part, np.int32).reshape(-1, 2)], 1)
    masks = masks_of(given)

    assert len(masks) == 1
    missing, extra = whole.astype(bool) & ~masks[0], masks[0] & ~whole.astype(bool)
    assert missing.sum() <= 0.01 * whole.sum()
    assert extra.sum() <= 60


def test_what_cannot_be_used_is_left_out_and_counted(
    given: Given, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(LOG, "propagate", True)
    caplog.set_level("INFO", logger=LOG.name)
    crowd = {"size": [SIZE, SIZE], "counts": "not even valid"}
    given.raw["annotations"] += [
        {"image_id": 1, "category_id": 7, "iscrowd": 1, "segmentation": crowd},
        {"image_id": 99, "category_id": 7, "bbox": [1, 1, 2, 2]},
        {"image_id": "a", "category_id": 7, "bbox": [1, 1, 2, 2]},
        {"image_id": 1, "category_id": 0, "bbox": [1, 1, 2, 2]},
        {"image_id": 1, "category_id": 7, "bbox": [300, 300, 2, 2]},
        {"image_id": 1, "category_id": 7, "bbox": [30, 30, 0, 2]},
        {"image_id": 1, "category_id": 7, "segmentation": [[300, 300, 310, 300, 310, 310]]},
        {"image_id": 1, "category_id": 7, "segmentation": encode_rle(np.zeros((SIZE, SIZE), bool))},
    ]
    given.convert()

    assert len(given.labels().splitlines()) == 1
    text = "\n".join(caplog.messages)
    assert "left out: 1 crowd (iscrowd: 1), first: annotations[1]" in text
    assert (
        "left out: 2 annotations of an image that is not listed, first: annotations[2].image_id: 99" in text
    )
    assert "left out: 1 annotation of a category that is not listed, first" in text
    assert "left out: 4 annotations without any area inside the image, first: annotations[5]" in text
    assert "0 polygons and 1 boxes of 2 classes" in text
    assert "has no val: yet" in text


def test_an_image_of_another_size_is_reported(
    given: Given, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(LOG, "propagate", True)
    given.raw["images"][0]["width"] = 320
    given.convert()

    assert "first: a.png has 160x160, listed are 320x160" in caplog.text


def change(raw: Any, key: str, value: Any) -> None:
    """Set a key such as `images.0.width`; None removes it. Some names are those of annotations[0]."""
    path = f"annotations.0.{key}" if key in ("segmentation", "bbox", "image_id") else key
    *folders, last = [int(word) if word.isdecimal() else word for word in path.split(".")]
    for word in folders:
        raw = raw[word]
    if value is None:
        del raw[last]
    else:
        raw[last] = value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("images", None, "'images' is missing"),
        ("annotations", None, "'annotations' is missing"),
        ("categories", None, "'categories' is missing"),
        ("images", {}, "images: expected a list"),
        ("images", [], "images: is empty"),
        ("categories", [], "categories: is empty"),
        ("annotations", [1], "annotations: expected a list of objects"),
        ("images.0.width", None, r"images\[0\].width is missing"),
        ("images.0.height", 0, r"images\[0\].height: 0 is not a number of pixels"),
        ("images.0.height", math.nan, r"images\[0\].height: nan is not"),
        ("images.0.height", 2**40, r"images\[0\].height: \d+ is not"),
        ("images.0.height", "160", r"images\[0\].height: '160' is not accepted"),
        ("images.0.file_name", None, r"images\[0\].file_name is missing"),
        ("images.0.file_name", "a.txt", r"images\[0\].file_name: 'a.txt' is not the name of an image"),
        ("images.0.file_name", "a\0.png", r"images\[0\].file_name: .* is not the name of an image"),
        ("images.0.file_name", "b.png", r"1 of 1 images are not in .*photos, first: b.png"),
        ("categories.1.id", 7, r"categories\[1\].id: 7 is the id of two"),
        ("image_id", None, r"annotations\[0\].image_id is missing"),
        ("bbox", None, r"annotations\[0\].bbox is missing"),
        ("bbox", [1, 2, 3], r"annotations\[0\].bbox: expected 4 numbers"),
        ("bbox", [1, 2, -3, 4], r"annotations\[0\].bbox: width -3"),
        ("bbox", [1, 2, math.nan, 4], r"annotations\[0\].bbox: .*NaN"),
        ("bbox", [1, 2, math.inf, 4], r"annotations\[0\].bbox: .*NaN"),
        ("segmentation", "text", r"annotations\[0\].segmentation: expected a list of"),
        ("segmentation", 5, r"annotations\[0\].segmentation: expected a list of"),
        ("segmentation", [SQUARE, [1, 1, 2, 2]], r"segmentation\[1\]: 2 points"),
        ("segmentation", [[1, 2, 3, 4, 5, 6, 7]], r"segmentation\[0\]: expected pairs"),
        ("segmentation", [1, 2, 3, 4, 5, 6], r"segmentation\[0\]: expected pairs"),
        ("segmentation", [[1, 2, 3, 4, 5, math.nan]], r"segmentation\[0\]: .*NaN"),
        ("segmentation", [[1, 2, 3, 4, 5, "x"]], r"segmentation\[0\]: expected numbers"),
        ("segmentation", [[[1, 2], [3, 4], [5, 6], [1, 1]]], "positions in an image"),
        ("segmentation", {"counts": [25600]}, r"segmentation.size is missing"),
        ("segmentation", {"size": [160, 9], "counts": "0"}, r"segmentation.size: \[160, 9\]"),
        ("segmentation", {"size": [160, 160]}, r"segmentation.counts is missing"),
        ("segmentation", {"size": [160, 160], "counts": "0"}, "segmentation.counts: counts of 0"),
        ("segmentation", {"size": [160, 160], "counts": "o" * 99}, "segmentation.counts: a count"),
        ("segmentation", {"size": [160, 160], "counts": ["a"]}, "segmentation.counts: "),
        ("segmentation", {"size": [160, 160], "counts": [2**70]}, "segmentation.counts: "),
    ],
)
def test_errors_name_file_and_key(given: Given, key: str, value: Any, message: str) -> None:
    change(given.raw, key, value)
    with pytest.raises(DataError, match=rf"instances\.json: .*{message}") as caught:
        given.convert()

    assert "\n" not in str(caught.value)
    assert not given.output.exists()


@pytest.mark.parametrize(
    "name", ["../a.png", "x/../../a.png", "/tmp/a.png", "..\\a.png", "C:\\a.png", "C:a.png", "\\a.png"]
)
def test_names_that_lead_out_of_the_folder_are_refused(given: Given, name: str) -> None:
    given.raw["images"][0]["file_name"] = name
    with pytest.raises(DataError, match=r"images\[0\].file_name: .* is absolute or contains '..'"):
        given.convert()

    assert not given.output.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '"images"', "[" * 100_000, b"\xff\xfe\x00"])
def test_a_file_that_is_no_json_is_an_error(given: Given, text: str | bytes) -> None:
    given.file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=r"instances\.json: (not JSON|expected images)"):
        convert_coco(given.file, given.images, given.output)


def test_missing_files_and_folders_are_errors(given: Given) -> None:
    with pytest.raises(MissingFileError, match="nowhere.json: no such file"):
        convert_coco(given.folder / "nowhere.json", given.images, given.output)
    with pytest.raises(MissingFileError, match="--images .*nowhere: no such folder"):
        convert_coco(given.file, given.folder / "nowhere", given.output)
    given.output.write_text("a file")
    with pytest.raises(DataError, match="set"):
        given.convert()


def test_two_images_with_one_label_file_are_an_error(tmp_path: Path) -> None:
    given = Given(tmp_path, ("a.png", "a.jpg"))
    with pytest.raises(DataError, match=r"images: a\.png and a\.jpg have the same label file"):
        given.convert()


def test_files_are_replaced_only_on_request(given: Given) -> None:
    given.convert()
    before = given.labels()
    given.raw["annotations"] = []
    with pytest.raises(ConfigError, match=r"a\.txt: exists already; .*--exist-ok"):
        given.convert()
    assert given.labels() == before != ""

    given.convert(exist_ok=True)
    assert given.labels() == ""


def test_links_are_made_on_request_and_never_written_through(given: Given) -> None:
    given.convert(link=True)
    image = given.output / "images/train/a.png"
    assert image.is_symlink() and image.samefile(given.images / "a.png")

    content = (given.images / "a.png").read_bytes()
    labels = given.output / "labels/train/a.txt"
    labels.unlink()
    (given.folder / "mine.txt").write_text("keep")
    labels.symlink_to(given.folder / "mine.txt")
    given.convert(exist_ok=True)
    assert not image.is_symlink() and image.read_bytes() == content
    assert (given.images / "a.png").read_bytes() == content
    assert (given.folder / "mine.txt").read_text() == "keep" and given.labels() != ""


def test_images_may_be_in_their_place_already(given: Given) -> None:
    given.images = given.output / "images/train"
    given.images.mkdir(parents=True)
    image = (given.folder / "photos/a.png").rename(given.images / "a.png")
    given.convert()
    assert image.is_file() and not image.is_symlink() and given.labels() != ""


def test_a_second_split_needs_the_same_categories(given: Given) -> None:
    given.convert()
    given.raw["categories"][0]["name"] = "other"
    with pytest.raises(ConfigError, match=r"data\.yaml: names: class 1 is cell, but other in the categor"):
        given.convert(split="val")
    given.raw["categories"].pop()
    with pytest.raises(ConfigError, match=r"class 0 is größe, but other in"):
        given.convert(split="val")

    assert not (given.output / "images/val").exists()


def test_a_yaml_keeps_what_it_has(given: Given) -> None:
    given.output.mkdir()
    given.output.joinpath("data.yaml").write_text(
        "names: [größe, cell]\nval: images/train\nsource: me\n", encoding="utf-8"
    )
    path = given.convert(split="val")
    given.convert()
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert list(content) == ["path", "train", "val", "names", "source"]
    assert (content["train"], content["val"], content["source"]) == ("images/train", "images/val", "me")

    path.write_text("path: /data/cells\nnames: [größe, cell]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"data\.yaml: path: describes another folder, /data/cells"):
        given.convert(split="test")


def test_the_command_line(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    given.file.write_text(json.dumps(given.raw), encoding="utf-8")
    words = ["convert", str(given.file), "--images", str(given.images), "--output", str(given.output)]
    monkeypatch.setattr(sys, "argv", ["utils.data", *words, "--split", "test", "--link", "--boxes"])
    commands.main()

    assert given.labels(split="test") and (given.output / "images/test/a.png").is_symlink()
