import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.utils.sources.test_source import video
from utils.base.errors import ConfigError, DataError
from utils.sources import streams
from utils.sources.streams import StreamSource, read_stream_list, stream_name


class Camera:
    """Stand-in for cv2.VideoCapture of a camera that is steady, breaks off after two frames, or is dead."""

    opened: list[str] = []
    lasts = {"steady": 10**9, "breaks": 2, "dead": 0}

    def __init__(self, url: str) -> None:
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
