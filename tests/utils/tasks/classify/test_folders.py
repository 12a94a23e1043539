"""Class folders: which splits and classes there are, how classes get numbers, and what is wrong with them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.known import pattern_image
from tests.utils.tasks.classify.folders import make_folders, write
from utils.base.errors import ConfigError, DataError, MissingFileError
from utils.data.class_folders import KNOWN, SHAPES, load_class_files, read_class_data
from utils.data.scan import LabelledFiles

CATS = {0: "cat", 1: "dog", 2: "owl"}


def classes_of(files: LabelledFiles) -> dict[str, int]:
    """Return the class of each image by its folder and name."""
    rows = files.labels.rows[files.labels.starts]
    names = [Path(str(path)) for path in files.images]
    return {f"{p.parent.name}/{p.name}": int(row[0]) for p, row in zip(names, rows, strict=True)}


def test_folders_are_classes_in_sorted_order(tmp_path: Path) -> None:
    names = ["zebra", "Zebra", "a b c", "Ökotyp", "猫", "10", "9", "emoji 🙂", "with.dot"]
    root = make_folders(tmp_path, train=dict.fromkeys(names, 1), val={"9": 1, "猫": 2})
    data = read_class_data(str(root))
    assert data.names == dict(enumerate(sorted(names))) and data.nc == len(names)
    assert (data.train, data.val, data.test) == ([root / "train"], [root / "val"], [])
    files = load_class_files(data.train[0], data.names, complete=True)
    assert classes_of(files) == {f"{name}/0.png": index for index, name in enumerate(sorted(names))}
    assert files.labels.rows[:, 1:].tolist() == [[0.5, 0.5, 1, 1]] * len(names)
    assert files.sizes.tolist() == [[32, 24]] * len(names)


def test_a_split_without_a_class_keeps_the_numbers_of_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_folders(tmp_path, val={"owl": 2, "cat": 1})
    files = load_class_files(root / "val", CATS, prefix="val: ")
    assert classes_of(files) == {"cat/0.png": 0, "owl/0.png": 2, "owl/1.png": 2}
    assert f"val: {root / 'val'} has no images of 1 of 3 classes: dog" in caplog.text


def test_one_class_is_enough(tmp_path: Path) -> None:
    data = read_class_data(str(make_folders(tmp_path, train={"only": 2}, val={"only": 1})))
    assert data.names == {0: "only"}
    assert set(classes_of(load_class_files(data.train[0], data.names, complete=True)).values()) == {0}


def test_an_empty_class_is_an_error_in_training_and_a_warning_elsewhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    split = make_folders(tmp_path, train={"cat": 1, "dog": 0, "owl": 1}) / "train"
    with pytest.raises(DataError, match=re.escape(f"{split / 'dog'}: no usable images; add some, or remove")):
        load_class_files(split, CATS, complete=True)
    assert len(load_class_files(split, CATS).images) == 2
    assert "has no images of 1 of 3 classes: dog" in caplog.text


def test_a_class_of_unusable_images_is_empty(tmp_path: Path) -> None:
    split = make_folders(tmp_path, train={"cat": 1, "dog": 1, "owl": 1}) / "train"
    (split / "dog" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="dog: no usable images"):
        load_class_files(split, CATS, complete=True)


def test_a_split_without_images_is_an_error(tmp_path: Path) -> None:
    split = make_folders(tmp_path, val={"cat": 0, "dog": 0}) / "val"
    with pytest.raises(DataError, match=re.escape(str(split))):
        load_class_files(split, CATS)


def test_an_unknown_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    split = make_folders(tmp_path, val={"cat": 1, "fish": 1}) / "val"
    line = f"{split / 'fish'} is not a class of the model, which has 3: cat, dog, owl"
    with pytest.raises(ConfigError, match=re.escape(line)):
        load_class_files(split, CATS)
    many = {index: f"name{index}" for index in range(1000)}
    with pytest.raises(ConfigError, match=r"which has 1000: name0, .*, name9, \.\.\.$"):
        load_class_files(split, many)


@pytest.mark.parametrize("name", ["{}", "class{}"])
def test_folders_are_numbered_in_their_order_for_a_model_without_names(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    split = make_folders(tmp_path, val={"cat": 1, "dog": 1}) / "val"
    files = load_class_files(split, {0: name.format(0), 1: name.format(1)})
    assert classes_of(files) == {"cat/0.png": 0, "dog/0.png": 1}
    assert "the model does not name its classes" in caplog.text
    with pytest.raises(ConfigError, match="cat is not a class of the model"):
        load_class_files(split, {index: name.format(index) for index in range(3)})


def test_hidden_folders_and_files_of_other_kinds_are_skipped(tmp_path: Path) -> None:
    root = make_folders(tmp_path, train={"cat": 1, ".cache": 2, ".ipynb_checkpoints": 1})
    (root / "train" / "cat" / "notes.txt").write_text("these are cats")
    (root / "train" / "labels.csv").write_text("a,b")
    data = read_class_data(str(root))
    assert data.names == {0: "cat"}
    assert classes_of(load_class_files(data.train[0], data.names, complete=True)) == {"cat/0.png": 0}


def test_images_outside_class_folders_are_skipped_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    split = make_folders(tmp_path, train={"cat": 1, "dog": 1, "owl": 1}) / "train"
    write(split / "stray.png", pattern_image(8, 8))
    write(split / "another.jpg", pattern_image(8, 8))
    files = load_class_files(split, CATS, complete=True, prefix="train: ")
    assert sorted(classes_of(files)) == ["cat/0.png", "dog/0.png", "owl/0.png"]
    assert f"train: {split}: 2 images are in no class folder; they are skipped" in caplog.text


def test_images_in_folders_below_a_class_belong_to_it(tmp_path: Path) -> None:
    split = make_folders(tmp_path, val={"cat": 1}) / "val"
    write(split / "owl" / "cat" / "deep" / "1.png", pattern_image(8, 8))
    assert classes_of(load_class_files(split, CATS)) == {"cat/0.png": 0, "deep/1.png": 2}


def test_val_is_preferred_to_test(tmp_path: Path) -> None:
    one = {"cat": 1}
    data = read_class_data(str(make_folders(tmp_path / "both", train=one, val=one, test=one)))
    assert (data.val, data.test) == ([tmp_path / "both/val"], [tmp_path / "both/test"])
    data = read_class_data(str(make_folders(tmp_path / "test only", train=one, test=one)))
    assert data.val == data.test == [tmp_path / "test only/test"]


def test_without_train_the_names_are_those_of_val(tmp_path: Path) -> None:
    data = read_class_data(str(make_folders(tmp_path, val={"b": 1, "a": 1})))
    assert data.names == {0: "a", 1: "b"} and data.train == []


def test_a_folder_without_splits_or_classes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected folders train and val \(or test\)"):
        read_class_data(str(make_folders(tmp_path / "a", images={"cat": 1})))
    (tmp_path / "b/train").mkdir(parents=True)
    with pytest.raises(DataError, match="no class folders; expected train/<class>/<images>"):
        read_class_data(str(tmp_path / "b"))


def test_a_file_is_no_dataset(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("names: [cat]\n")
    with pytest.raises(ConfigError, match=r"data.txt: expected a folder with train and val in it"):
        read_class_data(str(tmp_path / "data.txt"))


def test_an_unknown_name_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        MissingFileError, match=r"--data imagenete: no such folder in .*; known names are"
    ) as e:
        read_class_data("imagenete")
    assert all(name in str(e.value) for name in (SHAPES, *KNOWN)) and "\n" not in str(e.value)


def test_relative_folders_are_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folders(tmp_path / "pets", train={"cat": 1})
    monkeypatch.chdir(tmp_path)
    assert read_class_data("pets").train == read_class_data("./pets").train == [tmp_path / "pets/train"]
    assert read_class_data(str(tmp_path / "pets" / ".." / "pets")).train == [tmp_path / "pets/train"]


@pytest.mark.parametrize("name", ["imagenette160", "mnist", "imagenet1000"])
def test_known_datasets_are_not_downloaded_unasked(
    name: str, offline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(offline)
    monkeypatch.setenv("YOLOV5_DATASETS_DIR", str(offline / "datasets"))
    with pytest.raises(
        ConfigError, match=rf"{name}: its images are not in .*{name}.* downloads https://"
    ) as e:
        read_class_data(name)
    assert "\n" not in str(e.value)


def test_a_known_dataset_that_was_downloaded_is_found(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from utils.data import class_folders as folders

    monkeypatch.setattr(folders, "datasets_dir", lambda: offline / "sets")
    make_folders(offline / "sets/mnist", train={"0": 1, "1": 1}, test={"0": 1})
    monkeypatch.chdir(offline)
    assert read_class_data("mnist").names == {0: "0", 1: "1"}


def test_a_download_is_unpacked_where_it_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from utils.data import class_folders as folders

    def download(items: object, root: Path, **options: object) -> None:
        assert options == {"allowed": True, "name": "mnist"}
        make_folders(root, train={"0": 1}, test={"0": 1})

    monkeypatch.setattr(folders, "datasets_dir", lambda: tmp_path / "sets")
    monkeypatch.setattr(folders, "download_data", download)
    monkeypatch.chdir(tmp_path)
    assert read_class_data("mnist", allow_download=True).train == [tmp_path / "sets/mnist/train"]


def test_a_second_scan_uses_the_cache_and_sees_new_images(tmp_path: Path) -> None:
    split = make_folders(tmp_path, val={"cat": 1, "dog": 1}) / "val"
    first = load_class_files(split, CATS)
    again = load_class_files(split, CATS)
    assert classes_of(first) == classes_of(again) and first.content == again.content
    write(split / "owl" / "new.png", pattern_image(8, 8))
    assert classes_of(load_class_files(split, CATS)) == {**classes_of(first), "owl/new.png": 2}
