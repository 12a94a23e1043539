"""Cameras and network streams: one reader thread each, of which only the newest frame counts."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import cv2
import numpy as np

from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.sources.files import Fit, Frame, delivered_fps

RECONNECTS = 10  # attempts before a lost stream counts as ended
RECONNECT_PAUSE = 1.0  # seconds between them
_POLL = 0.2  # seconds; waits end now and then, so that Ctrl-C gets through on every platform


def read_stream_list(file: Path, source: str) -> list[str]:
    """Read a `.streams` file: one camera number or address per line; blank lines and # lines are skipped.

    Raises:
        ConfigError: unreadable, or no line left.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--source {source}: {getattr(error, 'strerror', None) or error}") from error
    streams = [line for line in lines if line and not line.startswith("#")]
    if not streams:
        raise ConfigError(f"--source {source}: the file names no stream; one address or number per line")
    return streams


def stream_name(stream: str) -> str:
    """A stream's address as a file name; user and password are left out."""
    parts = urlsplit(stream)
    if parts.scheme and parts.netloc:
        host = parts.netloc.rpartition("@")[2]
        stream = urlunsplit(parts._replace(netloc=host))
    return re.sub(r"[^\w-]+", "_", stream).strip("_")[:120] or "stream"


class StreamSource:
    """Cameras and streams, read at the same time."""

    live = True  # whoever is slow gets newer frames, not more of them
    saves_images = True

    def __init__(self, source: str, streams: Sequence[str], vid_stride: int = 1) -> None:
        self.source = source
        self.streams = list(streams)
        self.vid_stride = vid_stride
        self.files = [Path(stream_name(stream)) for stream in self.streams]
        self.skipped = 0

    def batches(self, fit: Fit, pool: Executor | None = None) -> Iterator[list[Frame]]:
        """Yield the frames that are new since the last time, at most one of each stream.

        Ends when all streams have ended. A stream that broke off shows black until it is back.

        Raises:
            DataError: not one of the streams could be opened.
        """
        changed = threading.Condition()
        stop = threading.Event()
        readers = [_Reader(stream, self.vid_stride, changed, stop) for stream in self.streams]
        for reader in readers:
            reader.start()
        try:
            while fresh := _wait_for_frames(readers, changed):
                yield [self._frame(place, readers[place], image, fit) for place, image in fresh]
            if not any(reader.delivered for reader in readers):
                raise DataError(f"--source {self.source}: no stream could be opened")
        finally:
            stop.set()
            self.skipped = sum(reader.ended and not reader.delivered for reader in readers)
            for reader in readers:
                reader.join(timeout=2)  # a camera that hangs must not keep the program

    def _frame(self, place: int, reader: _Reader, image: np.ndarray, fit: Fit) -> Frame:
        return Frame(
            path=self.files[place],
            original=image,
            image=fit(image),
            kind="stream",
            index=place + 1,
            count=len(self.streams),
            frame_number=reader.delivered,
            fps=reader.fps,
        )


class _Reader(threading.Thread):
    """Keep the newest frame of one stream; open, read and release happen in this thread alone."""

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
        self.delivered = 0
        self.ended = False
        self.fps = delivered_fps(0, vid_stride)

    def run(self) -> None:
        capture: cv2.VideoCapture | None = None
        try:
            capture = self._open()
            if capture is None:
                LOG.warning(f"{stream_name(self.stream)}: skipped, cannot be opened")
            while capture is not None and not self.stop.is_set():
                self._read_until_it_breaks(capture)
                finite = capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0
                capture.release()
                capture = None if finite or self.stop.is_set() else self._reconnect()
        except (cv2.error, DataError, ConfigError) as error:
            LOG.warning(f"{stream_name(self.stream)}: {error}")
        finally:
            if capture is not None:
                capture.release()
            with self.changed:
                self.ended = True
                self.changed.notify_all()

    def take(self) -> np.ndarray | None:
        """The newest frame, once; the caller holds `changed`."""
        image, self.newest = self.newest, None
        self.delivered += image is not None
        return image

    def _open(self) -> cv2.VideoCapture | None:
        address = resolve(self.stream)
        capture = cv2.VideoCapture(int(address) if address.isdigit() else address)
        if not capture.isOpened():
            capture.release()
            return None
        self.fps = delivered_fps(capture.get(cv2.CAP_PROP_FPS), self.vid_stride)
        return capture

    def _read_until_it_breaks(self, capture: cv2.VideoCapture) -> None:
        # A recording could be read faster than it plays; a camera sets the pace itself.
        pause = 1 / self.fps if capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0 else 0.0
        while not self.stop.is_set():
            grabbed = all(capture.grab() for _ in range(self.vid_stride))
            ok, image = capture.retrieve() if grabbed else (False, None)
            if not ok or image is None:
                return
            self._publish(image)
            self.stop.wait(pause)

    def _publish(self, image: np.ndarray) -> None:
        with self.changed:
            self._black = np.zeros_like(image) if image.shape != self._black.shape else self._black
            self.newest = image
            self.changed.notify_all()

    def _reconnect(self) -> cv2.VideoCapture | None:
        name = stream_name(self.stream)
        LOG.warning(f"{name}: lost, trying to open it again")
        for _ in range(RECONNECTS):
            self._publish(self._black.copy())
            if self.stop.wait(RECONNECT_PAUSE):
                return None
            if (capture := self._open()) is not None:
                LOG.info(f"{name}: back again")
                return capture
        LOG.warning(f"{name}: given up after {RECONNECTS} attempts")
        return None


def _wait_for_frames(
    readers: Sequence[_Reader], changed: threading.Condition
) -> list[tuple[int, np.ndarray]]:
    """Take what is new, (place of the stream, frame); empty when all streams have ended."""
    with changed:
        while True:
            taken = [(place, reader.take()) for place, reader in enumerate(readers)]
            fresh = [(place, image) for place, image in taken if image is not None]
            if fresh or all(reader.ended for reader in readers):
                return fresh
            changed.wait(_POLL)


def resolve(stream: str) -> str:
    """The address of the video behind a YouTube page; others stay as they are.

    Raises:
        ConfigError: yt-dlp is not installed.
        DataError: it finds no video.
    """
    host = (urlsplit(stream).hostname or "").removeprefix("www.")
    if host not in ("youtube.com", "m.youtube.com", "youtu.be"):
        return stream
    try:
        from yt_dlp import YoutubeDL
        from yt_dlp.utils import DownloadError
    except ImportError as error:
        raise ConfigError(f"--source {stream}: YouTube needs yt-dlp; pip install yt-dlp") from error
    try:
        with YoutubeDL({"format": "best[ext=mp4]/best", "quiet": True}) as tube:
            return str(tube.extract_info(stream, download=False)["url"])
    except DownloadError as error:
        raise DataError(f"--source {stream}: {error}") from error
