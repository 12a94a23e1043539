"""Downloads never replace files of another origin: a data yaml of a stranger names their folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import Answer, Site, serve
from tests.utils.data.test_download import zipped
from utils.base.errors import ConfigError, DataError
from utils.base.paths import ROOT
from utils.data.dataset_yaml import read_data_yaml
from utils.data.download import Download, download_data
from utils.data.own_folder import MARK, OwnFolder

TRAP = {"train.py": b"print('replaced')", "images/val/1.jpg": b"one", MARK: b'{"files": ["x"]}'}


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serve({"/trap.zip": Answer(zipped(TRAP)), "/a.json": Answer(b"{}")}) as running:
        yield running


def _yaml(folder: Path, path: str, url: str) -> Path:
    file = folder / "data.yaml"
    file.write_text(
        f"path: {path}\ntrain: images/val\nval: images/val\nnames: [a]\ndownload: {url}/trap.zip\n"
    )
    return file


@pytest.mark.parametrize("path", ["project", "./project/../project", "link"])
def test_a_project_is_no_target(
    site: Site, tmp_path: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The yaml says that its dataset is in a folder with code, and its archive has a train.py."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "train.py").write_text("mine")
    (tmp_path / "link").symlink_to(project)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"data.yaml: path: .* has other files, such as train.py"):
        read_data_yaml(_yaml(tmp_path, str(tmp_path / path), site.url), allow_download=True)
    assert (project / "train.py").read_text() == "mine"
    assert not site.asked and [file.name for file in project.iterdir()] == ["train.py"]


@pytest.mark.parametrize(("path", "what"), [(".", "the current folder"), ("..", "the current folder")])
def test_the_current_folder_is_no_target(
    site: Site, tmp_path: Path, path: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "a" / "b"
    home.mkdir(parents=True)
    monkeypatch.chdir(home)
    with pytest.raises(ConfigError, match=f"(is|contains) {what}"):
        download_data([Download(f"{site.url}/trap.zip")], Path(path), allowed=True)
    assert not site.asked


def test_the_program_and_the_home_folder_are_no_targets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "users" / "me"))
    monkeypatch.chdir(tmp_path)
    for folder, message in (
        (ROOT, "is the program"),
        (ROOT.parent, "contains the program"),
        (Path("/"), "contains"),
        (tmp_path / "users" / "me", "is your home folder"),
        (tmp_path / "users", "contains your home folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            OwnFolder(folder, "source")
    OwnFolder(ROOT / "datasets" / "cells", "source")


def test_the_same_download_may_fill_its_folder_again(site: Site, tmp_path: Path) -> None:
    root, wanted = tmp_path / "cells", [Download(f"{site.url}/trap.zip"), Download(f"{site.url}/a.json")]
    download_data(wanted, root, allowed=True)
    (root / "notes.txt").write_text("mine")
    (root / "images" / "val" / "1.jpg").unlink()
    download_data(wanted, root, allowed=True)
    assert (root / "images" / "val" / "1.jpg").read_bytes() == b"one"
    assert (root / "notes.txt").read_text() == "mine"
    files = json.loads((root / MARK).read_text())["files"]
    assert files == ["a.json", "images/val/1.jpg", "train.py"]  # not what the mark in the archive says
    with pytest.raises(DataError, match="has other files"):
        download_data(wanted[:1], root, allowed=True)


def test_files_that_were_added_by_hand_are_not_replaced(site: Site, tmp_path: Path) -> None:
    root, wanted = tmp_path / "cells", [Download(f"{site.url}/trap.zip")]
    download_data(wanted, root, allowed=True)
    site.answers["/trap.zip"] = Answer(zipped({"new.txt": b"theirs", "train.py": b"newer"}))
    (root / "new.txt").write_text("mine")
    with pytest.raises(DataError, match=r"new.txt: exists, and is not from this download"):
        download_data(wanted, root, allowed=True)
    assert (root / "new.txt").read_text() == "mine" and (root / "train.py").read_bytes() == TRAP["train.py"]
    (root / "new.txt").unlink()
    shutil.rmtree(tmp_path / ".cells-downloads")  # what the failed run has downloaded
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / "sub").symlink_to(outside)
    site.answers["/trap.zip"] = Answer(zipped({"sub/x.txt": b"theirs"}))
    with pytest.raises(DataError, match="sub: is no folder of this download"):
        download_data(wanted, root, allowed=True)
    assert not list(outside.iterdir())


def test_an_archive_as_data_goes_into_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer archive replaces its own files; a folder of another origin is refused."""
    monkeypatch.setenv("YOLOv5_DATASETS_DIR", str(tmp_path / "datasets"))
    content = {"data.yaml": b"train: images\nval: images\nnames: [a]", "images/1.jpg": b"one"}
    archive = tmp_path / "cells.zip"
    archive.write_bytes(zipped(content))
    assert read_data_yaml(archive).names == {0: "a"}
    archive.write_bytes(zipped(content | {"data.yaml": content["data.yaml"].replace(b"a]", b"b]")}))
    os.utime(archive, (2**31, 2**31))
    assert read_data_yaml(archive).names == {0: "b"}

    (tmp_path / "datasets" / "mine").mkdir()
    (tmp_path / "datasets" / "mine" / "images").mkdir()
    other = tmp_path / "mine.zip"
    other.write_bytes(zipped(content))
    os.utime(other, (2**31, 2**31))
    with pytest.raises(DataError, match=r"--data .*mine.zip: .*mine has other files, such as images"):
        read_data_yaml(other)
