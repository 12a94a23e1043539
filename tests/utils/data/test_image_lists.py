from pathlib import Path

import pytest

from utils.base.errors import DataError
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


def test_several_sources_are_joined(tmp_path: Path) -> None:
    touch(tmp_path / "one/a.jpg", tmp_path / "two/b.jpg")
    assert len(list_images([tmp_path / "one", tmp_path / "two", tmp_path / "one"])) == 2


def test_missing_images_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images found"):
        list_images([tmp_path])
    with pytest.raises(DataError, match="nowhere: no such folder"):
        list_images([tmp_path / "nowhere"])


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
