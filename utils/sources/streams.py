"""Live sources: screens, and cameras and network streams, each read by a thread."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlunsplit

import cv2
import numpy as np

from utils.base.errors import ConfigError, DataError, one_line
from utils.base.inputs import read_file, split_url
from utils.base.limits import YAML
from utils.base.log import LOG, without_credentials
from utils.data.image_header import check_count
from utils.sources.frame import Frame, check_frame_size, strided_fps

RECONNECTS = 10  # attempts without a frame before a lost stream counts as ended, within 3 to 5 minutes
RECONNECT_WAIT = 1.0  # seconds before the first; each next wait is twice as long
LONGEST_WAIT = 30.0  # seconds
OPENING, STALLED = 10_000, 30_000  # milliseconds in which a network stream must open, and give a frame
_DAMAGED = 5  # frames in a row that may be damaged; of a stream that is lost, all are
_POLL = 0.2  # seconds; short waits, as on some platforms Ctrl-C does not interrupt a wait


def read_stream_list(file: Path, source: str) -> list[str]:
    """Read a `.streams` file: one camera number or URL per line; blank lines and # lines are skipped.

    Raises:
        ConfigError: unreadable, or without a stream.
    """
    try:
        text = read_file(file, YAML).decode("utf-8-sig")
        lines = [line.strip() for line in text.splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--source {source}: {getattr(error, 'strerror', None) or error}") from error
    streams = [line for line in lines if line and not line.startswith("#")]
    if not streams:
        raise ConfigError(f"--source {source}: no stream in it; expected a URL or camera number per line")
    return streams


def stream_name(stream: str) -> str:
    """Return the URL of a stream as a file name, without user name and password."""
    stream = without_credentials(stream)
    parts = split_url(stream)
    if parts.scheme and parts.netloc:
        host = parts.netloc.rpartition("@")[2]
        stream = urlunsplit(parts._replace(netloc=host))
    return re.sub(r"[^\w-]+", "_", stream).strip("_")[:120] or "stream"


class StreamSource:
    """Cameras and streams, read at the same time; a slow consumer misses frames.

    Attributes:
        files: names of the streams, valid as file names.
        skipped: streams that could not be opened.
    """

    saves_images = True

    def __init__(self, source: str, streams: Sequence[str], vid_stride: int = 1) -> None:
        self.source = source
        self.streams = list(streams)
        self.vid_stride = vid_stride
        self.files = [Path(stream_name(stream)) for stream in self.streams]
        self.skipped = 0

    def batches(self) -> Iterator[list[Frame]]:
        """Yield the frames that are new since the last batch, at most one of each stream.

        Ends when all streams have ended. A lost stream gives black frames until it is open again.

        Raises:
            DataError: none of the streams could be opened.
        """
        changed = threading.Condition()
        stop = threading.Event()
        readers = [_Reader(stream, self.vid_stride, changed, stop) for stream in self.streams]
        for reader in readers:
            reader.start()
        try:
            while fresh := _wait_for_frames(readers, changed):
                yield [self._frame(index, readers[index], image) for index, image in fresh]
            if not any(reader.delivered for reader in readers):
                raise DataError(f"--source {self.source}: no stream could be opened")
        finally:
            stop.set()
            self.skipped = sum(reader.ended and not reader.delivered for reader in readers)
            for reader in readers:
                reader.join(timeout=2)  # a camera that hangs must not block the exit

    def _frame(self, index: int, reader: _Reader, image: np.ndarray) -> Frame:
        return Frame(
            self.files[index],
            image,
            kind="stream",
            index=index + 1,
            count=len(self.streams),
            frame_number=reader.delivered,
            fps=reader.fps,
        )


class _Reader(threading.Thread):
    """Thread that opens and reads one stream, and keeps its newest frame."""

    def __init__(
        self, stream: str, vid_stride: int, changed: threading.Condition, stop: threading.Event
    ) -> None:
        super().__init__(name=f"stream {stream_name(stream)}", daemon=True)
        self.stream = stream
        self.vid_stride = vid_stride
        self.changed = changed
        self.stop = stop
        self.newest: np.ndarray | None = None
        self._black = np.zeros((480, 640, 3), np.uint8)
        self.read = 0
        self.delivered = 0
        self.finite = False  # a recording, which ends
        self.lost = False
        self.ended = False
        self.fps = strided_fps(0, vid_stride)

    def run(self) -> None:
        name = stream_name(self.stream)
        try:
            if not self._connect():
                LOG.warning(f"{name}: skipped, cannot be opened")
                return
            failures = 0  # since the last frame
            while not (self.finite or self.stop.is_set()) and failures < RECONNECTS:
                wait = min(RECONNECT_WAIT * 2**failures, LONGEST_WAIT)
                if not self.lost:
                    LOG.warning(f"{name}: lost, trying to open it again")
                self.lost = True
                self._publish(self._black.copy())
                if self.stop.wait(wait):
                    return
                before = self.read
                self._connect()
                failures = 0 if self.read > before else failures + 1
            if failures:
                LOG.warning(f"{name}: ended, gave no frame in {RECONNECTS} attempts")
        except (cv2.error, DataError, ConfigError) as error:
            LOG.warning(f"{name}: {one_line(error).removeprefix(f'{name}: ')}")
        finally:
            with self.changed:
                self.ended = True
                self.changed.notify_all()

    def _connect(self) -> bool:
        """Open the stream and read it until it is lost; return whether it could be opened."""
        capture = self._open()
        if capture is None:
            return False
        try:
            self.finite = capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0
            self._read_until_lost(capture)
        finally:
            capture.release()
        return True

    def take(self) -> np.ndarray | None:
        """Return the newest frame, once; None if there is no new one. The caller holds `changed`."""
        image, self.newest = self.newest, None
        self.delivered += image is not None
        return image

    def _open(self) -> cv2.VideoCapture | None:
        url = resolve(self.stream)
        if "://" in url:
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPENING, cv2.CAP_PROP_READ_TIMEOUT_MSEC, STALLED]
            capture = cv2.VideoCapture(url, cv2.CAP_ANY, limits)
        else:
            capture = cv2.VideoCapture(int(url) if url.isdigit() else url)
        if not capture.isOpened():
            capture.release()
            return None
        check_frame_size(capture, stream_name(self.stream))
        self.fps = strided_fps(capture.get(cv2.CAP_PROP_FPS), self.vid_stride)
        return capture

    def _read_until_lost(self, capture: cv2.VideoCapture) -> None:
        wait = 1 / self.fps if self.finite else 0.0  # a recording could be read faster than it plays
        damaged = 0  # frames in a row that could not be decoded
        while not self.stop.is_set():
            start = time.monotonic()
            grabbed = all(capture.grab() for _ in range(self.vid_stride))
            ok, image = capture.retrieve() if grabbed else (False, None)
            if not ok or image is None:
                damaged += 1
                if damaged > _DAMAGED or time.monotonic() - start > 1:
                    return
                continue
            damaged = 0
            if not self.read or image.shape != self._black.shape:
                height, width = image.shape[:2]  # a stream may change its size
                check_count(height * width, 0, stream_name(self.stream))
            if self.lost:
                LOG.info(f"{stream_name(self.stream)}: open again")
            self.lost = False
            self.read += 1
            self._publish(image)
            self.stop.wait(wait)

    def _publish(self, image: np.ndarray) -> None:
        with self.changed:
            self._black = np.zeros_like(image) if image.shape != self._black.shape else self._black
            self.newest = image
            self.changed.notify_all()


def _wait_for_frames(
    readers: Sequence[_Reader], changed: threading.Condition
) -> list[tuple[int, np.ndarray]]:
    """Wait for new frames and return them with the indices of their streams; empty when all have ended."""
    with changed:
        while True:
            taken = [(index, reader.take()) for index, reader in enumerate(readers)]
            fresh = [(index, image) for index, image in taken if image is not None]
            if fresh or all(reader.ended for reader in readers):
                return fresh
            changed.wait(_POLL)


def resolve(stream: str) -> str:
    """Return the URL of the video of a YouTube page; other streams are returned as they are.

    Raises:
        ConfigError: yt-dlp is not installed.
        DataError: yt-dlp finds no video.
    """
    host = (split_url(stream).hostname or "").removeprefix("www.")
    if host not in ("youtube.com", "m.youtube.com", "youtu.be"):
        return stream
    try:
        from yt_dlp import YoutubeDL
        from yt_dlp.utils import DownloadError
    except ImportError as error:
        raise ConfigError(f"--source {stream}: YouTube needs: pip install yt-dlp") from error
    try:
        with YoutubeDL({"format": "best[ext=mp4]/best", "quiet": True}) as downloader:
            return str(downloader.extract_info(stream, download=False)["url"])
    except DownloadError as error:
        raise DataError(f"--source {stream}: {one_line(error)}") from error


class ScreenSource:
    """A monitor: `screen [n]`, `screen l t w h` or `screen n l t w h` (pixels); it never ends.

    Attributes:
        monitor: its number; 0 is all monitors together.
        area: left, top, width and height; None for all of the monitor.
    """

    saves_images = True

    def __init__(self, source: str) -> None:
        self.source = source
        self.monitor, self.area = _parse_screen(source)
        self.files = [Path(re.sub(r"\W+", "_", source.strip().lower()))]
        self.skipped = 0
        self._mss = _import_mss(source)

    def batches(self) -> Iterator[list[Frame]]:
        """Yield one screenshot at a time.

        Raises:
            ConfigError: no such monitor, or no screen at all.
        """
        number = 0
        try:
            grabber = self._mss.mss()
        except self._mss.exception.ScreenShotError as error:
            raise ConfigError(f"--source {self.source}: no screen here ({one_line(error)})") from error
        with grabber:
            region = self._region(grabber.monitors)
            while True:
                image = np.array(grabber.grab(region), np.uint8)[..., :3].copy()  # BGRA -> BGR
                number += 1
                yield [Frame(self.files[0], image, "screen", frame_number=number)]

    def _region(self, monitors: list[dict[str, int]]) -> dict[str, int]:
        if self.monitor >= len(monitors):
            raise ConfigError(f"--source {self.source}: expected a monitor from 0 to {len(monitors) - 1}")
        monitor = monitors[self.monitor]
        if self.area is None:
            return monitor
        left, top, width, height = self.area
        return {
            "left": monitor["left"] + left,
            "top": monitor["top"] + top,
            "width": width or monitor["width"],
            "height": height or monitor["height"],
        }


def _parse_screen(source: str) -> tuple[int, tuple[int, int, int, int] | None]:
    """Return (monitor, area); the monitor is 0, all of them together, where none is given."""
    numbers = [int(word) for word in source.split()[1:]]
    if len(numbers) in (0, 1):
        return (numbers[0] if numbers else 0), None
    if len(numbers) in (4, 5) and min(numbers[-2:]) >= 0:
        left, top, width, height = numbers[-4:]
        return (numbers[0] if len(numbers) == 5 else 0), (left, top, width, height)
    raise ConfigError(f"--source {source}: expected screen [n], screen l t w h, or screen n l t w h")


def _import_mss(source: str) -> Any:
    try:
        import mss
        import mss.exception
    except ImportError as error:
        raise ConfigError(f"--source {source}: the screen needs: pip install mss") from error
    return mss
