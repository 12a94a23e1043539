"""The classification task: a class for each image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from models.van_weights import classifier_config
from models.yolo import cut_config, task_of
from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.base.paths import relative_to_cwd
from utils.data.class_folders import load_split, read_class_data
from utils.data.image_lists import list_images
from utils.data.letterbox import to_tensor
from utils.tasks.classify import hyp, transforms
from utils.tasks.classify.dataset import ClassificationDataset
from utils.tasks.classify.sizes import check_size, check_training_size
from utils.tasks.classify.top import shown_names
from utils.tasks.task import Task

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from torch import Tensor

    from models.backends.base import Backend
    from models.weights import Checkpoint
    from utils.data.dataset_yaml import DataSpec
    from utils.loggers.callbacks import Callbacks
    from utils.tasks.classify.loss import ClassificationLoss
    from utils.tasks.classify.options import ClassifyTrainOptions, ClassifyValOptions
    from utils.tasks.classify.prediction import ClassifyPredictor
    from utils.tasks.classify.validation import ClassifyEvaluator
    from utils.train.genes import Gene
    from utils.train.loss_meter import RowStyle

CUTOFF = 10  # layers of a detector that YOLOv5 keeps


class ClassifyTask(Task):
    """Image classification: the columns, flags and numbers of YOLOv5's classify/*.py."""

    name = "classify"
    noun = "classification model"
    scripts = ("classify/train.py", "classify/val.py", "classify/predict.py")
    losses = ("loss",)
    metrics = ("accuracy_top1", "accuracy_top5")
    rates = ("lr/0",)
    score_names = ("top-1", "top-5")
    nominal_batch = None
    draws_boxes = False
    split_noun = "folder"
    default_imgsz = 224

    @property
    def measured(self) -> tuple[str, ...]:
        return ("val/loss", *(f"metrics/{name}" for name in self.metrics))

    @property
    def row_style(self) -> RowStyle:
        from utils.train.loss_meter import RowStyle

        return RowStyle(("train_loss",), first_epoch=1, instances=False)

    def describe_start(self, options: Any, data: DataSpec) -> str:
        model = options.cfg or options.weights
        where = relative_to_cwd(data.yaml)
        return f"Starting {model} training on {where} with {data.nc} classes for {options.epochs} epochs..."

    def describe_end(self, options: Any, best: Path) -> str:
        flags = f"--weights {relative_to_cwd(best)} --imgsz {options.imgsz}"
        return (
            f"Predict:     python classify/predict.py {flags} --source image.jpg\n"
            f"Validate:    python classify/val.py {flags} --data {options.data}\n"
            f"Export:      python export.py {flags} --include onnx\n"
            f"PyTorch Hub: torch.hub.load('.', 'custom', '{relative_to_cwd(best)}', source='local')"
        )

    def train_options(self) -> type[ClassifyTrainOptions]:
        from utils.tasks.classify.options import ClassifyTrainOptions

        return ClassifyTrainOptions

    def val_options(self) -> type[ClassifyValOptions]:
        from utils.tasks.classify.options import ClassifyValOptions

        return ClassifyValOptions

    def read_hyp(self, options: Any) -> dict[str, float]:
        return hyp.read_hyp(options)

    def check_hyp(self, content: Mapping[str, Any], where: str, options: Any) -> dict[str, float]:
        return hyp.check(content, where, options)

    def genes(self) -> dict[str, Gene]:
        return hyp.GENES

    def scores(self, metrics: Mapping[str, float]) -> dict[str, float]:
        columns = [f"metrics/{name}" for name in self.metrics]
        names = zip(self.score_names, columns, strict=True)
        return {name: metrics.get(column, 0.0) for name, column in names}

    def fitness(self, metrics: Mapping[str, float]) -> float:
        """Return top-1."""
        top1, _ = self.scores(metrics).values()
        return top1

    def read_data(self, options: Any) -> DataSpec:
        data = read_class_data(options.data, allow_download=options.download)
        if data.nc < 2:  # trained as in the original
            LOG.warning(f"--data {options.data}: has one class, {data.names[0]}; there is nothing to learn")
        return data

    def read_val_data(self, options: Any) -> DataSpec:
        return read_class_data(options.data, allow_download=options.download)

    def model_config(self, options: Any, config: dict[str, Any]) -> dict[str, Any]:
        """Return the yaml of a classifier: that of a detector is cut at --cutoff."""
        if task_of(config) == self.name:
            if options.cutoff:
                raise ConfigError("--cutoff is for detectors, and --model is a classifier: leave it out")
            return config
        if not options.cutoff and (van := classifier_config(config)) is not None:
            return van
        name = str(config.get("yaml_file", "the detector"))
        return cut_config(config, options.cutoff or CUTOFF, name)

    def initial_weights(self, options: Any) -> str:
        return "" if torchvision_name(options) else str(options.weights)

    def config_of_weights(self, options: Any, checkpoint: Checkpoint | None) -> dict[str, Any]:
        if name := torchvision_name(options):
            row = [-1, 1, "TorchVision", ["nc", name]]
            return {"nc": 1000, "backbone": [], "head": [row], "yaml_file": f"{name}.yaml"}
        return super().config_of_weights(options, checkpoint)

    def uses_weights(self, options: Any) -> bool:
        return bool(options.pretrained)

    def prepare_model(self, model: Any, options: Any) -> None:
        """Load the weights of a torchvision model, and set the dropout."""
        if (name := torchvision_name(options)) and options.pretrained and not options.resume:
            load_torchvision_weights(model, name)
        for module in model.modules():
            if isinstance(module, nn.Dropout) and options.dropout is not None:
                module.p = options.dropout

    def scale_hyp(self, hyp: dict[str, float], model: Any, imgsz: int) -> dict[str, float]:
        return hyp

    def make_loss(self, model: Any, gains: Any, options: Any) -> ClassificationLoss:
        from utils.tasks.classify.loss import ClassificationLoss

        return ClassificationLoss(gains["label_smoothing"])

    def normalize(self, images: Tensor) -> Tensor:
        return transforms.normalize(images)

    def size_for(self, trained: int | None) -> int:
        """Return the size of the training: at others a classifier is much less accurate."""
        return trained or self.default_imgsz

    def image_size(self, options: Any, stride: int) -> tuple[int, int]:
        """Return the image size, which may be any, and the stride."""
        return options.imgsz, stride

    def make_datasets(
        self, options: Any, hyp: Mapping[str, float], data: DataSpec, model: Any, imgsz: int, stride: int
    ) -> tuple[ClassificationDataset, ClassificationDataset]:
        sets = []
        for split in ("train", "val"):
            training = split == "train"
            cache = "ram" if options.cache == "val" and not training else options.cache
            unused = options.noval and not training or options.cache == "val" and training
            sets.append(
                ClassificationDataset(
                    load_split(data, split, data.names, complete=training, prefix=f"{split}: "),
                    imgsz,
                    hyp=hyp if training and not options.noaugment else None,
                    batch_size=options.batch_size,
                    cache=None if unused else cache,
                    seed=options.seed,
                    prefix=f"{split}: ",
                )
            )
        check_training_size(model, imgsz, len(sets[0]), options.batch_size)
        return sets[0], sets[1]

    def names_of(self, backend: Backend, data: DataSpec) -> dict[int, str]:
        return backend.names

    def check_classes(self, backend: Backend, data: DataSpec, options: Any) -> None:
        """Check the image size only: `load_split` matches folders with classes."""
        check_size(backend, options.imgsz)

    def make_val_dataset(
        self, options: Any, split: str, data: DataSpec, backend: Backend
    ) -> ClassificationDataset:
        prefix = f"{split}: "
        files = load_split(data, split, backend.names, prefix=prefix)
        return ClassificationDataset(files, options.imgsz, prefix=prefix)

    def plots(self) -> Callbacks:
        from utils.tasks.classify.plots import ClassifyPlots

        return ClassifyPlots()

    def export_size(self, imgsz: tuple[int, int], stride: int) -> tuple[int, int]:
        """Return --imgsz: the mean over the map takes any size."""
        return imgsz

    def prepare_image(self, image: np.ndarray, size_hw: tuple[int, int]) -> Tensor:
        height, width = size_hw
        square = transforms.center_crop(image, max(size_hw))[:height, :width]
        return transforms.normalize(to_tensor([square], torch.device("cpu")))

    def visible_part(self, image: np.ndarray) -> np.ndarray:
        """Return the central square."""
        return transforms.center_crop(image, min(image.shape[:2]))

    def count_images(self, data: DataSpec) -> int:
        return len(load_split(data, "train", data.names, complete=True).images)

    def training_images(self, data: str) -> Sequence[Path]:
        sources = [folder for folder in read_class_data(data).train if isinstance(folder, Path)]
        return list_images(sources) if sources else []

    def read_names(self, data: str) -> dict[int, str] | None:
        return read_class_data(data).names if data else None

    def shown_names(self, names: dict[int, str]) -> dict[int, str]:
        return shown_names(names)

    def predictor(self) -> type[ClassifyPredictor]:
        from utils.tasks.classify.prediction import ClassifyPredictor

        return ClassifyPredictor

    def evaluator(self) -> type[ClassifyEvaluator]:
        from utils.tasks.classify.validation import ClassifyEvaluator

        return ClassifyEvaluator


def torchvision_name(options: Any) -> str:
    """Return --model if it is the name of a torchvision model, else an empty text."""
    is_name = bool(options.weights) and not options.cfg and not Path(options.weights).suffix
    return str(options.weights) if is_name else ""


def load_torchvision_weights(model: Any, name: str) -> None:
    """Load the ImageNet weights of torchvision, except a last layer for other classes.

    Raises:
        DataError: they are neither in torch's cache nor can be downloaded.
    """
    from torchvision.models import get_model_weights

    weights = get_model_weights(name)["IMAGENET1K_V1"]
    try:
        state = weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"--model {name}: no weights, {weights.url} cannot be downloaded ({error}); put the file into "
            f"{Path(torch.hub.get_dir(), 'checkpoints')}, or train without: --pretrained false"
        ) from error
    own = model.model[-1].model.state_dict()
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    model.model[-1].model.load_state_dict(fitting, strict=False)
    LOG.info(f"Transferred {len(fitting)}/{len(own)} items from torchvision's {name}")
