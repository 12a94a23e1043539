import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.utils.data.image_files import make_set
from utils.base.errors import DataError
from utils.base.log import LOG
from utils.data.dataset import DetectionDataset
from utils.data.missing_labels import explain_missing_labels

XML = "<annotation><object><name>cat</name></object></annotation>"
COCO = json.dumps({"images": [], "annotations": [], "categories": []})


def upper_case_suffixes(root: Path) -> None:
    for file in sorted((root / "labels/train").iterdir()):
        file.rename(file.with_suffix(".TXT"))


def capital_labels(root: Path) -> None:
    (root / "labels").rename(root / "Labels")


def beside_the_images(root: Path) -> None:
    for file in (root / "labels/train").iterdir():
        shutil.move(file, root / "images/train" / file.name)


def without_split(root: Path) -> None:
    for file in (root / "labels/train").iterdir():
        shutil.move(file, root / "labels" / file.name)


def pascal_voc(root: Path) -> None:
    shutil.rmtree(root / "labels")
    (root / "Annotations").mkdir()
    for image in (root / "images/train").iterdir():
        (root / "Annotations" / f"{image.stem}.xml").write_text(XML)


def labelme(root: Path) -> None:
    shutil.rmtree(root / "labels")
    for image in (root / "images/train").iterdir():
        image.with_suffix(".json").write_text("{}")


def coco(root: Path) -> None:
    shutil.rmtree(root / "labels")
    (root / "images/train/_annotations.coco.json").write_text(COCO)  # as Roboflow names it


def label_studio(root: Path) -> None:
    for file in sorted((root / "labels/train").iterdir()):
        file.rename(file.with_name(f"0a1b2c3d-{file.name}"))


def other_names(root: Path) -> None:
    for file in sorted((root / "labels/train").iterdir()):
        file.rename(file.with_name(f"frame_{file.name}"))


def no_labels(root: Path) -> None:
    shutil.rmtree(root / "labels")


def empty_files(root: Path) -> None:
    for file in (root / "labels/train").iterdir():
        file.write_text("")


@pytest.mark.parametrize(
    ("change", "found", "advice"),
    [
        (upper_case_suffixes, "labels/train/000.TXT", "rename it to {root}/labels/train/000.txt"),
        (capital_labels, "Labels/train/000.txt", "names are case-sensitive"),
        (beside_the_images, "images/train/000.txt", "move it there"),
        (without_split, "labels/000.txt", "move the label files to {root}/labels/train"),
        (pascal_voc, "Annotations/000.xml", "Pascal VOC, which LabelImg writes: export them again as YOLO"),
        (labelme, "images/train/000.json", "LabelMe"),
        (coco, "images/train/_annotations.coco.json", "python -m utils.data convert"),
        (label_studio, "labels/train/0a1b2c3d-000.txt", "remove the code before the name of the image"),
        (other_names, "labels/train", "have other names than the images, first: frame_000.txt"),
        (no_labels, "labels/train", "does not exist; it should hold one .txt for each image"),
    ],
)
def test_missing_labels_are_explained(
    tmp_path: Path, change: Callable[[Path], None], found: str, advice: str
) -> None:
    root = tmp_path / "set"
    images = make_set(root, 2)
    change(root)
    with pytest.raises(DataError) as error:
        DetectionDataset([images], 64, augment=True, root=root)
    message = str(error.value)
    assert f"the first file looked for was {root}/labels/train/000.txt; " in message
    assert f"{root}/{found}" in message and advice.format(root=root) in message


def test_a_minority_of_labels_is_reported_where_the_others_are_elsewhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOG, "propagate", True)
    images = make_set(tmp_path, 5)
    labels = tmp_path / "labels/train"
    for number in range(1, 5):
        (labels / f"00{number}.txt").rename(labels / f"00{number}.TXT")
    DetectionDataset([images], 64, root=tmp_path)
    assert (
        f"4 of 5 images have no labels; the first file looked for was {labels}/001.txt; found" in caplog.text
    )
    caplog.clear()
    for number in range(1, 5):
        (labels / f"00{number}.TXT").unlink()  # backgrounds
    DetectionDataset([images], 64, root=tmp_path)
    assert "have no labels" not in caplog.text


def test_empty_label_files_are_not_missing(tmp_path: Path) -> None:
    images = make_set(tmp_path, 2)
    empty_files(tmp_path)
    with pytest.raises(DataError, match="2 of 2 images have a label file, all of which are empty"):
        DetectionDataset([images], 64, augment=True)


@pytest.mark.parametrize("labels", ["labels", "Labels"])
def test_a_folder_of_images_with_another_name_has_labels_beside_them(tmp_path: Path, labels: str) -> None:
    make_set(tmp_path, 1)
    (tmp_path / "images").rename(tmp_path / "Images")
    (tmp_path / "labels").rename(tmp_path / labels)
    image = tmp_path / "Images/train/000.png"
    reason = explain_missing_labels([image], tmp_path)
    assert (
        f"looked for was {tmp_path}/Images/train/000.txt; found {tmp_path}/{labels}/train/000.txt" in reason
    )
    assert f"rename {tmp_path}/Images to images" in reason
    assert ("the folder of the labels" in reason) == (labels == "Labels")


def test_labels_of_another_split_are_not_meant(tmp_path: Path) -> None:
    images = make_set(tmp_path, 1)
    make_set(tmp_path, 1, "val")
    shutil.rmtree(tmp_path / "labels/train")
    reason = explain_missing_labels(list(images.iterdir()), tmp_path)
    assert "labels/val" not in reason and "does not exist" in reason
