"""YOLOv5's `LoadImages`, `LoadStreams`, `LoadScreenshots` and `LoadWebcam`, over our sources."""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.base.errors import ConfigError, DataError
from utils.base.inputs import file_size
from utils.base.log import LOG
from utils.data.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_video, read_image
from utils.data.letterbox import letterbox
from utils.sources.frame import Frame, check_frame_size
from utils.sources.source import find_files
from utils.sources.streams import ScreenSource, StreamSource

IMG_FORMATS = tuple(suffix.lstrip(".") for suffix in IMAGE_SUFFIXES)
VID_FORMATS = tuple(suffix.lstrip(".") for suffix in VIDEO_SUFFIXES)
_UNPACK = dis.opmap["UNPACK_SEQUENCE"]


class FourOrFive(tuple[Any, ...]):
    """Item (path, im, im0, cap, text) of `utils.datasets`, which unpacks into four names or into five.

    Versions until v6.0 had no `text`. The instruction that unpacks the item says how many names there are;
    all else (`len`, indexing, `list`) sees five elements. docs/design/0018-yolov5-modules.md has the reasons.
    """

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        frame = sys._getframe(1)
        code, at = frame.f_code.co_code, frame.f_lasti
        wanted = code[at + 1] if 0 <= at < len(code) - 1 and code[at] == _UNPACK else 5
        return iter(self[:4] if wanted == 4 else self[:])


class LoadImages:
    """Iterable over images, then the frames of videos, of a file, folder, glob, .txt list, or list of these.

    Items are (path, im (3, h, w) uint8 RGB letterboxed, im0 (H, W, 3) BGR, cap, text).

    Raises:
        FileNotFoundError: the path does not exist.
        AssertionError: there is no image and no video.
    """

    item: type[tuple[Any, ...]] = tuple

    def __init__(
        self,
        path: Any,
        img_size: Any = 640,
        stride: int = 32,
        auto: bool = True,
        transforms: Any = None,
        vid_stride: int = 1,
    ) -> None:
        found = sorted(
            (find for one in _as_list(path) for find in _find(str(one))), key=is_video
        )  # at the end
        videos = [file for file in found if is_video(file)]
        self.files = [str(file) for file in found]
        self.nf = len(self.files)
        self.ni = self.nf - len(videos)
        self.video_flag = [False] * self.ni + [True] * len(videos)
        self.img_size, self.stride, self.auto = _size(img_size), int(stride), auto
        self.transforms, self.vid_stride = transforms, vid_stride
        self.mode = "image"
        self.count = self.frame = self.frames = 0
        self.cap: Any = None

    def __iter__(self) -> LoadImages:
        self.count = 0
        return self

    def __next__(self) -> Any:
        while self.count < self.nf and self.video_flag[self.count]:
            path = self.files[self.count]
            frame = self._next_frame(path)
            if frame is None:
                continue
            self.mode = "video"
            text = f"video {self.count + 1}/{self.nf} ({self.frame}/{self.frames}) {path}: "
            return self._item(path, frame, text)
        if self.count == self.nf:
            raise StopIteration
        path = self.files[self.count]
        self.count += 1
        self.mode = "image"
        try:
            image = read_image(Path(path))
        except (DataError, OSError) as error:
            raise AssertionError(f"Image Not Found {path}: {error}") from None
        return self._item(path, image, f"image {self.count}/{self.nf} {path}: ")

    def _next_frame(self, path: str) -> Any:
        """Return the next frame of a video, or None at its end, before the next file."""
        if self.cap is None:
            size = file_size(path)  # an error for a pipe
            self.cap = cv2.VideoCapture(path)
            check_frame_size(self.cap, path, size)
            self.frame = 0
            self.frames = max(int(self.cap.get(cv2.CAP_PROP_FRAME_COUNT)), 0) // self.vid_stride
        for _ in range(self.vid_stride):
            if not self.cap.grab():
                break
        else:
            ok, frame = self.cap.retrieve()
            if ok:
                self.frame += 1
                return frame
        if not self.frame:
            LOG.warning(f"{path}: skipped, no frame of the video could be read")
        self.cap.release()
        self.cap = None
        self.count += 1
        return None

    def _item(self, path: str, image: np.ndarray, text: str) -> Any:
        return self.item((path, _input(self, image), image, self.cap, text))

    def __len__(self) -> int:
        return self.nf


class LoadStreams:
    """Iterable over the newest frames of cameras and network streams; ends when one of them ends.

    Items are (names, im (B, 3, h, w), list of images, None, ''). With a window open, the key q ends it.

    Args:
        sources: a camera number, a URL, or a file with one source per line.
        img_size, stride, auto, transforms, vid_stride: as for `LoadImages`.

    Raises:
        AssertionError: there is no such source.
    """

    item: type[tuple[Any, ...]] = tuple
    mode = "stream"
    count = frame = 0

    def __init__(
        self,
        sources: Any = "streams.txt",
        img_size: Any = 640,
        stride: int = 32,
        auto: bool = True,
        transforms: Any = None,
        vid_stride: int = 1,
    ) -> None:
        listed = Path(str(sources))
        # A list of sources, one per line; a video file is a source itself.
        is_list = listed.is_file() and not is_video(listed)
        lines = listed.read_text().splitlines() if is_list else [str(sources)]
        self.sources = [line.strip() for line in lines if line.strip()]
        self.threads: list[Any] = []  # our readers end by themselves
        self.img_size, self.stride, self.auto = _size(img_size), int(stride), auto
        self.transforms, self.vid_stride = transforms, vid_stride
        self.rect = True
        self._source = StreamSource(str(sources), self.sources, vid_stride)
        self._batches = self._source.batches()
        self._newest: dict[int, Frame] = {}
        try:
            while len(self._newest) < len(self.sources):  # the original opens them here, too
                self._take()
        except (StopIteration, ConfigError, DataError) as error:
            raise AssertionError(f"{sources}: cannot be opened; {error}") from None
        self._first = True

    @property
    def imgs(self) -> list[np.ndarray]:
        """The newest frame of each stream."""
        return [self._newest[index].image for index in range(len(self.sources))]

    @property
    def fps(self) -> list[float]:
        """Frames per second of each stream."""
        return [self._newest[index].fps for index in range(len(self.sources))]

    @property
    def frames(self) -> list[float]:
        """Frames of each stream, which are unknown."""
        return [float("inf")] * len(self.sources)

    def _take(self) -> None:
        for frame in next(self._batches):
            self._newest[frame.index - 1] = frame

    def __iter__(self) -> LoadStreams:
        self.count = -1
        return self

    def __next__(self) -> Any:
        if _quit_pressed():
            self._batches.close()  # type: ignore[attr-defined]
            raise StopIteration
        if not self._first:
            self._take()
        self._first = False
        self.count += 1
        images = [image.copy() for image in self.imgs]
        shapes = {
            letterbox(image, self.img_size, stride=self.stride, auto=self.auto)[0].shape for image in images
        }
        self.auto = self.auto and len(shapes) == 1
        batch = [_input(self, image) for image in images]
        stacked = batch if self.transforms else np.ascontiguousarray(np.stack(batch))
        return self.item((self.sources, stacked, images, None, ""))

    def __len__(self) -> int:
        return len(self.sources)


class LoadScreenshots:
    """Iterable over images of a screen: `screen [number] [left top width height]`."""

    item: type[tuple[Any, ...]] = tuple
    mode = "stream"

    def __init__(
        self, source: str, img_size: Any = 640, stride: int = 32, auto: bool = True, transforms: Any = None
    ) -> None:
        self.source = source
        self.img_size, self.stride, self.auto, self.transforms = (
            _size(img_size),
            int(stride),
            auto,
            transforms,
        )
        self.count = self.frame = 0
        self._batches = ScreenSource(source).batches()

    def __iter__(self) -> LoadScreenshots:
        return self

    def __next__(self) -> Any:
        (frame,) = next(self._batches)
        self.frame += 1
        text = f"{self.source}: {frame.image.shape[1]}x{frame.image.shape[0]}: "
        return self.item((str(frame.path), _input(self, frame.image), frame.image, None, text))


class LoadWebcam:
    """Iterable over the mirrored images of one camera; ends at the key q."""

    item: type[tuple[Any, ...]] = tuple
    mode = "webcam"

    def __init__(self, pipe: Any = "0", img_size: Any = 640, stride: int = 32) -> None:
        self.pipe = int(pipe) if str(pipe).isdigit() else pipe
        self.img_size, self.stride, self.auto, self.transforms = _size(img_size), int(stride), True, None
        self.cap = cv2.VideoCapture(self.pipe)
        self.count = -1

    def __iter__(self) -> LoadWebcam:
        self.count = -1
        return self

    def __next__(self) -> Any:
        self.count += 1
        ok, image = (False, None) if _quit_pressed() else self.cap.read()
        if not ok or image is None:
            self.cap.release()
            raise StopIteration
        image = cv2.flip(image, 1)
        return self.item(("webcam.jpg", _input(self, image), image, None, f"webcam {self.count}: "))

    def __len__(self) -> int:
        return 0


class DatasetsLoadImages(LoadImages):
    """`LoadImages` of `utils.datasets`, whose items unpack into four names or five."""

    item = FourOrFive


class DatasetsLoadStreams(LoadStreams):
    """`LoadStreams` of `utils.datasets`, whose items unpack into four names or five."""

    item = FourOrFive


class DatasetsLoadWebcam(LoadWebcam):
    """`LoadWebcam` of `utils.datasets`, whose items unpack into four names or five."""

    item = FourOrFive


def _as_list(path: Any) -> Sequence[Any]:
    return path if isinstance(path, list | tuple) else [path]


def _size(img_size: Any) -> Any:
    """Return an image size as whole numbers of Python."""
    return [int(side) for side in img_size] if isinstance(img_size, list | tuple) else int(img_size)


def _find(path: str) -> list[Path]:
    try:
        return find_files(path)[0]
    except ConfigError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except DataError as error:
        raise AssertionError(str(error).removeprefix("--source ")) from None


def _input(loader: Any, image: np.ndarray) -> Any:
    """Letterbox an image (H, W, 3) BGR to (3, h, w) RGB, or apply the transforms of the loader."""
    if loader.transforms:
        return loader.transforms(image)
    boxed = letterbox(image, loader.img_size, stride=loader.stride, auto=loader.auto)[0]
    return np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1))


def _quit_pressed() -> bool:
    with suppress(cv2.error):  # OpenCV without windows
        return cv2.waitKey(1) == ord("q")
    return False


def img2label_paths(img_paths: Sequence[str]) -> list[str]:
    """Return the label file of each image file."""
    from utils.data.image_lists import label_path

    return [str(label_path(Path(path))) for path in img_paths]


def exif_size(img: Any) -> tuple[int, int]:
    """Return (width, height) of a PIL image after its EXIF rotation."""
    rotated = img.getexif().get(274) in (5, 6, 7, 8)
    return img.size[::-1] if rotated else img.size


def exif_transpose(image: Any) -> Any:
    """Return a PIL image rotated as its EXIF data say."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)
