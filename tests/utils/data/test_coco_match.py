"""Images and class names find their entries in COCO annotations."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.base.errors import DataError
from utils.data.coco_match import match_ids, match_images, match_names

FILE = Path("a.json")


@pytest.mark.parametrize(
    ("path", "names", "index"),
    [
        ("/data/images/1.jpg", ["2.jpg", "1.jpg"], 1),
        ("/data/images/a/1.jpg", ["1.jpg", "a/1.jpg"], 1),  # the longer name
        ("/data/images/1.jpg", ["images/1.jpg"], 0),
        ("/data/images/1.jpg", ["/data/images/1.jpg"], 0),
        ("/data/images/1.jpg", ["train/1.jpg"], None),  # of another split
        ("/data/images/1.jpg", ["1"], 0),
        ("/data/images/1.jpg", ["1.png"], 0),
        ("/data/images/1.jpg", ["1.png", "1.jpg"], 1),
        ("/data/images/1.jpg", ["1.png", "1.bmp"], None),  # either could be meant
        ("/data/images/1.v2.jpg", ["1.v2"], 0),
        ("/data/images/11.jpg", ["1.jpg"], None),
    ],
)
def test_an_image_has_the_entry_that_its_path_ends_with(
    path: str, names: list[str], index: int | None
) -> None:
    assert match_images([path], names, FILE) == [index]


def test_an_entry_has_one_image() -> None:
    assert match_images(["/d/old/1.jpg", "/d/1.jpg"], ["1.jpg"], FILE) == [None, 0]
    assert match_images(["/d/1.jpg", "/d/1.png"], ["1.jpg"], FILE) == [0, None]
    with pytest.raises(DataError, match=r"a\.json: images\[1\]\.file_name: '1\.jpg' fits /d/a/1\.jpg and"):
        match_images(["/d/a/1.jpg", "/d/b/1.jpg"], ["0.jpg", "1.jpg"], FILE)
    with pytest.raises(DataError, match=r"images\[2\]\.file_name: '1\.jpg' is the name of images\[0\]"):
        match_images(["/d/1.jpg"], ["1.jpg", "2.jpg", "1.jpg"], FILE)


def test_ids_are_the_names_of_files() -> None:
    paths = ["/d/000000000139.jpg", "/d/cell 7.png", "/d/0.jpg", "/d/4.jpg"]
    assert match_ids(paths, [139, "cell 7", 0]) == [0, 1, 2, None]


def test_names_agree_to_the_letter_or_without_case_and_spaces() -> None:
    assert match_names(["Cell", "rod", "x"], ["cell", "Cell", " ROD "]) == [1, 2, None]


def test_an_entry_of_many_images_belongs_to_the_nearest() -> None:
    paths = [f"/d/{'x/' * (number % 2)}{number // 2}.jpg" for number in range(20_000)]
    names = [f"{number}.jpg" for number in range(10_000)]
    found = match_images(paths, names, FILE)  # would take minutes if each entry went through all images
    assert found[::2] == list(range(10_000)) and set(found[1::2]) == {None}
