import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest

from tests.utils.sources.mjpeg import FRAMES, MjpegServer, mjpeg_server
from tests.utils.sources.test_source import video
from utils.base.errors import ConfigError, DataError
from utils.base.log import set_up_console
from utils.sources import streams
from utils.sources.streams import StreamSource, read_stream_list, stream_name


class Camera:
    """Stand-in for cv2.VideoCapture of a camera that is steady, breaks off after two frames, or is dead."""

    opened: list[str] = []
    lasts = {"steady": 10**9, "breaks": 2, "dead": 0}

    def __init__(self, url: str, *_: object) -> None:
        self.left = self.lasts.get(url, 0)
        if url == "breaks" and url in self.opened:
            self.left = 10**9  # it comes back
        self.alive = self.left > 0
        self.opened.append(url)

    def isOpened(self) -> bool:  # noqa: N802
        return self.alive

    def get(self, what: int) -> float:
        return {cv2.CAP_PROP_FPS: 50.0, cv2.CAP_PROP_FRAME_COUNT: -1.0}.get(what, 0.0)

    def grab(self) -> bool:
        time.sleep(0.002)
        self.left -= 1
        return self.left >= 0

    def retrieve(self) -> tuple[bool, np.ndarray]:
        return True, np.full((48, 64, 3), 200, np.uint8)

    def release(self) -> None:
        self.alive = False


@pytest.fixture
def cameras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams.cv2, "VideoCapture", Camera)
    monkeypatch.setattr(streams, "RECONNECT_WAIT", 0.01)
    Camera.opened = []


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("stream ")]


def test_blank_lines_and_comments_of_a_streams_file_are_skipped(tmp_path: Path) -> None:
    file = tmp_path / "my.streams"
    file.write_text("0\n\n# the yard\nrtsp://cam/1\n")
    assert read_stream_list(file, str(file)) == ["0", "rtsp://cam/1"]
    file.write_text("# nothing\n")
    with pytest.raises(ConfigError, match="my.streams"):
        read_stream_list(file, str(file))


def test_stream_names_are_valid_file_names_without_a_password() -> None:
    assert stream_name("rtsp://admin:secret@10.0.0.7:554/ch 1?x=1") == "rtsp_10_0_0_7_554_ch_1_x_1"
    assert "secret" not in stream_name("rtsp://admin:sec/secret@10.0.0.7/a")
    assert stream_name("http://10.0.0.7/a?user=b&pwd=secret&ch=1") == "http_10_0_0_7_a_user_b_pwd_ch_1"
    assert stream_name("0") == "0"
    assert stream_name("???") == "stream"


def test_recorded_streams_end(tmp_path: Path) -> None:
    files = [str(video(tmp_path / name, frames=4, fps=100)) for name in ("a.mp4", "b c.mp4")]
    source = StreamSource("x.streams", files)
    got = [frame for batch in source.batches() for frame in batch]
    assert {frame.index for frame in got} == {1, 2}
    for index in (1, 2):
        numbers = [frame.frame_number for frame in got if frame.index == index]
        assert numbers == list(range(1, len(numbers) + 1))
    assert {(frame.kind, frame.fps, frame.count) for frame in got} == {("stream", 100.0, 2)}
    assert running() == []


@pytest.mark.usefixtures("cameras")
def test_two_live_streams_come_together_and_closing_ends_the_threads() -> None:
    batches = StreamSource("x", ["steady", "steady"]).batches()
    time.sleep(0)
    sizes = []
    for batch, _ in zip(batches, range(20), strict=False):
        sizes.append(len(batch))
        time.sleep(0.01)  # slower than the cameras: both have something new
    batches.close()
    assert max(sizes) == 2
    assert running() == []


@pytest.mark.usefixtures("cameras")
def test_only_the_newest_frame_counts() -> None:
    batches = StreamSource("x", ["steady"]).batches()
    numbers = [next(batches)[0].frame_number]
    time.sleep(0.1)
    numbers += [next(batches)[0].frame_number for _ in range(2)]
    batches.close()
    assert numbers == [1, 2, 3]  # missed frames are not queued


@pytest.mark.usefixtures("cameras")
def test_a_lost_stream_is_black_until_it_is_open_again() -> None:
    batches = StreamSource("x", ["breaks"]).batches()
    seen = []
    for batch in batches:
        seen.append(int(batch[0].image.max()))
        if 0 in seen and seen[-1] == 200:
            break
    batches.close()
    assert 0 in seen
    assert Camera.opened == ["breaks", "breaks"]


@pytest.mark.usefixtures("cameras")
def test_a_dead_stream_is_counted_and_the_others_continue() -> None:
    source = StreamSource("x", ["dead", "steady"])
    batches = source.batches()
    assert {next(batches)[0].index for _ in range(5)} == {2}
    batches.close()
    assert source.skipped == 1


@pytest.mark.usefixtures("cameras")
def test_it_is_an_error_if_no_stream_can_be_opened() -> None:
    source = StreamSource("rtsp://nowhere", ["dead", "dead"])
    with pytest.raises(DataError, match="rtsp://nowhere"):
        list(source.batches())
    assert source.skipped == 2


class Clock(threading.Event):
    """An event that is never set, and remembers how long was waited for it, without waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits += [timeout] if timeout else []
        return False


def test_waits_for_a_lost_stream_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams.cv2, "VideoCapture", Camera)
    monkeypatch.setitem(Camera.lasts, "gone", 2)
    Camera.opened = []
    reader = streams._Reader("gone", 1, threading.Condition(), Clock())
    opened = reader._open
    monkeypatch.setattr(reader, "_open", lambda: None if Camera.opened else opened())
    reader.run()
    assert reader.ended and reader.read == 2
    assert reader.stop.waits == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MjpegServer]:
    monkeypatch.setattr(streams, "RECONNECT_WAIT", 0.01)
    monkeypatch.setattr(streams, "STALLED", 1000)
    with mjpeg_server() as opened:
        yield opened


@pytest.mark.parametrize("kind", ["drops", "stalls"])
def test_a_network_stream_that_breaks_off_or_stalls_is_opened_again(
    kind: str, server: MjpegServer, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_console()
    for (frame,) in StreamSource("x", [server.url(kind)]).batches():
        if server.connections > 2 and frame.image.max() > 0:
            break
    printed = capsys.readouterr()
    assert f"{kind}: lost, trying to open it again" in printed.err
    assert f"{kind}: open again" in printed.out
    assert "secret" not in printed.out + printed.err


@pytest.mark.parametrize("kind", ["changes", "damaged"])
def test_a_network_stream_with_damaged_frames_or_another_size_continues(
    kind: str, server: MjpegServer
) -> None:
    batches = StreamSource("x", [server.url(kind)]).batches()
    shapes = {frame.image.shape for (frame,), _ in zip(batches, range(4 * FRAMES), strict=False)}
    batches.close()
    assert server.connections == 1
    assert shapes <= {(48, 64, 3), (96, 128, 3)}  # OpenCV resizes frames to the first size


def test_garbage_is_not_a_stream(server: MjpegServer) -> None:
    with pytest.raises(DataError, match="no stream could be opened"):
        list(StreamSource("x", [server.url("garbage")]).batches())


def test_a_stream_may_not_grow_beyond_the_limit_of_pixels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_console()
    monkeypatch.setattr(streams.cv2, "VideoCapture", Camera)
    sizes = iter([(48, 64, 3), (48, 64, 3), (8000, 8000, 3)])
    monkeypatch.setattr(Camera, "retrieve", lambda _: (True, np.zeros(next(sizes), np.uint8)))
    assert {frame.image.shape for (frame,) in StreamSource("x", ["steady"]).batches()} == {(48, 64, 3)}
    assert "WARNING: steady: more than 33,554,432 pixels" in capsys.readouterr().err


@pytest.mark.slow
def test_memory_stays_flat_while_a_stream_is_lost_as_often_as_in_an_hour(
    server: MjpegServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first wait is 1 s, so that a stream can be lost at most 3600 times in an hour."""
    monkeypatch.setattr(streams, "RECONNECT_WAIT", 0.001)
    server.pause = 0.0
    used: list[int] = []
    for _ in StreamSource("x", [server.url("drops")]).batches():
        if server.connections >= 600 * (len(used) + 1):
            used.append(psutil.Process().memory_info().rss)
        if server.connections >= 3600:
            break
    assert max(used) - used[0] < 20e6, used
