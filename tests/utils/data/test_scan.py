import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.utils.data.image_files import make_set
from utils.base.errors import DataError
from utils.base.log import LOG
from utils.data import scan
from utils.data.image_lists import list_images
from utils.data.label_cache import Scan, Subject
from utils.data.scan import load_labels

CACHE = Path("labels/train.cache.npz")


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    monkeypatch.setattr(LOG, "propagate", True)
    caplog.set_level("INFO", logger=LOG.name)
    return caplog


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Images that were checked."""
    seen: list[Path] = []
    check = scan.check_image

    def watched(path: Path) -> tuple[int, int]:
        seen.append(path)
        return check(path)

    monkeypatch.setattr(scan, "check_image", watched)
    return seen


def rewrite(path: Path, text: str) -> None:
    """Write a file with a later modification time: file systems have coarse clocks."""
    later = path.stat().st_mtime_ns + 10**9 if path.exists() else None
    path.write_text(text)
    if later:
        os.utime(path, ns=(later, later))


def test_bad_images_and_lines_are_skipped_with_a_warning(
    tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    images = make_set(tmp_path, 8)
    labels = tmp_path / "labels/train"
    (labels / "000.txt").write_text("0 0.5 0.5 0.4 0.6\n0 0.5\n")
    (labels / "001.txt").write_text("")
    (labels / "002.txt").unlink()
    (labels / "003.txt").write_text("0 5 5 4 6\n")
    (images / "004.png").write_bytes(b"junk")
    (labels / "005.txt").write_text("0 0.5 0.5 0.1 0.1\n9 0.5 0.5 0.4 0.6\n")
    (labels / "006.txt").write_text("9 0.5 0.5 0.4 0.6\n")

    files = load_labels([images], {0: "a", 1: "b", 2: "c"}, "train: ")

    assert [path.name for path in files.images] == ["000.png", "001.png", "002.png", "005.png", "007.png"]
    assert [len(rows) for rows in files.labels] == [1, 0, 0, 1, 2]
    assert files.sizes.tolist() == [[80, 60]] * 5
    lines = logged.messages
    assert lines[-1] == "train: 3 images and 4 label lines are skipped in total"
    assert f"train: Scanning {tmp_path / CACHE}... 4 images, 2 backgrounds, 2 corrupt" in lines[0]
    assert any(f"{labels}/000.txt: line 2: 2 values" in line for line in lines)
    assert any(f"{labels}/003.txt: no valid line is left" in line for line in lines)
    assert any(f"{images}/004.png: skipped, not an image" in line for line in lines)
    assert any(f"{labels}/005.txt: line 2: class 9 is not in 0-2" in line for line in lines)
    assert any(f"{labels}/006.txt: no valid line is left" in line for line in lines)


def test_clipped_lines_are_counted_once(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    images = make_set(tmp_path, 3)
    labels = tmp_path / "labels/train"
    (labels / "001.txt").write_text("0 0.5 0.5 1.0000001 0.2\n1 0.5 -3e-7 0.5 0.2\n")
    (labels / "002.txt").write_text("0 0.5 0.5 1.0004 0.2\n")
    assert [len(rows) for rows in load_labels([images]).labels] == [2, 2, 1]
    (message,) = (line for line in logged.messages if "are clipped" in line)
    assert message == (
        "3 label lines with coordinates up to 0.001 outside 0-1 are clipped, "
        f"first: {labels}/001.txt, line 1: 1.0000001"
    )


def test_classes_that_are_counted_from_1_are_hinted_at(
    tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    images = make_set(tmp_path, 2)
    for number in range(2):
        (tmp_path / f"labels/train/00{number}.txt").write_text(f"{number + 1} 0.5 0.5 0.1 0.1\n")
    load_labels([images], {0: "a", 1: "b"}, "train: ")
    (hint,) = (line for line in logged.messages if "counted from 1" in line)
    assert "subtract 1" in hint
    logged.clear()
    load_labels([images], {0: "a", 1: "b", 2: "c"})
    assert "counted from 1" not in logged.text


def test_label_files_in_another_encoding(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    images = make_set(tmp_path, 3)
    labels, line = tmp_path / "labels/train", "0 0.5 0.5 0.1 0.1\n"
    (labels / "000.txt").write_text(line, encoding="utf-16")
    (labels / "001.txt").write_text(line, encoding="utf-16-le")
    (labels / "002.txt").write_bytes(b"\xb0\xa1" + line.encode())
    assert [len(rows) for rows in load_labels([images]).labels] == [1]
    refused = [line for line in logged.messages if "save the file as UTF-8; the image is skipped" in line]
    assert len(refused) == 2 and f"{labels}/002.txt: line 1 has bytes that are not UTF-8" in refused[1]


def test_processes_and_threads_give_the_same_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = list_images([make_set(tmp_path, 7)])
    (tmp_path / "labels/train/003.txt").write_text("0 0.5\n")
    (tmp_path / "images/train/004.png").write_bytes(b"junk")
    monkeypatch.setattr(scan, "CHUNK", 2)
    scans = []
    for many in (100, 1):
        monkeypatch.setattr(scan, "_MANY", many)
        scans.append(Scan.concatenate(list(scan.scan_images(images))).to_arrays())
    assert all(np.array_equal(scans[0][name], scans[1][name]) for name in scans[0])
    assert scans[0]["status"].tolist() == [0, 0, 0, 2, 2, 0, 0]


def test_the_content_digest_depends_on_files_but_not_on_their_times(tmp_path: Path) -> None:
    images = make_set(tmp_path, 3)
    before = load_labels([images]).content
    os.utime(images / "001.png", ns=(0, 10**18))
    assert load_labels([images]).content == before
    image = (images / "001.png").read_bytes()
    (images / "001.png").write_bytes(image + b"x")
    assert load_labels([images]).content != before


def test_polygons_stay_with_their_boxes(tmp_path: Path) -> None:
    images = make_set(tmp_path, 3)
    (tmp_path / "labels/train/001.txt").write_text(
        "9 0.1 0.1 0.5 0.1 0.5 0.7 0.2 0.2\n0 0.5 0.5 0.1 0.1\n1 0.2 0.2 0.4 0.2 0.4 0.4\n"
    )
    for _ in range(2):  # scanned, then from the cache
        files = load_labels([images], {0: "a", 1: "b", 2: "c"})
        assert files.polygons[0] == files.polygons[2] == []
        assert [len(points) for points in files.polygons[1]] == [0, 3]
        np.testing.assert_allclose(files.polygons[1][1], [[0.2, 0.2], [0.4, 0.2], [0.4, 0.4]])
        np.testing.assert_allclose(files.labels[1][:, 0], [0, 1])


def test_a_second_run_reads_the_cache_and_repeats_the_warnings(
    tmp_path: Path, scans: list[Path], logged: pytest.LogCaptureFixture
) -> None:
    images = make_set(tmp_path)
    (tmp_path / "labels/train/000.txt").write_text("0 0.5\n1 0.5 0.5 0.2 0.2\n")
    first = load_labels([images])
    checked, messages = len(scans), list(logged.messages)
    logged.clear()
    second = load_labels([images])
    assert len(scans) == checked == 6
    assert logged.messages == messages
    assert list(first.images) == list(second.images)
    assert all((a == b).all() for a, b in zip(first.labels, second.labels, strict=True))


@pytest.mark.parametrize("change", ["label", "new image", "lost image", "moved"])
def test_the_cache_is_used_only_for_the_same_files(tmp_path: Path, scans: list[Path], change: str) -> None:
    images = make_set(tmp_path / "a")
    load_labels([images])
    scans.clear()
    if change == "label":
        rewrite(tmp_path / "a/labels/train/000.txt", "2 0.5 0.5 0.4 0.6\n1 0.3 0.7 0.2 0.25\n")
    elif change == "new image":
        (images / "new.png").write_bytes((images / "000.png").read_bytes())
    elif change == "lost image":
        (images / "000.png").unlink()
    else:
        (tmp_path / "a").rename(tmp_path / "b")
        images = tmp_path / "b/images/train"
    files = load_labels([images])
    assert bool(scans) == (change != "moved")
    assert files.images[0].parent == images
    if change == "label":
        assert files.labels[0][0, 0] == 2


def test_notes_of_older_files_are_read(tmp_path: Path) -> None:
    """They hold booleans: whether a note is about the labels."""
    images = list_images([make_set(tmp_path, 1)])
    arrays = Scan.concatenate(list(scan.scan_images(images))).to_arrays()
    old = [(0, False, "a"), (0, True, "b"), (0, True, "line 1: c; the line is skipped")]
    arrays["notes"] = np.frombuffer(json.dumps(old).encode(), np.uint8)
    old_scan = Scan.from_arrays(arrays)
    assert [note.subject for note in old_scan.notes] == [Subject.IMAGE, Subject.LABELS, Subject.LINE]
    assert Scan.from_arrays(old_scan.to_arrays()).notes == old_scan.notes


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"PK\x03\x04 cut off"])
def test_a_damaged_or_foreign_cache_is_replaced(tmp_path: Path, content: bytes) -> None:
    images = make_set(tmp_path)
    (tmp_path / CACHE).write_bytes(content)
    assert len(load_labels([images]).images) == 6
    assert (tmp_path / CACHE).read_bytes() != content


def test_a_cache_that_contradicts_itself_is_replaced(tmp_path: Path, scans: list[Path]) -> None:
    images = make_set(tmp_path)
    load_labels([images])
    with np.load(tmp_path / CACHE) as file:
        arrays = dict(file)
    arrays["counts"] = arrays["counts"] + 1
    np.savez(tmp_path / "labels/wrong.npz", **arrays)
    (tmp_path / "labels/wrong.npz").replace(tmp_path / CACHE)
    scans.clear()
    assert len(load_labels([images]).labels[0]) == 2
    assert scans


def test_a_cache_with_pickles_is_never_unpickled(tmp_path: Path) -> None:
    images = make_set(tmp_path)
    load_labels([images])
    with np.load(tmp_path / CACHE) as file:
        arrays = dict(file)
    arrays["rows"] = np.array([print], object)
    np.savez(tmp_path / "labels/wrong.npz", **arrays)
    (tmp_path / "labels/wrong.npz").replace(tmp_path / CACHE)
    assert len(load_labels([images]).images) == 6


def test_in_a_read_only_folder_the_cache_goes_to_the_cache_folder(
    tmp_path: Path, own_cache_folder: Path, scans: list[Path]
) -> None:
    images = make_set(tmp_path)
    (tmp_path / "labels").chmod(0o555)
    try:
        load_labels([images])
        assert not (tmp_path / CACHE).exists()
        assert len(list(own_cache_folder.rglob("*.npz"))) == 1
        scans.clear()
        load_labels([images])
        assert not scans
    finally:
        (tmp_path / "labels").chmod(0o755)


def test_nothing_but_the_cache_is_written(tmp_path: Path) -> None:
    images = make_set(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    load_labels([images])
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert after.pop(tmp_path / CACHE)
    assert after == before


def test_splits_that_share_a_folder_have_separate_caches(tmp_path: Path, scans: list[Path]) -> None:
    one, two = make_set(tmp_path, split="one"), make_set(tmp_path, split="two")
    load_labels([one, two])
    load_labels([two])
    scans.clear()
    load_labels([one, two])
    load_labels([two])
    assert not scans


def test_a_dataset_without_usable_images_is_an_error(tmp_path: Path) -> None:
    images = make_set(tmp_path, 2)
    for path in images.iterdir():
        path.write_bytes(b"junk")
    with pytest.raises(DataError, match="none of the 2 images"):
        load_labels([images])


def test_the_number_of_warnings_is_limited(tmp_path: Path, logged: pytest.LogCaptureFixture) -> None:
    images = make_set(tmp_path, 60)
    for labels in (tmp_path / "labels/train").glob("*.txt"):
        labels.write_text("0\n0 0.5 0.5 0.1 0.1\n")
    load_labels([images])
    warnings = warnings_of(logged)
    assert len(warnings) == 52
    assert warnings[-2].startswith("... and 10 more warnings")
    assert warnings[-1] == "0 images and 60 label lines are skipped in total"


@pytest.mark.parametrize(
    ("line", "names"), [("0", None), ("7 0.5 0.5 0.1 0.1", {0: "cat"})], ids=["malformed", "unknown class"]
)
def test_a_file_of_many_bad_lines_does_not_hide_the_warnings_of_others(
    line: str, names: dict[int, str] | None, tmp_path: Path, logged: pytest.LogCaptureFixture
) -> None:
    images = make_set(tmp_path, 3)
    good = "0 0.5 0.5 0.1 0.1\n"
    bad = "".join(f"{line[:-1]}{digit}\n" for digit in range(1, 10)) if names else f"{line}\n" * 70
    (tmp_path / "labels/train/000.txt").write_text(bad * (8 if names else 1) + good)
    (tmp_path / "labels/train/002.txt").write_text(f"{line}\n{good}")
    load_labels([images], names)
    warnings = warnings_of(logged)
    assert sum("000.txt: line" in text for text in warnings) == 5
    assert any("002.txt: line 1: " in text for text in warnings)


def warnings_of(logged: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in logged.records if record.levelname == "WARNING"]
