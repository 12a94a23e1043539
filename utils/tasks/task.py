"""What differs between the tasks: detection and segmentation.

Loops, loaders, checkpoints, EMA, resuming, distributed training, callbacks, evolution, comparison, shards
and compiled kernels exist once; they ask the task of a model for the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from utils.base.errors import ConfigError
from utils.base.options import parse_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from torch import Tensor

    from models.yolo import DetectionModel
    from utils.data.dataset import MaskFormat
    from utils.ops.loss import DetectionLoss
    from utils.tasks.segment.prediction import FrameMasks
    from utils.train.train_options import TrainOptions
    from utils.val.evaluate import Evaluator
    from utils.val.val_options import ValOptions


class Task:
    """A task: detection, of which the others are subclasses.

    Attributes:
        name: that of the head's class attribute `task`, and in the metadata of exported files.
        noun: what its models are called in messages.
        scripts: train, val and predict, relative to the project.
        losses: names of the items of the loss.
        metrics: names of the metrics in results.csv.
    """

    name = "detect"
    noun = "detection model"
    scripts = ("train.py", "val.py", "detect.py")
    losses: tuple[str, ...] = ("box_loss", "obj_loss", "cls_loss")
    metrics: tuple[str, ...] = ("precision", "recall", "mAP_0.5", "mAP_0.5:0.95")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of results.csv."""
        return (
            "epoch",
            *(f"train/{name}" for name in self.losses),
            *self.measured,
            *("x/lr0", "x/lr1", "x/lr2"),
        )

    @property
    def measured(self) -> tuple[str, ...]:
        """The columns of results.csv that come from validation."""
        return (*(f"metrics/{name}" for name in self.metrics), *(f"val/{name}" for name in self.losses))

    def train_options(self) -> type[TrainOptions]:
        """Return the class of the options of its train script."""
        from utils.train.train_options import TrainOptions

        return TrainOptions

    def val_options(self) -> type[ValOptions]:
        """Return the class of the options of its val script."""
        from utils.val.val_options import ValOptions

        return ValOptions

    def parse_train_options(self, argv: Sequence[str]) -> TrainOptions:
        """Parse flags of its train script."""
        return parse_options(self.train_options(), argv)

    def make_loss(self, model: DetectionModel, gains: Mapping[str, float], options: Any) -> DetectionLoss:
        """Return the loss of a training with `options` of its train script."""
        from utils.ops.loss import DetectionLoss

        return DetectionLoss(model.head.anchors, model.stride, model.nc, gains)

    def mask_format(self, options: Any, training: bool, ratio: int) -> MaskFormat | None:
        """Return how samples hold masks, in training or for the val script; None for boxes only.

        `ratio` is that of the model: its input is so many times as large as its prototypes.
        """
        return None

    def frame_masks(
        self,
        protos: Tensor | None,
        detections: Tensor,
        input_hw: Sequence[int],
        boxes: np.ndarray,
        image_hw: tuple[int, int],
        options: Any,
    ) -> FrameMasks | None:
        """Return the masks of an image for the predict script; None for boxes only. See `FrameMasks.of`."""
        return None

    def evaluator(self) -> type[Evaluator]:
        """Return the class that evaluates its models."""
        from utils.val.evaluate import Evaluator

        return Evaluator

    def check(self, found: str, file: object, script: str) -> None:
        """Check that a model of task `found` is one of this task.

        Args:
            found: task of the model.
            file: its path, for the message.
            script: the one of `scripts` that runs.

        Raises:
            ConfigError: it is of another task; the message names the script for it.
        """
        if found != self.name:
            other = get_task(found)
            right = other.scripts[self.scripts.index(script)]
            raise ConfigError(f"{file} is a {other.noun}, expected a {self.noun}: use {right}")


_TASKS = {"detect": ("utils.tasks.task", "Task"), "segment": ("utils.tasks.segment.task", "SegmentTask")}


def get_task(name: str) -> Task:
    """Return a task by its name."""
    module, class_name = _TASKS[name]
    task: Task = getattr(import_module(module), class_name)()
    return task
