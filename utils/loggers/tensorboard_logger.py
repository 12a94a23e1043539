"""Log a run to TensorBoard event files, with the package tensorboard alone, without torch."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from PIL import Image

from utils.loggers.service_logger import ServiceLogger


class TensorBoardLogger(ServiceLogger):
    """TensorBoard event files in the run folder: metrics as scalars, images, options as text."""

    key = "tensorboard"
    overwrites_steps = True
    first_epoch = True

    def start(self) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.plugins.text.summary_v2 import text_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self.event, self.summary = event_pb2, summary_pb2
        self.writer = EventFileWriter(str(self.folder))
        if not self.options["resume"]:
            options = json.dumps(self.parameters, indent=1)
            self._write(0, text_pb("options", f"```\n{options}\n```"))

    def on_train_epoch_start(self, epoch: int) -> None:
        if self.first_epoch:  # discards later steps in earlier event files of this folder
            self.first_epoch = False
            session = self.event.SessionLog(status=self.event.SessionLog.START)
            self.writer.add_event(self.event.Event(wall_time=time.time(), step=epoch, session_log=session))

    def log_metrics(self, epoch: int, metrics: dict[str, float]) -> None:
        values = [self.summary.Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._write(epoch, self.summary.Summary(value=values))

    def log_final_metrics(self, epoch: int, metrics: dict[str, float]) -> None:
        self.log_metrics(epoch, metrics)

    def log_image(self, name: str, path: Path, epoch: int) -> None:
        with Image.open(path) as opened:
            width, height = opened.size
        image = self.summary.Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes()
        )
        self._write(epoch, self.summary.Summary(value=[self.summary.Summary.Value(tag=name, image=image)]))

    def finish(self, completed: bool) -> None:
        self.writer.close()

    def _write(self, step: int, summary: Any) -> None:
        self.writer.add_event(self.event.Event(wall_time=time.time(), step=step, summary=summary))
        self.writer.flush()
