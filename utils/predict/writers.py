"""The files of a detection run: pictures, videos, labels, a table, crops."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import cv2
import numpy as np

from utils.base.errors import DataError
from utils.base.log import LOG
from utils.data.frames import Frame
from utils.data.source_files import is_video
from utils.plots.annotator import Annotator, colors, save_crop
from utils.plots.picture import WRITABLE_SUFFIXES, write_picture
from utils.predict.names import Claims, unique_stems
from utils.predict.options import Options

CSV_HEADER = ("Image Name", "Prediction", "Confidence")


class VideoFile:
    """An mp4 file that grows frame by frame; playable once it is closed."""

    def __init__(self, path: Path, fps: float, width: int, height: int) -> None:
        self.size = (width, height)
        self._writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, self.size)
        if not self._writer.isOpened():
            raise DataError(f"{path}: OpenCV cannot write this video ({width}x{height}, mp4v)")

    def write(self, image: np.ndarray) -> None:
        """Append a frame; one of another size (a camera that changed) is resized."""
        if image.shape[1::-1] != self.size:
            image = cv2.resize(image, self.size)
        self._writer.write(image)

    def close(self) -> None:
        """Write the index without which no player opens the file."""
        self._writer.release()


class Outputs:
    """Write what `options` ask for into `folder`; a context manager that closes every file.

    Files of an earlier run with the same names are replaced, never appended to. Files of this run never
    replace each other: the second `cat.jpg` becomes `cat2.jpg`, in all kinds of output.
    """

    def __init__(
        self,
        folder: Path,
        files: list[Path],
        names: Mapping[int, str],
        options: Options,
        save_pictures: bool,
    ) -> None:
        self.folder = folder
        self.names = names
        self.options = options
        self.save_pictures = save_pictures
        self.label_files = 0
        self._stems = _stems_by_kind(files)
        self._claims = Claims()
        self._videos: dict[int, VideoFile] = {}
        self._stack = ExitStack()
        self._table: Any = None
        self._table_file: IO[str] | None = None

    def __enter__(self) -> Outputs:
        if self.options.save_txt:
            (self.folder / "labels").mkdir(parents=True, exist_ok=True)
        if self.options.save_csv:
            path = self.folder / "predictions.csv"
            self._table_file = self._stack.enter_context(path.open("w", newline="", encoding="utf-8"))
            self._table = csv.writer(self._table_file)
            self._table.writerow(CSV_HEADER)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._close_videos()
        finally:
            self._stack.close()

    def stem(self, frame: Frame) -> str:
        """What the files of this frame's source are called in this run."""
        return self._stems[frame.index - 1]

    def frame_stem(self, frame: Frame) -> str:
        """The same with the number of the frame, where there is more than one."""
        number = "" if frame.kind == "image" else f"_{frame.frame_number}"
        return self.stem(frame) + number

    def write(self, frame: Frame, rows: np.ndarray) -> np.ndarray:
        """Write one frame's results.

        Args:
            frame: what was looked at; boxes are drawn into its `original`.
            rows: (n, 6) detections in whole pixels of `original`, the most confident first.

        Returns:
            The picture, with boxes if somebody is going to see it.
        """
        if self.options.save_txt:
            self._write_labels(frame, rows)
        if self._table is not None:
            self._write_table(frame, rows)
        if self.options.save_crop:
            self._write_crops(frame, rows)  # before boxes are drawn
        if self.save_pictures or self.options.view_img:
            self._draw(frame.original, rows)
        if self.save_pictures:
            self._write_picture(frame)
        return frame.original

    def _write_labels(self, frame: Frame, rows: np.ndarray) -> None:
        path = self._claims.claim_path(self.folder / "labels" / f"{self.frame_stem(frame)}.txt")
        if not len(rows):
            path.unlink(missing_ok=True)  # of an earlier run
            return
        corners = self.options.save_format == 1
        lines = label_lines(rows, frame.original.shape[:2], corners, self.options.save_conf)
        path.write_text("".join(lines), encoding="utf-8")
        self.label_files += 1

    def _write_table(self, frame: Frame, rows: np.ndarray) -> None:
        name = f"{self.stem(frame)}{frame.path.suffix}"
        for row in rows[::-1]:
            self._table.writerow((name, self.name(row[5]), f"{row[4]:.2f}"))
        if self._table_file is not None:
            self._table_file.flush()

    def _write_crops(self, frame: Frame, rows: np.ndarray) -> None:
        for row in rows[::-1]:
            folder = self.folder / "crops" / _file_name(self.name(row[5]))
            save_crop(row[:4], frame.original, self._claims.claim_path(folder / f"{self.stem(frame)}.jpg"))

    def _draw(self, image: np.ndarray, rows: np.ndarray) -> None:
        pen = Annotator(image, self.options.line_thickness)
        for row in rows[::-1]:
            label = "" if self.options.hide_labels else self.name(row[5])
            if label and not self.options.hide_conf:
                label += f" {row[4]:.2f}"
            pen.box_label(row[:4], label, colors(int(row[5]), bgr=True))

    def _write_picture(self, frame: Frame) -> None:
        if frame.kind != "image":
            self._video(frame).write(frame.original)
            return
        suffix = frame.path.suffix
        if suffix.lower() not in WRITABLE_SUFFIXES:  # dng, mpo, pfm can be read only
            suffix = ".jpg"
        path = self._claims.claim_path(self.folder / f"{self.stem(frame)}{suffix}")
        write_picture(path, frame.original)

    def _video(self, frame: Frame) -> VideoFile:
        if frame.index not in self._videos:
            if frame.kind == "video":  # one after another; streams stay open side by side
                self._close_videos()
            height, width = frame.original.shape[:2]
            path = self._claims.claim_path(self.folder / f"{self.stem(frame)}.mp4")
            self._videos[frame.index] = VideoFile(path, frame.fps, width, height)
        return self._videos[frame.index]

    def _close_videos(self) -> None:
        while self._videos:
            self._videos.popitem()[1].close()

    def name(self, kind: float) -> str:
        """A class's name, or its number if it has none."""
        return str(self.names.get(int(kind), int(kind)))


def label_lines(rows: np.ndarray, shape_hw: tuple[int, int], corners: bool, confidence: bool) -> list[str]:
    """Lines of a label file, the least confident first: class, four fractions, and the confidence if asked.

    Args:
        rows: (n, 6) x1, y1, x2, y2 in pixels, confidence, class.
        shape_hw: size of the picture.
        corners: fractions are x1 y1 x2 y2, else centre and size.
        confidence: append it.
    """
    height, width = shape_hw
    lines = []
    for x1, y1, x2, y2, score, kind in rows[::-1].astype(float):
        if corners:
            box = (x1 / width, y1 / height, x2 / width, y2 / height)
        else:
            box = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        values = (kind, *box, score) if confidence else (kind, *box)
        lines.append(" ".join(f"{value:g}" for value in values) + "\n")
    return lines


def _stems_by_kind(files: list[Path]) -> list[str]:
    """Unique stems; pictures and videos may share one, their files end differently anyway."""
    videos = {index for index, file in enumerate(files) if is_video(file)}
    stems = [""] * len(files)
    for group in ([i for i in range(len(files)) if i not in videos], sorted(videos)):
        for index, stem in zip(group, unique_stems([files[i] for i in group]), strict=True):
            stems[index] = stem
    renamed = [file for file, stem in zip(files, stems, strict=True) if file.stem != stem]
    if renamed:
        LOG.info(f"{len(renamed)} files share their names with others, their results end in a number")
    return stems


def _file_name(name: str) -> str:
    """A class's name as the name of a folder."""
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name).strip(". ") or "unnamed"
