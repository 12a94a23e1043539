"""What detect.py writes and shows: images, videos, labels, csv, crops, and a window."""

from __future__ import annotations

import csv
import os
import struct
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, ClassVar

import cv2
import numpy as np

from utils.base.errors import DataError, WriteError
from utils.base.log import LOG
from utils.base.names import UniqueNames, safe_name, unique_stems
from utils.base.parallel import WorkerPool
from utils.base.paths import write_bytes
from utils.data.images import is_video
from utils.plots.annotator import (
    WRITABLE_SUFFIXES,
    Annotator,
    colors,
    save_crop,
    write_image,
)
from utils.predict.detect_options import DetectOptions
from utils.sources.frame import Frame

if TYPE_CHECKING:
    from utils.tasks.segment.prediction import FrameMasks

CSV_HEADER = ("Image Name", "Prediction", "Confidence")
MAX_WAITING = 8  # images that may wait to be written


class Window:
    """A window for each file or stream of the source."""

    def __init__(self) -> None:
        self._works = True
        self._opened = False

    def show(self, name: str, image: np.ndarray) -> bool:
        """Show an image; returns False once the user has pressed `q`."""
        if not self._works:
            return True
        try:
            cv2.imshow(name, image)
            self._opened = True
            return cv2.waitKey(1) & 0xFF != ord("q")
        except cv2.error:
            LOG.warning("--view-img: this OpenCV cannot show windows (opencv-python-headless?); continuing")
            self._works = False
            return True

    def close(self) -> None:
        """Close the windows."""
        if self._opened:
            cv2.destroyAllWindows()


class VideoFile:
    """An mp4 file that is written frame by frame; it can be played once it is closed."""

    def __init__(self, path: Path, fps: float, width: int, height: int) -> None:
        self.path = path
        self.size = (width, height)
        self._frames = 0
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, self.size)
        if not self._writer.isOpened():
            raise DataError(f"{path}: OpenCV cannot write this video ({width}x{height}, mp4v)")

    def write(self, image: np.ndarray) -> None:
        """Append a frame (H, W, 3) BGR; resized if its size is not that of the video."""
        if image.shape[1::-1] != self.size:
            image = cv2.resize(image, self.size)
        self._writer.write(image)
        self._frames += 1

    def close(self) -> None:
        """Write the index, without which players cannot open the file.

        Raises:
            WriteError: the file is not complete; OpenCV itself reports nothing when the disk is full.
        """
        self._writer.release()
        if self._frames and not _has_index(self.path):
            self.path.unlink(missing_ok=True)
            raise WriteError(f"{self.path}: could not be written completely; is the disk full?")


def _has_index(path: Path) -> bool:
    """Return whether an mp4 file is complete: its index, without which nothing opens it, is written last."""
    try:
        with path.open("rb") as file:
            size, position = file.seek(0, os.SEEK_END), file.seek(0)
            while len(head := file.read(16)) == 16:
                (length,), kind = struct.unpack_from(">I", head), head[4:8]
                length = struct.unpack_from(">Q", head, 8)[0] if length == 1 else length
                if kind == b"moov" or length < 8:
                    return kind == b"moov" and position + length <= size
                position = file.seek(position + length)
    except OSError:
        pass
    return False


class DetectOutputs:
    """Writer of a run's results; a context manager that closes every file.

    Files of an earlier run with the same names are replaced, never appended to. Files of one run never
    replace each other: results of a second `cat.jpg` are named `cat2`, in all kinds of output. Those of
    `cat.png` beside `cat.jpg` are, too, except its image and its rows of the csv file, which need no number.

    Labels and the csv file are written at once. `workers` write images and crops, a thread of their own
    videos; errors there are raised by a later `write` or at the end of the context. It ends when everything
    is written, also after an exception.

    Args:
        folder: the run folder.
        files: the source's files, in order; results are named after them.
        names: class names by index.
        options: what to save, and how to draw.
        save_images: save images and videos.
        workers: threads for images and videos.
    """

    csv_header: ClassVar[Sequence[str]] = CSV_HEADER

    def __init__(
        self,
        folder: Path,
        files: list[Path],
        names: Mapping[int, str],
        options: DetectOptions,
        save_images: bool,
        workers: WorkerPool,
    ) -> None:
        self.folder = folder
        self.names = names
        self.options = options
        self.save_images = save_images
        self.label_files = 0
        self._stems = _stems_by_kind(files)
        self._image_stems = _image_stems(files, self._stems)
        _log_numbered(files, self._stems if options.save_txt or options.save_crop else self._image_stems)
        self._names = UniqueNames()
        self._video_paths: dict[int, Path] = {}
        self._videos: dict[int, VideoFile] = {}
        self._stack = ExitStack()
        self._table: Any = None
        self._table_file: IO[str] | None = None
        self._workers = workers

    def __enter__(self) -> DetectOutputs:
        if self.options.save_txt:
            (self.folder / "labels").mkdir(parents=True, exist_ok=True)
        if self.options.save_csv:
            path = self.folder / "predictions.csv"
            self._table_file = self._stack.enter_context(path.open("w", newline="", encoding="utf-8"))
            self._table = csv.writer(self._table_file)
            self._table.writerow(self.csv_header)
        self._stack.callback(self._close_videos)
        self._video_jobs = self._stack.enter_context(self._workers.job_queue(MAX_WAITING, ordered=True))
        self._image_jobs = self._stack.enter_context(self._workers.job_queue(MAX_WAITING))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def stem(self, frame: Frame) -> str:
        """Return the stem of the result files of a frame's file or stream."""
        return self._stems[frame.index - 1]

    def image_stem(self, frame: Frame) -> str:
        """Return the stem of the saved image or video of a frame's file or stream."""
        return self._image_stems[frame.index - 1]

    def frame_stem(self, frame: Frame) -> str:
        """Return `stem`, with the number of the frame where there are several."""
        return self.stem(frame) + frame_number(frame)

    def feature_folder(self, frame: Frame) -> Path:
        """Return the folder for feature maps of a frame."""
        return self.folder / self.frame_stem(frame)

    def write(self, frame: Frame, rows: np.ndarray, masks: FrameMasks | None = None) -> np.ndarray:
        """Write one frame's results.

        Args:
            frame: boxes are drawn into its `image`.
            rows: (n, 6) detections in whole pixels of `image`, the most confident first.
            masks: of these detections, from a segmentation model.

        Returns:
            The image; with --view-img the boxes are drawn already, else a thread may draw them later.
        """
        if self.options.save_txt:
            self._write_labels(frame, rows, masks)
        if self._table is not None:
            self._write_table(frame, rows)
        crops = self._crop_paths(frame, rows) if self.options.save_crop else []
        path = self._image_path(frame) if self.save_images else None
        shown = self.options.view_img
        if shown:
            self._crop_and_draw(frame, rows, masks, crops, draw=True)
        if path or (crops and not shown):
            jobs = self._image_jobs if frame.kind == "image" else self._video_jobs
            left = [] if shown else crops
            jobs.put(partial(self._write_image, frame, rows, masks, left, path, draw=not shown))
        return frame.image

    def _write_image(
        self,
        frame: Frame,
        rows: np.ndarray,
        masks: FrameMasks | None,
        crops: list[Path],
        path: Path | None,
        draw: bool,
    ) -> None:
        """Write crops, draw boxes, and write the image or append it to its video, in a thread."""
        self._crop_and_draw(frame, rows, masks, crops, draw and path is not None)
        if path is None:
            return
        if frame.kind == "image":
            write_image(path, frame.image)
        else:
            self._video(frame, path).write(frame.image)

    def _crop_and_draw(
        self, frame: Frame, rows: np.ndarray, masks: FrameMasks | None, crops: list[Path], draw: bool
    ) -> None:
        """Write crops, if they have paths, then draw masks and boxes into the image they were cut from."""
        for row, path in zip(rows[::-1], crops, strict=False):
            save_crop(row[:4], frame.image, path)
        if draw:
            if masks is not None:
                tints = [colors(int(row[5]), bgr=True) for row in rows]
                masks.blend(frame.image, tints)
            self._draw(frame.image, rows)

    def _write_labels(self, frame: Frame, rows: np.ndarray, masks: FrameMasks | None) -> None:
        path = self._names.unique_path(self.folder / "labels" / f"{self.frame_stem(frame)}.txt")
        corners, confidence = self.options.save_format == 1, self.options.save_conf
        if masks is None:
            lines = label_lines(rows, frame.image.shape[:2], corners, confidence)
        else:
            lines = polygon_lines(rows, masks.polygons(), confidence)
        if not lines:
            path.unlink(missing_ok=True)  # of an earlier run
            return
        write_bytes(path, "".join(lines).encode())
        self.label_files += 1

    def _write_table(self, frame: Frame, rows: np.ndarray) -> None:
        name = f"{self.image_stem(frame)}{frame.path.suffix}"
        for row in rows[::-1]:
            self._table.writerow((name, self.name(row[5]), f"{row[4]:.2f}"))
        if self._table_file is not None:
            self._table_file.flush()

    def _crop_paths(self, frame: Frame, rows: np.ndarray) -> list[Path]:
        """Return a path for each crop, the least confident first."""
        folders = [self.folder / "crops" / safe_name(self.name(row[5])) for row in rows[::-1]]
        return [self._names.unique_path(folder / f"{self.stem(frame)}.jpg") for folder in folders]

    def _draw(self, image: np.ndarray, rows: np.ndarray) -> None:
        annotator = Annotator(image, self.options.line_thickness)
        for row in rows[::-1]:
            label = "" if self.options.hide_labels else self.name(row[5])
            if label and not self.options.hide_conf:
                label += f" {row[4]:.2f}"
            annotator.box_label(row[:4], label, colors(int(row[5]), bgr=True))

    def _image_path(self, frame: Frame) -> Path:
        """Return the path for an image, or for the video that a frame belongs to."""
        if frame.kind == "image":
            name = f"{self.image_stem(frame)}{_written_suffix(frame.path)}"
            return self._names.unique_path(self.folder / name)
        if frame.index not in self._video_paths:
            path = self.folder / f"{self.image_stem(frame)}.mp4"
            self._video_paths[frame.index] = self._names.unique_path(path)
        return self._video_paths[frame.index]

    def _video(self, frame: Frame, path: Path) -> VideoFile:
        if frame.index not in self._videos:
            if frame.kind == "video":  # read one after another, unlike streams
                self._close_videos()
            height, width = frame.image.shape[:2]
            self._videos[frame.index] = VideoFile(path, frame.fps, width, height)
        return self._videos[frame.index]

    def _close_videos(self) -> None:
        with ExitStack() as stack:  # closes all, also after an error
            while self._videos:
                stack.callback(self._videos.popitem()[1].close)

    def name(self, index: float) -> str:
        """Return the name of a class, or its index if it has none."""
        return str(self.names.get(int(index), int(index)))


def frame_number(frame: Frame) -> str:
    """Return what is appended to the stem of a video or stream for one of its frames, such as `_12`."""
    return "" if frame.kind == "image" else f"_{frame.frame_number}"


def label_lines(rows: np.ndarray, shape_hw: tuple[int, int], corners: bool, confidence: bool) -> list[str]:
    """Return lines of a label file, the least confident first: class, box as fractions, and confidence.

    Args:
        rows: (n, 6) x1, y1, x2, y2 in pixels, confidence, class.
        shape_hw: height and width of the image in pixels.
        corners: write boxes as x1 y1 x2 y2, else as centre and size.
        confidence: append the confidence.
    """
    height, width = shape_hw
    lines = []
    for x1, y1, x2, y2, score, index in rows[::-1].astype(float):
        if corners:
            box = (x1 / width, y1 / height, x2 / width, y2 / height)
        else:
            box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        values = (index, *box, score) if confidence else (index, *box)
        lines.append(" ".join(f"{value:g}" for value in values) + "\n")
    return lines


def polygon_lines(rows: np.ndarray, polygons: Sequence[np.ndarray], confidence: bool) -> list[str]:
    """Return lines of a label file, the least confident first: class, polygon as fractions, and confidence.

    Args:
        rows: (n, 6) x1, y1, x2, y2, confidence, class.
        polygons: (k, 2) of each row; rows without points have no line.
        confidence: append the confidence.
    """
    lines = []
    for row, points in zip(rows[::-1].tolist(), reversed(polygons), strict=True):
        if len(points):
            values = [row[5], *points.ravel().tolist(), *([row[4]] if confidence else [])]
            lines.append(" ".join(f"{value:g}" for value in values) + "\n")
    return lines


def _stems_by_kind(files: list[Path]) -> list[str]:
    """Return unique stems; an image and a video may share one, as their suffixes differ."""
    videos = {index for index, file in enumerate(files) if is_video(file)}
    stems = [""] * len(files)
    for group in ([i for i in range(len(files)) if i not in videos], sorted(videos)):
        for index, stem in zip(group, unique_stems([files[i] for i in group]), strict=True):
            stems[index] = stem
    return stems


def _image_stems(files: list[Path], stems: list[str]) -> list[str]:
    """Return stems for images and videos: that of the file, or of its other results if the name is taken."""
    taken: set[str] = set()
    chosen = []
    for file, stem in zip(files, stems, strict=True):
        name = os.path.normcase(f"{file.stem}{'.mp4' if is_video(file) else _written_suffix(file)}")
        chosen.append(stem if name in taken else file.stem)
        taken.add(name)
    return chosen


def _written_suffix(file: Path) -> str:
    """Return the suffix that an image is saved with; formats such as dng, mpo and pfm can only be read."""
    return file.suffix if file.suffix.lower() in WRITABLE_SUFFIXES else ".jpg"


def _log_numbered(files: list[Path], stems: list[str]) -> None:
    renamed = [file for file, stem in zip(files, stems, strict=True) if file.stem != stem]
    if renamed:
        LOG.info(f"{len(renamed)} files share their names with others; their results get a number")
