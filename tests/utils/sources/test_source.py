import os
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from utils.base.errors import ConfigError, DataError
from utils.sources import source as source_module
from utils.sources.frame import Frame
from utils.sources.source import FileSource, ImageFile, find_source
from utils.sources.streams import StreamSource


def make_image_file(path: Path, height: int = 40, width: int = 60) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    ok, data = cv2.imencode(path.suffix.lower(), np.full((height, width, 3), 90, np.uint8))
    assert ok
    path.write_bytes(data.tobytes())
    return path


def video(path: Path, frames: int = 6, fps: float = 12, size: tuple[int, int] = (64, 48)) -> Path:
    """Write a video whose frame k, from 0, is grey 10 * k modulo 250."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
    for k in range(frames):
        writer.write(np.full((size[1], size[0], 3), 10 * k % 250, np.uint8))
    writer.release()
    return path


def names(source: str) -> list[str]:
    return [path.name for path in find_source(source).files]


def frames(source: str, vid_stride: int = 1) -> list[Frame]:
    return list(find_source(source, vid_stride).read())


def test_subfolders_are_not_searched_and_images_come_before_videos(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "below/c.jpg", ".hidden.jpg"):
        make_image_file(tmp_path / name)
    video(tmp_path / "A.mp4")
    (tmp_path / "notes.txt").write_text("x")
    assert names(str(tmp_path)) == ["a.png", "b.JPG", "A.mp4"]


@pytest.mark.parametrize("folder", ["plain", "with [1] brackets", "mit Leer zeichen", "日本 é", "star*red"])
def test_folders_of_any_name_are_read(folder: str, tmp_path: Path) -> None:
    file = make_image_file(tmp_path / folder / "a [2].jpg")
    for source in (str(file), str(file.parent), str(file.parent / "*.jpg")):
        assert [frame.path for frame in frames(source)] == [file]


def test_glob_with_brackets_as_letters_and_with_stars_below(tmp_path: Path) -> None:
    for name in ("a1.jpg", "a2.jpg", "a3.jpg", "deep/a4.jpg"):
        make_image_file(tmp_path / name)
    assert names(str(tmp_path / "a[12]*.jpg")) == ["a1.jpg", "a2.jpg"]
    assert len(names(str(tmp_path / "**" / "*.jpg"))) == 4


def test_list_names_files_folders_and_globs_relative_to_here_or_to_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_image_file(tmp_path / "here" / "x.jpg")
    for name in ("a.jpg", "f/b.jpg", "f/c.jpg", "g1.jpg"):
        make_image_file(tmp_path / "lists" / name)
    lines = ["a.jpg", "./a.jpg", "f", "", "g*.jpg", "x.jpg", "gone.jpg"]
    (tmp_path / "lists" / "my list.TXT").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path / "here")
    source = find_source("../lists/my list.TXT")
    assert sorted(path.name for path in source.files) == ["a.jpg", "b.jpg", "c.jpg", "g1.jpg", "x.jpg"]
    assert source.skipped == 1
    assert not source.saves_images


@pytest.mark.parametrize("source", ["nowhere.jpg", "nowhere", "no*where", "nowhere.txt", "nowhere.streams"])
def test_a_missing_source_is_named(source: str) -> None:
    with pytest.raises(ConfigError, match="nowhere|no\\*where"):
        find_source(source)


def test_a_folder_without_images_lists_the_suffixes(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("x")
    for source in (tmp_path, tmp_path / "a.pdf"):
        with pytest.raises(DataError, match=r"jpeg jpg.*mp4"):
            find_source(str(source))


def test_images_in_subfolders_only_are_counted_and_a_glob_is_proposed(tmp_path: Path) -> None:
    for name in ("a/b/1.JPG", "a/2.JPG", "c/3.png", ".hidden/4.png"):
        make_image_file(tmp_path / name)
    with pytest.raises(DataError, match="its subfolders have 2 .JPG of 3 files") as error:
        find_source(str(tmp_path))
    assert len(str(error.value).splitlines()) == 1
    proposed = str(error.value).rpartition("--source ")[2].strip("'")
    assert names(proposed) == ["2.JPG", "1.JPG"]


@pytest.mark.parametrize("suffix", [".jfif", ".jp2", ".avif", ".JFIF"])
def test_other_suffixes_of_images_are_read(suffix: str, tmp_path: Path) -> None:
    written = make_image_file(tmp_path / f"a{suffix.lower().replace('.jfif', '.jpg')}")
    written.rename(tmp_path / f"a{suffix}")
    (frame,) = frames(str(tmp_path))
    assert frame.image.shape == (40, 60, 3) and abs(int(frame.image.mean()) - 90) < 3


def test_an_image_without_a_suffix_is_read_if_it_is_named(tmp_path: Path, logged: list[str]) -> None:
    make_image_file(tmp_path / "photo.png").rename(tmp_path / "photo")
    (tmp_path / "README").write_text("no image")
    assert frames(str(tmp_path / "photo"))[0].image.shape == (40, 60, 3)
    with pytest.raises(DataError, match="1 PNG image without a suffix: give one by its name, or rename"):
        find_source(str(tmp_path))
    make_image_file(tmp_path / "b.jpg")
    assert names(str(tmp_path)) == ["b.jpg"]
    assert len(logged) == 1 and "1 PNG image without a suffix" in logged[0]


def test_heic_images_are_named_with_the_command_that_converts_them(tmp_path: Path, logged: list[str]) -> None:
    for name in ("a.heic", "b.heic"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(DataError, match="2 HEIC images with the suffix .heic: convert to JPEG"):
        find_source(str(tmp_path))
    with pytest.raises(DataError):
        frames(str(tmp_path / "a.heic"))
    assert "HEIC cannot be read here; convert it to JPEG" in logged[-1]


def test_only_the_first_page_is_read_and_the_number_is_logged(tmp_path: Path, logged: list[str]) -> None:
    pages = [Image.new("RGB", (60, 40), (value, value, value)) for value in (50, 100, 150)]
    pages[0].save(tmp_path / "scan.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "moving.webp", save_all=True, append_images=pages[1:], lossless=True)
    pages[0].save(tmp_path / "one.tif")
    got = {frame.path.name: int(frame.image.mean()) for frame in frames(str(tmp_path))}
    assert got == {"moving.webp": 50, "one.tif": 50, "scan.tif": 50}
    assert [line.partition(": ")[2] for line in logged] == [
        "has 3 pages or frames; only the first is used"
    ] * 2


def test_unreadable_files_are_skipped_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    (tmp_path / "b.jpg").write_bytes(b"")
    (tmp_path / "c.mp4").write_bytes(b"no video")
    make_image_file(tmp_path / "d.jpg")
    source = find_source(str(tmp_path))
    got = list(source.read())
    assert [frame.path.name for frame in got] == ["d.jpg"]
    assert source.skipped == 3
    assert (got[0].index, got[0].count) == (3, 4)


def test_nothing_readable_is_an_error_that_names_the_source(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="a.jpg"):
        frames(str(tmp_path / "a.jpg"))


def test_images_are_listed_unread_and_videos_frame_by_frame(tmp_path: Path) -> None:
    make_image_file(tmp_path / "a.png", 40, 60)
    video(tmp_path / "b.mp4", frames=2)
    file, *shots = find_source(str(tmp_path)).items()
    assert file == ImageFile(tmp_path / "a.png", 1, 2)
    assert (file.read().image.shape, file.read().kind) == ((40, 60, 3), "image")
    assert [(shot.frame_number, shot.index) for shot in shots] == [(1, 2), (2, 2)]


def test_video_frames_are_numbered_and_timed(tmp_path: Path) -> None:
    got = frames(str(video(tmp_path / "a.mp4", frames=6, fps=12)))
    assert [frame.frame_number for frame in got] == [1, 2, 3, 4, 5, 6]
    assert {(frame.total, frame.fps, frame.kind) for frame in got} == {(6, 12.0, "video")}


def test_vid_stride_takes_every_nth_frame_and_slows_down(tmp_path: Path) -> None:
    got = frames(str(video(tmp_path / "a.mp4", frames=7, fps=12)), vid_stride=3)
    assert [(frame.frame_number, frame.total, frame.fps) for frame in got] == [(1, 2, 4.0), (2, 2, 4.0)]
    assert [round(frame.image.mean() / 10) for frame in got] == [2, 5]


def test_several_videos_and_one_shorter_than_the_stride(tmp_path: Path) -> None:
    for name, count in (("a.mp4", 4), ("b.mp4", 1), ("c.MP4", 2)):
        video(tmp_path / name, frames=count)
    source = find_source(str(tmp_path), vid_stride=2)
    got = [frame.path.name for frame in source.read()]
    assert got == ["a.mp4", "a.mp4", "c.MP4"]
    assert source.skipped == 1


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("0", StreamSource),
        ("12", StreamSource),
        ("rtsp://camera/live", StreamSource),
        ("rtsp://camera/recording.mp4", StreamSource),
        ("rtmp://host/app", StreamSource),
        ("http://host:8080/video", StreamSource),
        ("https://host/playlist.m3u8", StreamSource),
        ("https://host/Photo%20One.JPG?size=2", FileSource),
        ("HTTP://host/a.mp4", FileSource),
    ],
)
def test_urls_of_files_are_no_streams(source: str, kind: type, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    downloaded = []

    def download_file(url: str, path: Path) -> None:
        downloaded.append((url, path.name))
        path.write_bytes(b"")

    monkeypatch.setattr(source_module, "download_file", download_file)
    found = find_source(source)
    assert type(found) is kind
    if kind is FileSource:
        assert downloaded == [(source, found.files[0].name)]
        assert found.files[0].name in ("Photo One.JPG", "a.mp4")


def test_a_download_never_replaces_a_file(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_image_file(tmp_path / "a.jpg")
    monkeypatch.setattr(source_module, "download_file", lambda *_: pytest.fail("downloaded"))
    assert names("https://host/a.jpg") == ["a.jpg"]


def test_screen_without_mss_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mss", None)
    with pytest.raises(ConfigError, match="pip install mss"):
        find_source("screen 1")


@pytest.fixture
def two_monitors(monkeypatch: pytest.MonkeyPatch) -> None:
    class Grabber:
        monitors = [
            {"left": 0, "top": 0, "width": 200, "height": 100},
            {"left": 0, "top": 0, "width": 100, "height": 100},
            {"left": 100, "top": 0, "width": 100, "height": 50},
        ]

        def __enter__(self):
            return self

        def __exit__(self, *_) -> None:
            pass

        def grab(self, region: dict) -> np.ndarray:
            value = [region["left"], region["top"], 7, 255]
            return np.full((region["height"], region["width"], 4), value, np.uint8)

    mss = types.ModuleType("mss")
    mss.mss = Grabber
    mss.exception = types.ModuleType("mss.exception")
    mss.exception.ScreenShotError = RuntimeError
    monkeypatch.setitem(sys.modules, "mss", mss)
    monkeypatch.setitem(sys.modules, "mss.exception", mss.exception)


@pytest.mark.usefixtures("two_monitors")
@pytest.mark.parametrize(
    ("source", "shape", "corner"),
    [
        ("screen", (100, 200, 3), [0, 0, 7]),
        ("Screen 2", (50, 100, 3), [100, 0, 7]),
        ("screen 5 6 30 20", (20, 30, 3), [5, 6, 7]),
        ("screen 2 5 6 30 20", (20, 30, 3), [105, 6, 7]),
    ],
)
def test_screen_regions(source: str, shape: tuple, corner: list) -> None:
    batches = find_source(source).batches()
    first, second = next(batches)[0], next(batches)[0]
    assert first.image.shape == shape
    assert first.image[0, 0].tolist() == corner
    assert (first.frame_number, second.frame_number) == (1, 2)


@pytest.mark.usefixtures("two_monitors")
@pytest.mark.parametrize("source", ["screen 1 2", "screen 1 2 3 4 5 6", "screen 7"])
def test_a_malformed_or_missing_screen_is_an_error(source: str) -> None:
    with pytest.raises(ConfigError, match="screen"):
        next(find_source(source).batches())


def test_a_file_named_like_a_screen_is_a_file(tmp_path: Path) -> None:
    file = make_image_file(tmp_path / "screenshot 1.png")
    assert names(str(file)) == ["screenshot 1.png"]
    assert names(os.path.relpath(file)) == ["screenshot 1.png"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("http://[bad/a.jpg", "not a valid URL"),
        ("rtsp://[bad", "not a valid URL"),
        ("http://host:99999/a.jpg", "not a valid URL"),
        ("~nosuchuser/a.jpg", "no such file"),
    ],
)
def test_malformed_urls_and_unknown_users_are_errors(source: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_source(source)


def test_a_malformed_url_in_a_list_of_streams_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "all.streams").write_text("rtsp://[::1/x\n")
    with pytest.raises(ConfigError, match="not a valid URL"):
        find_source(str(tmp_path / "all.streams"))


@pytest.mark.parametrize("name", ["a.jpg", "a.mp4"])
def test_a_pipe_is_not_read(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="none of its 1 files could be read"):
        frames(str(tmp_path / name))


def test_a_video_with_too_many_pixels_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = video(tmp_path / "a.avi")
    monkeypatch.setenv("YOLOV5_MAX_PIXELS", "700")
    with pytest.raises(DataError, match="none of its 1 files could be read"):
        frames(str(path))
    monkeypatch.setenv("YOLOV5_MAX_PIXELS", "768")
    assert len(frames(str(path))) == 6
