"""What differs between the tasks: detection, segmentation and classification.

Loops, loaders, checkpoints, EMA, resuming, distributed training, callbacks, evolution, comparison, shards
and compiled kernels exist once; they ask the task of a model for the rest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.base.options import parse_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from torch import Tensor

    from models.backends.base import Backend
    from models.weights import Checkpoint
    from utils.data.dataset import MaskFormat
    from utils.data.dataset_yaml import DataSpec
    from utils.data.loader import Samples
    from utils.loggers.callbacks import Callbacks
    from utils.predict.predictor import Predictor
    from utils.train.genes import Gene
    from utils.train.loss_meter import RowStyle
    from utils.train.train_options import TrainOptions
    from utils.val.evaluate import Evaluator
    from utils.val.val_options import ValOptions


MIN_STRIDE = 32  # image sizes are multiples of it even where a model would take smaller steps


class Task:
    """A task: detection, of which the others are subclasses.

    Attributes:
        name: that of the head's class attribute `task`, and in the metadata of exported files.
        noun: what its models are called in messages.
        scripts: train, val and predict, relative to the project.
        losses: names of the items of the loss.
        metrics: names of the metrics in results.csv.
        rates: names of the learning rates in results.csv.
        nominal_batch: images for each optimizer step, by accumulating gradients; None: those of a batch.
        score_names: what an evolution logs of each candidate.
        draws_boxes: whether its predictions are boxes.
        split_noun: what a split is in its datasets, for messages.
        default_imgsz: longer side of the input by default, pixels.
    """

    name = "detect"
    noun = "detection model"
    scripts = ("train.py", "val.py", "detect.py")
    losses: tuple[str, ...] = ("box_loss", "obj_loss", "cls_loss")
    metrics: tuple[str, ...] = ("precision", "recall", "mAP_0.5", "mAP_0.5:0.95")
    rates: tuple[str, ...] = ("x/lr0", "x/lr1", "x/lr2")
    nominal_batch: int | None = 64
    score_names: tuple[str, ...] = ("mAP50", "mAP50-95")
    draws_boxes: bool = True
    split_noun = "key"
    default_imgsz = 640

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of results.csv."""
        return (
            "epoch",
            *(f"train/{name}" for name in self.losses),
            *self.measured,
            *self.rates,
        )

    @property
    def measured(self) -> tuple[str, ...]:
        """The columns of results.csv that come from validation."""
        return (*(f"metrics/{name}" for name in self.metrics), *(f"val/{name}" for name in self.losses))

    @property
    def row_style(self) -> RowStyle:
        """How the console shows the progress of an epoch."""
        from utils.train.loss_meter import RowStyle

        return RowStyle(self.losses)

    def describe_start(self, options: Any, data: DataSpec) -> str:
        """Return the line before the first epoch."""
        return f"Starting training for {options.epochs} epochs..."

    def describe_end(self, options: Any, best: Path) -> str:
        """Return the lines after the last epoch, with what can be done next; may be empty."""
        return ""

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

    def read_hyp(self, options: Any) -> dict[str, float]:
        """Return the hyperparameters of a training."""
        from utils.train.hyp import load_hyp

        return load_hyp(options.hyp, options.label_smoothing)

    def check_hyp(self, content: Mapping[str, Any], where: str, options: Any) -> dict[str, float]:
        """Check hyperparameters, which are from `where`; missing ones get the defaults of a training."""
        from utils.train.hyp import check_hyp

        return check_hyp(content, where)

    def genes(self) -> dict[str, Gene]:
        """Return the ranges in which an evolution searches for hyperparameters."""
        from utils.train.genes import GENES

        return GENES

    def scores(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Return the numbers that an evolution logs, with their names, from columns of results.csv.

        The population search ranks candidates by the first one.
        """
        columns = [f"metrics/{name}" for name in Task.metrics[2:]]
        return {
            name: sum(value for key, value in metrics.items() if key.partition("(")[0] == column)
            for name, column in zip(self.score_names, columns, strict=True)
        }

    def fitness(self, metrics: Mapping[str, float]) -> float:
        """Return the number by which the genetic search ranks candidates, as training ranks epochs."""
        from utils.ops.precision import fitness

        return fitness(*self.scores(metrics).values())

    def scale_hyp(self, hyp: dict[str, float], model: Any, imgsz: int) -> dict[str, float]:
        """Return hyperparameters that are scaled for a model and image size."""
        from utils.train.hyp import scale_gains

        return scale_gains(hyp, levels=model.head.nl, nc=model.nc, imgsz=imgsz)

    def read_data(self, options: Any) -> DataSpec:
        """Return the dataset of a training."""
        data = self.read_val_data(options)
        if options.single_cls and data.nc != 1:
            data.names, data.nc = {0: "item"}, 1
        return data

    def read_val_data(self, options: Any) -> DataSpec:
        """Return the dataset of the val script, with all of its classes."""
        from utils.data.dataset_yaml import read_data_yaml

        return read_data_yaml(options.data, allow_download=options.download)

    def config_of_weights(self, options: Any, checkpoint: Checkpoint | None) -> dict[str, Any]:
        """Return the yaml of the model that the initial weights are of."""
        assert checkpoint is not None  # the options require --weights or --cfg
        return checkpoint.yaml

    def model_config(self, options: Any, config: dict[str, Any]) -> dict[str, Any]:
        """Return the yaml of the model to train, from that of --cfg or --weights."""
        return config

    def initial_weights(self, options: Any) -> str:
        """Return the file or official name of the initial weights; empty to train from scratch."""
        return str(options.weights)

    def uses_weights(self, options: Any) -> bool:
        """Return whether the tensors of the initial weights are loaded, not only their architecture."""
        return True

    def prepare_model(self, model: Any, options: Any) -> None:
        """Change a model that has its initial weights, as the options say."""

    def size_for(self, trained: int | None) -> int:
        """Return the default image size of a model; `trained` is that of its training, if known."""
        return self.default_imgsz

    def image_size(self, options: Any, stride: int) -> tuple[int, int]:
        """Return the image size of a training, a multiple of the stride, and the stride."""
        from utils.data.letterbox import check_img_size

        stride = max(stride, MIN_STRIDE)
        return check_img_size(options.imgsz, stride, floor=stride * 2), stride

    def make_datasets(
        self, options: Any, hyp: Mapping[str, float], data: DataSpec, model: Any, imgsz: int, stride: int
    ) -> tuple[Samples, Samples]:
        """Return the datasets for training and for validation."""
        from utils.data.dataset import DetectionDataset

        common: dict[str, Any] = {
            "stride": stride, "single_cls": options.single_cls, "seed": options.seed, "names": data.names,
            "root": data.root, "masks": self.mask_format(options, training=True, ratio=model.head.mask_ratio),
        }  # fmt: skip
        train_set = DetectionDataset(
            data.train,
            imgsz,
            batch_size=options.batch_size,
            augment=True,
            hyp=hyp,
            rect=options.rect,
            cache=None if options.cache == "val" else options.cache,
            fast_decode=options.fast_decode,
            prefix="train: ",
            **common,
        )
        val_set = DetectionDataset(
            data.val,
            imgsz,
            batch_size=min(options.batch_size, len(train_set)) * 2,
            rect=True,
            cache=None if options.noval else "ram" if options.cache == "val" else options.cache,
            pad=0.5,
            prefix="val: ",
            **common,
        )
        return train_set, val_set

    def names_of(self, backend: Backend, data: DataSpec) -> dict[int, str]:
        """Return the names of the classes that the val script measures."""
        return data.names

    def check_classes(self, backend: Backend, data: DataSpec, options: Any) -> None:
        """Check that model and dataset have the same classes; other names for them give a warning only.

        Raises:
            ConfigError: they have other numbers of classes.
        """
        if options.single_cls:
            return
        if backend.nc != data.nc:
            raise ConfigError(
                f"--weights {' '.join(options.weights)} has {backend.nc} classes, "
                f"--data {options.data} has {data.nc}: give the dataset it was trained on, or --single-cls"
            )
        if backend.names != data.names:
            index = next(i for i in data.names if backend.names.get(i) != data.names[i])
            LOG.warning(
                f"class {index} is {backend.names.get(index)} in the weights, {data.names[index]} in --data"
            )

    def make_val_dataset(self, options: Any, split: str, data: DataSpec, backend: Backend) -> Samples:
        """Return the dataset of a split for the val script.

        PyTorch models get the smallest rectangles with a margin of half a stride; other backends, and speed
        tests, get squares.
        """
        from utils.data.dataset import DetectionDataset
        from utils.data.letterbox import check_img_size

        imgsz = check_img_size(options.imgsz, stride=backend.stride)
        assert isinstance(imgsz, int)
        rect = backend.pt and options.task != "speed"
        return DetectionDataset(
            getattr(data, split),
            imgsz,
            batch_size=options.batch_size,
            stride=backend.stride,
            rect=rect,
            pad=0.5 if rect else 0.0,
            single_cls=options.single_cls,
            names=data.names,
            masks=self.mask_format(options, False, backend.mask_ratio),
            root=data.root,
            prefix=f"{split}: ",
        )

    def normalize(self, images: Tensor) -> Tensor:
        """Return images (B, 3, H, W) in 0-1 as the model takes them; in place."""
        return images

    def plots(self) -> Callbacks:
        """Return the callback that draws the plots of a training."""
        from utils.loggers.callbacks import PlotLogger

        return PlotLogger()

    def make_loss(self, model: Any, gains: Mapping[str, float], options: Any) -> Any:
        """Return the loss of a training with `options` of its train script."""
        from utils.ops.loss import DetectionLoss

        return DetectionLoss(model.head.anchors, model.stride, model.nc, gains)

    def mask_format(self, options: Any, training: bool, ratio: int) -> MaskFormat | None:
        """Return how samples hold masks, in training or for the val script; None for boxes only.

        `ratio` is that of the model: its input is so many times as large as its prototypes.
        """
        return None

    def export_size(self, imgsz: tuple[int, int], stride: int) -> tuple[int, int]:
        """Return (height, width) of the input of an exported file, from --imgsz."""
        from utils.data.letterbox import check_img_size

        height, width = check_img_size(imgsz, stride=stride)
        return height, width

    def prepare_image(self, image: np.ndarray, size_hw: tuple[int, int]) -> Tensor:
        """Return an image (H, W, 3) uint8 BGR as its models take it, (1, 3, h, w) on the CPU."""
        from utils.data.letterbox import prepare_image

        return prepare_image(image, size_hw)

    def visible_part(self, image: np.ndarray) -> np.ndarray:
        """Return the part of an image (H, W, 3) that its models see."""
        return image

    def count_images(self, data: DataSpec) -> int:
        """Count the usable training images; all are read and checked."""
        from utils.data.scan import load_labels

        return len(load_labels(data.train, prefix="train: ", root=data.root).images)

    def training_images(self, data: str) -> Sequence[Path]:
        """Return the training images of a dataset that are files; shards are left out."""
        from utils.data.coco_source import image_paths
        from utils.data.dataset_yaml import read_data_yaml
        from utils.data.image_lists import list_images

        spec = read_data_yaml(data)
        sources = image_paths(spec.train)
        return list_images(sources, spec.root) if sources else []

    def read_names(self, data: str) -> dict[int, str] | None:
        """Return the class names of --data of the predict script, for models that hold none."""
        from models.backends.metadata import read_class_names

        return read_class_names(data)

    def shown_names(self, names: dict[int, str]) -> dict[int, str]:
        """Return class names as they are shown with predictions."""
        return names

    def predictor(self) -> type[Predictor]:
        """Return the class that runs the predict script on frames."""
        from utils.predict.predictor import Predictor

        return Predictor

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


_TASKS = {
    "detect": ("utils.tasks.task", "Task"),
    "segment": ("utils.tasks.segment.task", "SegmentTask"),
    "classify": ("utils.tasks.classify.task", "ClassifyTask"),
}


def get_task(name: str) -> Task:
    """Return a task by its name."""
    module, class_name = _TASKS[name]
    task: Task = getattr(import_module(module), class_name)()
    return task
