"""Write event files that TensorBoard shows, with its own package alone: torch is not needed for it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from PIL import Image

from utils.loggers.service_logger import ServiceLogger


class TensorBoardLogger(ServiceLogger):
    """Figures as scalars, images as images, options as text, all in the run folder."""

    key = "tensorboard"
    rewinds = True
    fresh = True  # no epoch has begun

    def begin(self) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.event, self.summary = event_pb2, summary_pb2
        self.writer = EventFileWriter(str(self.folder))
        if not self.options["resume"]:
            options = json.dumps(self.flat, indent=1)
            self._write(0, text_pb("options", f"```\n{options}\n```"))

    def on_train_epoch_start(self, epoch: int) -> None:
        if self.fresh:  # what earlier files of this folder have from here on does not count any more
            self.fresh = False
            session = self.event.SessionLog(status=self.event.SessionLog.START)
            self.writer.add_event(self.event.Event(wall_time=time.time(), step=epoch, session_log=session))

    def log_row(self, epoch: int, row: dict[str, float]) -> None:
        values = [self.summary.Summary.Value(tag=name, simple_value=value) for name, value in row.items()]
        self._write(epoch, self.summary.Summary(value=values))

    def log_result(self, epoch: int, row: dict[str, float]) -> None:
        self.log_row(epoch, row)

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        with Image.open(path) as opened:
            width, height = opened.size
        image = self.summary.Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes()
        )
        self._write(epoch, self.summary.Summary(value=[self.summary.Summary.Value(tag=name, image=image)]))

    def finish(self, done: bool) -> None:
        self.writer.close()

    def _write(self, step: int, summary: Any) -> None:
        self.writer.add_event(self.event.Event(wall_time=time.time(), step=step, summary=summary))
        self.writer.flush()
