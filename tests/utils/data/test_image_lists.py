import os
from pathlib import Path

import pytest

from utils.base.errors import DataError
from utils.base.log import LOG
from utils.data.image_lists import label_path, list_images


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_folder_is_searched_to_any_depth(tmp_path: Path) -> None:
    root = tmp_path / "set [1] ü"
    wanted = [root / "a.JPG", root / "b/c/d.png", root / "z.v2.webp"]
    touch(*wanted, root / "notes.txt", root / "._a.jpg", root / ".thumbs/a.jpg")
    assert list(list_images([root])) == wanted


def test_symbolic_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path / "set/a.jpg", tmp_path / "elsewhere/b.jpg")
    (tmp_path / "set/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "set")
    assert [path.name for path in list_images([tmp_path / "set"])] == ["a.jpg", "b.jpg"]


def test_lists_name_images_relative_to_them_or_to_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(
        tmp_path / "set/images/a.jpg",
        tmp_path / "set/images/b.jpg",
        tmp_path / "here/c.jpg",
        tmp_path / "d.jpg",
    )
    (tmp_path / "set/train.txt").write_text(f"./images/a.jpg\n\nimages/b.jpg\nc.jpg\n{tmp_path}/d.jpg\n")
    monkeypatch.chdir(tmp_path / "here")
    found = list_images([tmp_path / "set/train.txt"])
    assert {path.resolve().relative_to(tmp_path).as_posix() for path in found} == {
        "set/images/a.jpg",
        "set/images/b.jpg",
        "here/c.jpg",
        "d.jpg",
    }


def test_the_dataset_comes_before_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "one/images/a.jpg", tmp_path / "two/images/a.jpg", tmp_path / "two/lists/train.txt")
    (tmp_path / "two/lists/train.txt").write_text("images/a.jpg\n")
    monkeypatch.chdir(tmp_path / "one")
    assert list(list_images([tmp_path / "two/lists/train.txt"], tmp_path / "two")) == [
        tmp_path / "two/images/a.jpg"
    ]


def test_a_folder_of_another_case_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "Images/a.jpg")
    if not (tmp_path / "images").exists():
        with pytest.raises(DataError, match=f"no such folder .*found {tmp_path}/Images: names are case-sens"):
            list_images([tmp_path / "images"])


def test_lists_name_images_relative_to_the_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "set/images/a.jpg", tmp_path / "lists/train.txt")
    (tmp_path / "lists/train.txt").write_text("images/a.jpg\n")
    monkeypatch.chdir(tmp_path / "lists")
    found = list_images([tmp_path / "lists/train.txt"], tmp_path / "set")
    assert list(found) == [tmp_path / "set/images/a.jpg"]


@pytest.mark.skipif(os.sep == "\\", reason="Windows reads backslashes")
def test_paths_of_windows_in_a_list_are_read_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOG, "propagate", True)
    touch(tmp_path / "images/a.jpg")
    (tmp_path / "train.txt").write_text("images\\a.jpg\nC:\\set\\images\\b.jpg\n")
    found = list(list_images([tmp_path / "train.txt"]))
    assert tmp_path / "images/a.jpg" in found
    assert caplog.messages[0].endswith("they are read as slashes, first: images\\a.jpg")
    assert "1 of 2 images do not exist, first: C:\\set\\images\\b.jpg" in caplog.messages[1]
    assert "it has backslashes, which only Windows reads as folders: it is of a drive" in caplog.messages[1]


def test_a_list_of_missing_images_says_where_they_were_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "set/lists").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    listed = tmp_path / "set/lists/train.txt"
    listed.write_text("images/a.jpg\nimages/b.jpg\n")
    folders = f"{tmp_path}/set/lists, {tmp_path}/set, {tmp_path}/here"
    with pytest.raises(DataError) as error:
        list_images([listed], tmp_path / "set")
    reason = f"2 of 2 images do not exist, first: images/a.jpg; it was looked for in {folders}"
    assert str(error.value) == f"{listed}: {reason}"
    touch(tmp_path / "set/obj_train_data/a.jpg")
    listed.write_text("data/obj_train_data/a.jpg\n")  # as CVAT writes it
    with pytest.raises(DataError, match=f"found {tmp_path}/set/obj_train_data/a.jpg: shorten the paths"):
        list_images([listed], tmp_path / "set")
    listed.write_text("/mnt/other/a.jpg\n")
    with pytest.raises(DataError, match="absolute path, perhaps of another machine"):
        list_images([listed])


def test_a_list_in_utf_16_is_read_where_its_mark_says_so(tmp_path: Path) -> None:
    touch(tmp_path / "ü.jpg")
    (tmp_path / "train.txt").write_text("./ü.jpg\n", encoding="utf-16")
    assert list(list_images([tmp_path / "train.txt"])) == [tmp_path / "ü.jpg"]
    (tmp_path / "train.txt").write_text("./ü.jpg\n", encoding="utf-16-le")
    with pytest.raises(DataError, match="has zero bytes.*save the file as UTF-8"):
        list_images([tmp_path / "train.txt"])


def test_several_sources_are_joined(tmp_path: Path) -> None:
    touch(tmp_path / "one/a.jpg", tmp_path / "two/b.jpg")
    assert len(list_images([tmp_path / "one", tmp_path / "two", tmp_path / "one"])) == 2


def test_missing_images_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images found"):
        list_images([tmp_path])
    with pytest.raises(DataError, match="nowhere: no such folder"):
        list_images([tmp_path / "nowhere"])


def test_images_of_formats_that_are_not_used_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOG, "propagate", True)
    touch(*(tmp_path / name for name in ("a.heic", "b.HEIC", "c.jfif", "notes.txt")))
    advice = "not used: 2 .heic, 1 .jfif: rename .jfif to .jpg, convert others"
    with pytest.raises(DataError, match=advice):
        list_images([tmp_path])
    touch(tmp_path / "d.jpg")
    assert len(list_images([tmp_path])) == 1
    assert advice in caplog.messages[0]


@pytest.mark.parametrize(
    ("image", "labels"),
    [
        ("/d/images/train/a.jpg", "/d/labels/train/a.txt"),
        ("/images/d/images/a.b.png", "/images/d/labels/a.b.txt"),
        ("/d/photos/a.jpg", "/d/photos/a.txt"),
        ("/d/myimages/a.jpg", "/d/myimages/a.txt"),
    ],
)
def test_path_of_the_label_file(image: str, labels: str) -> None:
    assert label_path(Path(image)) == Path(labels)


@pytest.mark.parametrize("folder", ["/", "/proc", "/sys", "/dev"])
def test_folders_of_the_system_are_not_searched(folder: str, tmp_path: Path) -> None:
    """/proc has links to whole disks: YOLOv5 takes images of other programs from there."""
    with pytest.raises(DataError, match=f"{folder}: a folder of the system"):
        list_images([Path(folder)])
    touch(tmp_path / "a.jpg")
    (tmp_path / "link").symlink_to(folder)
    assert list(list_images([tmp_path])) == [tmp_path / "a.jpg"]


def test_a_list_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "train.txt").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match=r"train.txt: more than 1,073,741,824 bytes.*YOLOV5_MAX_LIST"):
        list_images([tmp_path / "train.txt"])
