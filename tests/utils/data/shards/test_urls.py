from pathlib import Path

import pytest

from utils.base.errors import ConfigError
from utils.data.shards.index import index_path
from utils.data.shards.urls import expand_braces, is_shards, is_url, list_shards


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a.tar", ["a.tar"]),
        ("t-{08..11}.tar", ["t-08.tar", "t-09.tar", "t-10.tar", "t-11.tar"]),
        ("t-{8..10}.tar", ["t-8.tar", "t-9.tar", "t-10.tar"]),
        ("{a,b}-{0..1}.tar", ["a-0.tar", "a-1.tar", "b-0.tar", "b-1.tar"]),
    ],
)
def test_braces_are_expanded(text: str, wanted: list[str]) -> None:
    assert list(expand_braces(text)) == wanted


def test_paths_become_absolute_and_urls_stay(tmp_path: Path) -> None:
    paths = tuple(str(tmp_path / f"x/t-{number}.tar") for number in (0, 1))
    assert list_shards("x/t-{0..1}.tar", tmp_path).urls == paths
    assert list_shards("s3://b/t-{0..1}.tar", tmp_path).urls == ("s3://b/t-0.tar", "s3://b/t-1.tar")
    for name in ("b [1].tar", "a.tar", "notes.txt"):
        (tmp_path / name).touch()
    assert [Path(url).name for url in list_shards("*.tar", tmp_path).urls] == ["a.tar", "b [1].tar"]
    assert is_url("gs://b/a.tar") and is_url("simplecache::s3://b/a.tar")
    assert not is_url("C:\\set\\a.tar") and not is_url("/set/a.tar")


@pytest.mark.parametrize(
    "text", ["t-{5..1}.tar", "t-{0..999999}.tar", "{0..999}-{0..999}.tar", "pipe:cat a.tar"]
)
def test_invalid_patterns_are_errors(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        list_shards(text, tmp_path)


def test_only_plain_tar_files_are_shards() -> None:
    assert is_shards("https://host/a.tar?signature=x.y") and not is_shards("https://host/a.zip?x=.tar")
    assert index_path("https://host/a.tar?s=1") == "https://host/a.index.npz?s=1"
    assert is_shards("A.TAR") and not is_shards("images/train") and not is_shards("list.txt")
    with pytest.raises(ConfigError, match="cannot be read from compressed shards"):
        is_shards("a.tar.gz")
