from pathlib import Path

from utils.base.names import UniqueNames, unique_stems


def test_a_stem_is_kept_unless_an_earlier_file_has_it() -> None:
    files = [
        Path("a/cat.jpg"),
        Path("b/cat.jpg"),
        Path("b/dog.v1.jpg"),
        Path("c/cat.png"),
        Path("d/dog.v1.bmp"),
    ]
    assert unique_stems(files) == ["cat", "cat2", "dog.v1", "cat3", "dog.v12"]


def test_a_numbered_stem_is_never_another_files_own() -> None:
    assert unique_stems([Path("a/x.jpg"), Path("b/x.jpg"), Path("b/x2.jpg")]) == ["x", "x3", "x2"]


def test_repeated_paths_get_a_number_before_the_suffix() -> None:
    names = UniqueNames()
    path = Path("crops/a.b.jpg")
    assert [names.unique_path(path).name for _ in range(3)] == ["a.b.jpg", "a.b2.jpg", "a.b3.jpg"]
    assert names.unique_path(Path("crops/a.b2.jpg")).name == "a.b22.jpg"
    assert names.unique_path(Path("other/a.b.jpg")).name == "a.b.jpg"


def test_many_equal_names_are_fast() -> None:
    names = UniqueNames()
    assert [names.unique("x", ".jpg") for _ in range(50_000)][-1] == "x50000.jpg"
