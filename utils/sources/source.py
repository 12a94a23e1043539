"""Turn `--source` into frames: files here, streams and screens from their own modules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

import cv2

from utils.base.download import download_file
from utils.base.errors import DataError, one_line
from utils.base.log import LOG
from utils.data.images import read_image
from utils.data.letterbox import letterbox
from utils.sources.files import Fit, Frame, delivered_fps, find_files, is_image, is_video
from utils.sources.prefetch import in_turn
from utils.sources.screen import ScreenSource, is_screen
from utils.sources.streams import StreamSource, read_stream_list

__all__ = ["FileSource", "Frame", "Source", "find_source", "fitting", "open_source"]

AHEAD = 4  # images that a pool reads before they are needed


class Source(Protocol):
    """Something to look at. Nothing is opened before the first batch."""

    live: bool  # frames come by themselves: do not work ahead
    saves_images: bool  # False for list files, of which the original saves no images
    files: list[Path]  # names of what will be delivered, in order
    skipped: int  # files or streams that could not be read, so far

    def batches(self, fit: Fit, pool: Executor | None = None) -> Iterator[list[Frame]]:
        """Yield frames that belong together in time; one each, except for several streams.

        Args:
            fit: prepares an image for the network.
            pool: threads that may read ahead; None: nothing is read before it is needed.
        """
        ...


def find_source(source: str, vid_stride: int = 1) -> Source:
    """Tell what a source is and check that it is there, without opening it.

    Raises:
        ConfigError: it does not exist, or is written wrongly.
        DataError: a folder, glob or list without a usable file, or an address that cannot be downloaded.
    """
    if is_screen(source):
        return ScreenSource(source)
    if source.isascii() and source.isdigit():
        return StreamSource(source, [source], vid_stride)
    if source.lower().endswith(".streams"):
        return StreamSource(source, read_stream_list(Path(source).expanduser(), source), vid_stride)
    scheme = urlsplit(source).scheme.lower() if "://" in source else ""
    if scheme in ("http", "https") and (name := _media_name(source)):
        source = str(_download_here(source, name))
    elif scheme in ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp"):
        return StreamSource(source, [source], vid_stride)
    files, missing = find_files(source)
    return FileSource(source, files, vid_stride, skipped=missing)


def fitting(imgsz: int | Sequence[int], stride: int, auto: bool) -> Fit:
    """A function that letterboxes an image for the network."""
    shape = imgsz if isinstance(imgsz, int) else (imgsz[0], imgsz[1])
    fit = partial(letterbox, new_shape=shape, auto=auto, stride=stride)
    return lambda image: fit(image)[0]


def open_source(
    source: str, *, imgsz: int | Sequence[int], stride: int = 32, auto: bool = True, vid_stride: int = 1
) -> Iterator[list[Frame]]:
    """Find a source and yield its frames, letterboxed to `imgsz`; see `find_source` for the errors."""
    return find_source(source, vid_stride).batches(fitting(imgsz, stride, auto))


class FileSource:
    """Images, then videos, from the disk."""

    live = False

    def __init__(self, source: str, files: Sequence[Path], vid_stride: int = 1, skipped: int = 0) -> None:
        self.source = source
        self.files = list(files)
        self.vid_stride = vid_stride
        self.skipped = skipped
        self.saves_images = not source.lower().endswith(".txt")

    def batches(self, fit: Fit, pool: Executor | None = None) -> Iterator[list[Frame]]:
        """Yield every image and every frame; what cannot be read costs one line and is counted.

        Images are read and fitted by `pool`; frames of videos are not, as each needs the one before.

        Raises:
            DataError: nothing could be read, raised at the end.
        """
        delivered = 0
        numbered = list(enumerate(self.files, start=1))
        wanted = [(index, path) for index, path in numbered if is_image(path)]
        with closing(in_turn(partial(self._image, fit), wanted, pool, AHEAD)) as images:
            for index, path in numbered:
                still = is_image(path)
                try:
                    for frame in (next(images).result(),) if still else self._video(path, index, fit):
                        delivered += 1
                        yield [frame]
                except (DataError, OSError, cv2.error) as error:
                    message = one_line(error).removeprefix(f"{path}: ")
                    LOG.warning(f"{path}: skipped, {message}")
                    self.skipped += 1
        if not delivered:
            raise DataError(f"--source {self.source}: none of its {len(self.files)} files could be read")

    def _image(self, fit: Fit, numbered: tuple[int, Path]) -> Frame:
        index, path = numbered
        image = read_image(path)
        return Frame(path, image, fit(image), "image", index, len(self.files))

    def _video(self, path: Path, index: int, fit: Fit) -> Iterator[Frame]:
        """Every `vid_stride`-th frame, so as many as the whole strides that fit into the video."""
        capture = cv2.VideoCapture(str(path))
        try:
            if not capture.isOpened():
                raise DataError(f"{path}: not a video that OpenCV can open")
            fps = delivered_fps(capture.get(cv2.CAP_PROP_FPS), self.vid_stride)
            total = max(int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0) // self.vid_stride
            number = 0
            while all(capture.grab() for _ in range(self.vid_stride)):
                ok, image = capture.retrieve()
                if not ok:
                    break
                number += 1
                yield Frame(path, image, fit(image), "video", index, len(self.files), number, total, fps)
            if not number:
                raise DataError(f"{path}: no frame could be read (--vid-stride {self.vid_stride})")
        finally:
            capture.release()


def _media_name(url: str) -> str:
    """The file's name if an address is one of an image or video, else nothing."""
    name = Path(unquote(urlsplit(url).path).replace("\\", "/")).name
    return name if is_image(name) or is_video(name) else ""


def _download_here(url: str, name: str) -> Path:
    """Download to the current folder, as the original does; what is there already is used."""
    path = Path(name).absolute()
    if path.exists():
        LOG.info(f"{url}: {path} is there already, and used")
    else:
        download_file(url, path)
    return path
