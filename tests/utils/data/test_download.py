"""Downloads of data yamls: only from URLs, with consent, into the right folder."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Answer, Site, serve
from utils.base.errors import ConfigError, DataError
from utils.base.paths import ROOT
from utils.base.yaml_io import read_yaml
from utils.data import __main__ as commands
from utils.data import download
from utils.data.download import Download, download_data, parse_downloads

PUBLIC = sorted((ROOT / "data").glob("*.yaml"))


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    own = zipped({"cells/images/val/1.jpg": b"one", "cells/labels/val/1.txt": b"0 .5 .5 .1 .1"})
    flat = zipped({"val/2.jpg": b"two"})
    with serve({"/own.zip": Answer(own), "/flat.zip": Answer(flat), "/note.json": Answer(b"{}")}) as running:
        yield running


def test_archives_and_files_are_put_below_the_root(site: Site, tmp_path: Path) -> None:
    root = tmp_path / "cells"
    own = site.answers["/own.zip"].body
    download_data(
        [
            Download(f"{site.url}/own.zip", hashlib.sha256(own).hexdigest(), len(own)),
            Download(f"{site.url}/flat.zip", into="images"),
            Download(f"{site.url}/note.json", into="annotations"),
        ],
        root,
        allowed=True,
    )

    found = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*") if file.is_file()}
    assert found == {
        "cells/.unpacked.json",
        "cells/images/val/1.jpg",
        "cells/images/val/2.jpg",
        "cells/labels/val/1.txt",
        "cells/annotations/note.json",
    }
    assert [folder.name for folder in tmp_path.iterdir()] == ["cells"]  # no temporary folder is left


def test_after_an_error_only_the_missing_files_are_downloaded(site: Site, tmp_path: Path) -> None:
    wanted = [Download(f"{site.url}/own.zip"), Download(f"{site.url}/late.zip")]
    with pytest.raises(DataError, match="404"):
        download_data(wanted, tmp_path / "cells", allowed=True)

    site.answers["/late.zip"] = site.answers["/flat.zip"]
    download_data(wanted, tmp_path / "cells", allowed=True)

    assert site.asked == ["/own.zip", "/late.zip", "/late.zip"]
    assert (tmp_path / "cells" / "val" / "2.jpg").read_bytes() == b"two"


def test_a_damaged_archive_is_downloaded_again(site: Site, tmp_path: Path) -> None:
    good, site.answers["/own.zip"] = site.answers["/own.zip"], Answer(b"PK no zip")
    wanted = [Download(f"{site.url}/own.zip")]
    with pytest.raises(DataError, match="damaged"):
        download_data(wanted, tmp_path / "cells", allowed=True)

    site.answers["/own.zip"] = good
    download_data(wanted, tmp_path / "cells", allowed=True)

    assert (tmp_path / "cells" / "images" / "val" / "1.jpg").exists()


@pytest.mark.parametrize(("answer", "downloads"), [("y", True), ("Yes ", True), ("n", False), ("", False)])
def test_the_user_is_shown_the_urls_and_asked(
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answer: str,
    downloads: bool,
) -> None:
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr("builtins.input", lambda prompt: answer)
    wanted = [Download(f"{site.url}/own.zip", size=len(site.answers["/own.zip"].body))]
    with caplog.at_level("INFO", "yolov5"):
        if downloads:
            download_data(wanted, tmp_path / "cells")
        else:
            with pytest.raises(ConfigError):
                download_data(wanted, tmp_path / "cells")

    assert (site.asked != []) == downloads
    assert f"{site.url}/own.zip" in caplog.text


def test_without_a_terminal_there_is_no_download(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download.sys, "stdin", io.StringIO("y\n"))

    with pytest.raises(ConfigError, match=r"python -m utils.data get cells.yaml` downloads http://127"):
        download_data([Download(f"{site.url}/own.zip")], tmp_path / "cells", name="cells.yaml")

    assert site.asked == []


def test_the_command_get_downloads_a_dataset(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yaml = tmp_path / "mine.yaml"
    yaml.write_text(
        f"path: cells\ntrain: images/val\nval: images/val\nnames: [a]\ndownload: {site.url}/own.zip\n"
    )
    monkeypatch.setenv("YOLOv5_DATASETS_DIR", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["-m", "get", str(yaml)])

    commands.main()

    assert (tmp_path / "cells" / "images" / "val" / "1.jpg").read_bytes() == b"one"


def test_a_yaml_without_download_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names no download"):
        download_data([], tmp_path / "cells", allowed=True)


def test_all_forms_of_a_download_are_parsed() -> None:
    url, sha256 = "https://host/a%20b.zip?x=1", "0" * 64

    assert parse_downloads(None, "d.yaml") == []
    assert parse_downloads(url, "d.yaml") == [Download(url)]
    assert parse_downloads([{"url": url, "sha256": sha256, "size": 5, "into": "images"}], "d.yaml") == [
        Download(url, sha256, 5, "images")
    ]
    assert Download(url).file_name == "a b.zip"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("bash data/scripts/get_coco.sh", "'bash data/scripts/get_coco.sh' is not an http.* are not run"),
        ("import os\nos.system('rm -rf /')", "'import os' is not an http"),
        ("file:///etc/passwd", "not an http"),
        ("ftp://host/a.zip", "not an http"),
        ("", "not an http"),
        (5, "expected URLs"),
        ([{"sha256": "0" * 64}], "expected URLs"),
        ([{"url": "https://h/a.zip", "run": "x"}], "unknown key 'run'"),
        ([{"url": "https://h/a.zip", "sha256": "abc"}], "sha256 'abc'"),
        ([{"url": "https://h/a.zip", "size": "big"}], "size 'big'"),
        ([{"url": "https://h/a.zip", "into": "../.."}], "into '../..'"),
        ([{"url": "https://h/a.zip", "into": "/etc"}], "into '/etc'"),
    ],
)
def test_invalid_downloads_are_errors(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"d\.yaml: download: .*{message}"):
        parse_downloads(value, "d.yaml")


@pytest.mark.parametrize("path", PUBLIC, ids=lambda path: path.name)
def test_the_shipped_yamls_are_complete(path: Path) -> None:
    content = read_yaml(path)

    assert {"path", "train", "val", "names"} <= set(content)
    assert list(content["names"]) == list(range(len(content["names"])))
    assert len(set(content["names"].values())) == len(content["names"])
    assert all(item.url.startswith("http") for item in parse_downloads(content.get("download"), path.name))
