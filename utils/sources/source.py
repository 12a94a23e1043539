"""Open `--source`: image and video files are read here, streams and screens in `streams`."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import cv2

from utils.base.download import download_file
from utils.base.errors import ConfigError, DataError, MissingFileError, is_out_of_memory, one_line
from utils.base.inputs import expand_user, file_size, read_file, split_url
from utils.base.limits import LIST
from utils.base.log import LOG
from utils.base.paths import path_hints
from utils.data.image_formats import page_count
from utils.data.images import SOURCE_SUFFIXES, VIDEO_SUFFIXES, decode_image, is_video, read_bytes
from utils.sources.frame import Frame, check_frame_size, strided_fps
from utils.sources.streams import ScreenSource, StreamSource, read_stream_list
from utils.sources.unused import describe_subfolders, describe_unused, sniff

_SCREEN = re.compile(r"screen(\s+-?\d+)*", re.IGNORECASE)  # not `screenshot.png` or a folder `screens`
_STREAM_SCHEMES = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp")


@dataclass(frozen=True)
class ImageFile:
    """An image file of a source that has not been read yet; see `Frame` for `index` and `count`."""

    path: Path
    index: int
    count: int

    def read(self) -> Frame:
        """Read the image; log that only the first page or frame of several is used.

        Raises:
            DataError: no such file, or not an image.
        """
        data = read_bytes(self.path)
        image = decode_image(data, self.path)
        if (pages := page_count(data)) > 1:
            LOG.warning(f"{self.path}: has {pages} pages or frames; only the first is used")
        return Frame(self.path, image, "image", self.index, self.count)


class FileSource:
    """Image files, then video files.

    Attributes:
        files: absolute paths.
        skipped: files that could not be read so far, and missing entries of a list.
        saves_images: whether detect.py saves images; for lists (.txt) the original does not.
    """

    def __init__(self, source: str, files: Sequence[Path], vid_stride: int = 1, skipped: int = 0) -> None:
        self.source = source
        self.files = list(files)
        self.vid_stride = vid_stride
        self.skipped = skipped
        self.saves_images = not source.lower().endswith(".txt")

    def items(self) -> Iterator[ImageFile | Frame]:
        """Yield image files unread, so that they can be read in parallel, and all frames of videos."""
        for index, path in enumerate(self.files, start=1):
            if is_video(path):
                with self.skipping(path):
                    yield from self._video(path, index)
            else:
                yield ImageFile(path, index, len(self.files))

    def read(self) -> Iterator[Frame]:
        """Yield all images and frames of videos; files that cannot be read are logged and counted.

        Raises:
            DataError: no file could be read; raised at the end.
        """
        any_read = False
        for item in self.items():
            with self.skipping(item.path):
                frame = item.read() if isinstance(item, ImageFile) else item
                any_read = True
                yield frame
        if not any_read:
            raise self.nothing_read()

    @contextmanager
    def skipping(self, path: Path) -> Iterator[None]:
        """Log and count an error of reading `path` instead of raising it."""
        try:
            yield
        except (DataError, OSError, cv2.error) as error:
            if is_out_of_memory(error):  # it would fail for the next files, too
                raise
            LOG.warning(f"{path}: skipped, {one_line(error).removeprefix(f'{path}: ')}")
            self.skipped += 1

    def nothing_read(self) -> DataError:
        """Return the error of a source of which no file could be read."""
        return DataError(f"--source {self.source}: none of its {len(self.files)} files could be read")

    def _video(self, path: Path, index: int) -> Iterator[Frame]:
        """Yield every `vid_stride`-th frame; an incomplete stride at the end gives none."""
        size = file_size(path)  # an error for a pipe, which has no end
        capture = cv2.VideoCapture(str(path))
        try:
            if not capture.isOpened():
                raise DataError(f"{path}: not a video that OpenCV can open")
            check_frame_size(capture, str(path), size)
            fps = strided_fps(capture.get(cv2.CAP_PROP_FPS), self.vid_stride)
            total = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) // self.vid_stride
            number = 0
            while all(capture.grab() for _ in range(self.vid_stride)):
                ok, image = capture.retrieve()
                if not ok:
                    break
                number += 1
                yield Frame(path, image, "video", index, len(self.files), number, total, fps)
            if not number:
                raise DataError(f"{path}: no frame could be read (--vid-stride {self.vid_stride})")
        finally:
            capture.release()


Source = FileSource | StreamSource | ScreenSource


def find_source(source: str, vid_stride: int = 1) -> Source:
    """Return what a `--source` means; that it exists is checked, but nothing is opened yet.

    Raises:
        ConfigError: it does not exist, or is malformed.
        DataError: a folder, glob or list without a usable file, or a URL that cannot be downloaded.
    """
    if _SCREEN.fullmatch(source.strip()):
        return ScreenSource(source)
    if source.isascii() and source.isdigit():
        return StreamSource(source, [source], vid_stride)
    if source.lower().endswith(".streams"):
        return StreamSource(source, read_stream_list(expand_user(source), source), vid_stride)
    scheme = split_url(source).scheme.lower() if "://" in source else ""
    if scheme in ("http", "https") and (name := _media_name(source)):
        source = str(_download(source, name))
    elif scheme in _STREAM_SCHEMES:
        return StreamSource(source, [source], vid_stride)
    files, missing = find_files(source)
    return FileSource(source, files, vid_stride, skipped=missing)


def find_files(source: str) -> tuple[list[Path], int]:
    """List the usable files of a file, folder, glob or list: images first, then videos, each file once.

    Returns:
        Absolute paths (symbolic links are kept, so that names stay), and the number of missing list entries.

    Raises:
        ConfigError: the source does not exist.
        DataError: it holds no image and no video.
    """
    missing = 0
    if source.lower().endswith(".txt"):
        found, missing = _read_list(expand_user(source), source)
    elif (expanded := _expand(source)) is not None:
        found = expanded
    else:
        raise MissingFileError(f"--source {source}: no such file or folder{path_hints(Path(source))}")
    unique = list(dict.fromkeys(Path(os.path.abspath(path)) for path in found))
    images = [path for path in unique if path.suffix.lower() in SOURCE_SUFFIXES]
    usable = images + [path for path in unique if is_video(path)]
    if not usable and len(unique) == 1 and sniff(unique[0]):
        return unique, missing  # a file that is named may have any suffix, or none
    read = set(usable)
    left = describe_unused(path for path in unique if path not in read)
    if not usable:
        raise DataError(_nothing_usable(source, left))
    if left:
        LOG.warning(f"--source {source}: not read: {left}")
    return usable, missing


def _nothing_usable(source: str, left: str) -> str:
    """Return the message for a source without images and videos, with what it contains instead."""
    images, videos = (" ".join(names).replace(".", "") for names in (SOURCE_SUFFIXES, VIDEO_SUFFIXES))
    folder = expand_user(source)
    found = left or (describe_subfolders(folder) if folder.is_dir() else "")
    return f"--source {source}: no image ({images}) and no video ({videos}) there" + (found and f"; {found}")


def _read_list(file: Path, source: str) -> tuple[list[Path], int]:
    """Read a list of one path, folder or glob per line, relative to the current folder or to the list."""
    try:
        text = read_file(file, LIST).decode("utf-8-sig", errors="surrogateescape")
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise ConfigError(f"--source {source}: {reason}") from error
    found: list[Path] = []
    missing = 0
    for line in filter(None, map(str.strip, text.splitlines())):
        beside = str(file.parent / line)
        # In lists of the original `./` means the folder of the list, so that is tried first.
        candidates = (beside, line) if line.startswith("./") else (line, beside)
        paths = next((files for files in map(_expand, candidates) if files), None)
        if paths is None:
            LOG.warning(f"{file}: {line}: skipped, no such file or folder")
            missing += 1
        found += paths or []
    return found, missing


def _expand(text: str) -> list[Path] | None:
    """Return the files of one path, folder or glob; None if there are none.

    A path that exists is preferred to a pattern, so `[1]` and `*` in names of folders are taken literally.
    """
    path = expand_user(text)
    try:
        if path.is_dir():
            return sorted(file for file in path.iterdir() if file.is_file() and file.name[0] != ".")
        if path.exists():
            return [path]
    except OSError as error:
        raise DataError(f"--source {text}: {error.strerror}") from error
    if "*" not in text:
        return None
    # Brackets are more often part of a name than a set of letters.
    for pattern in (str(path).replace("[", "[[]"), str(path)):
        if matches := sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - also absolute
            return [Path(match) for match in matches if Path(match).is_file()]
    return None


def _media_name(url: str) -> str:
    """Return the file name of a URL of an image or video, else an empty string."""
    name = Path(unquote(split_url(url).path).replace("\\", "/")).name
    return name if Path(name).suffix.lower() in SOURCE_SUFFIXES or is_video(name) else ""


def _download(url: str, name: str) -> Path:
    """Download to the current folder, as the original does; an existing file is used as it is."""
    path = Path(name).absolute()
    if path.exists():
        LOG.info(f"{url}: using {path}, which exists already")
    else:
        download_file(url, path)
    return path
