"""Official weights: known names, verified downloads, kept in the cache folder."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import official_weights
from models.official_weights import OFFICIAL, OfficialFile, download_official, locate_weights
from tests.known import SHARED, needs_shared
from tests.serving import Answer, Site, serve
from utils.base.errors import ConfigError, DataError
from utils.base.paths import cache_folder


def checkpoint() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("model/data.pkl", b"anything")
    return buffer.getvalue()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("YOLOV5_CONFIG_DIR", str(tmp_path / "cache"))
    with serve({"/yolov5s.pt": Answer(checkpoint())}) as running:
        monkeypatch.setattr(official_weights, "RELEASE", running.url)
        yield running


def test_all_detection_and_segmentation_models_are_official() -> None:
    assert set(OFFICIAL) == {f"yolov5{scale}{kind}.pt" for scale in "nsmlx" for kind in ("", "6", "-seg")}


def test_only_bare_official_names_are_downloaded(site: Site) -> None:
    for name in ("yolov5q.pt", "nowhere/yolov5s.pt"):
        with pytest.raises(ConfigError, match=f"--weights {name}: no such file"):
            locate_weights(name)
    assert site.asked == []


@needs_shared
def test_hash_and_size_are_those_of_the_published_file() -> None:
    content = (SHARED / "weights" / "yolov5n.pt").read_bytes()

    assert OFFICIAL["yolov5n.pt"] == OfficialFile(hashlib.sha256(content).hexdigest(), len(content))


def test_weights_are_downloaded_once_and_their_licence_is_logged(
    site: Site, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "yolov5"):
        path = download_official("yolov5s.pt")
        assert download_official("yolov5s.pt") == path

    assert path.read_bytes() == checkpoint()
    assert site.asked == ["/yolov5s.pt"]
    assert sum("AGPL-3.0" in record.message for record in caplog.records) == 1


def test_a_file_that_is_not_the_published_one_is_deleted(site: Site) -> None:
    site.answers["/yolov5n.pt"] = Answer(checkpoint())
    site.answers["/yolov5m.pt"] = Answer(b"<html>please log in</html>")

    with pytest.raises(DataError, match="expected 4,062,133"):
        download_official("yolov5n.pt")
    with pytest.raises(DataError, match="not a checkpoint"):
        download_official("yolov5m.pt")

    assert not list((cache_folder() / "weights").iterdir())


def test_an_unknown_name_makes_no_request(site: Site) -> None:
    with pytest.raises(ConfigError, match="yolov5q.pt: not an official weight file"):
        download_official("yolov5q.pt")

    assert site.asked == []
