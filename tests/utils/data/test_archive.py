"""Archives: all files are unpacked, and unsafe members are refused."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from utils.base.errors import DataError
from utils.data.download import is_archive, safe_unpack

FILES = {"set/images/a b.jpg": b"image", "set/labels/ä[1].txt": b"0 .5 .5 .1 .1\n"}


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return path


def make_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for info, content in members:
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_all_files_but_junk_are_unpacked(tmp_path: Path, suffix: str) -> None:
    files = FILES | {"__MACOSX/set/._a.jpg": b"junk", "set/.DS_Store": b"junk"}
    path = tmp_path / f"a.{suffix}"
    if suffix == "zip":
        make_zip(path, files)
    else:
        make_tar(path, *((tarfile.TarInfo(name), body) for name, body in files.items()))

    assert content(safe_unpack(path, tmp_path / "out")) == FILES


def test_several_archives_are_unpacked_into_one_folder(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip", {"images/1.jpg": b"one", "note.txt": b"old"})
    make_zip(tmp_path / "b.zip", {"images/2.jpg": b"two", "note.txt": b"new"})

    safe_unpack(tmp_path / "a.zip", tmp_path / "out")
    safe_unpack(tmp_path / "b.zip", tmp_path / "out")

    assert content(tmp_path / "out") == {"images/1.jpg": b"one", "images/2.jpg": b"two", "note.txt": b"new"}


@pytest.mark.parametrize(
    "name", ["../evil.txt", "a/../../evil.txt", "/tmp/evil.txt", "..\\evil.txt", "C:/evil.txt", "C:evil.txt"]
)
@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_paths_outside_of_the_folder_are_refused(tmp_path: Path, name: str, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "zip":
        make_zip(path, {"good.txt": b"", name: b"evil"})
    else:
        make_tar(path, (tarfile.TarInfo("good.txt"), b""), (tarfile.TarInfo(name), b"evil"))

    with pytest.raises(DataError, match="outside of the folder"):
        safe_unpack(path, tmp_path / "deep" / "out")

    assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == [path.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, "/etc/passwd"
    make_tar(tmp_path / "a.tar.gz", (info, b""))

    with pytest.raises(DataError, match="'link' is a link or device"):
        safe_unpack(tmp_path / "a.tar.gz", tmp_path / "out")


def test_a_symbolic_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(info, "/etc")

    with pytest.raises(DataError, match="'link' is a link"):
        safe_unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_zip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("utils.data.download._ANY_RATIO", 10_000)
    make_zip(tmp_path / "bomb.zip", {f"{n}": bytes(500_000) for n in range(4)})

    with pytest.raises(DataError, match="unpacks to more than"):
        safe_unpack(tmp_path / "bomb.zip", tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_the_limit_applies_to_the_sum_of_sizes(tmp_path: Path) -> None:
    make_zip(tmp_path / "a.zip", {"1": bytes(600), "2": bytes(600)})

    with pytest.raises(DataError, match="more than 1,000 bytes"):
        safe_unpack(tmp_path / "a.zip", tmp_path / "out", limit=1000)


@pytest.mark.parametrize("cut", [0, 20, 200])
@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_a_damaged_archive_leaves_nothing(tmp_path: Path, suffix: str, cut: int) -> None:
    path = tmp_path / f"a.{suffix}"
    body = bytes(range(256)) * 8
    if suffix == "zip":
        make_zip(path, {"a.bin": body})
    else:
        make_tar(path, (tarfile.TarInfo("a.bin"), body))
    path.write_bytes(path.read_bytes()[:cut])

    with pytest.raises(DataError, match=f"{path.name}: (damaged|cannot be unpacked)"):
        safe_unpack(path, tmp_path / "out")

    assert sorted(tmp_path.iterdir()) == [path]


def test_duplicate_members_are_refused(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tgz", (tarfile.TarInfo("x"), b"1"), (tarfile.TarInfo("x"), b"2"))

    with pytest.raises(DataError, match="'x' occurs twice"):
        safe_unpack(tmp_path / "a.tgz", tmp_path / "out")


def test_archives_are_recognized_by_their_names() -> None:
    assert is_archive("Set.ZIP")
    assert is_archive("a.tar.gz")
    assert not is_archive("a.jpg")
