"""YOLOv5's loader and validation of classification models, over ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.base.names import class_names
from utils.compat.augment import classify_albumentations, classify_transforms, denormalize
from utils.compat.callbacks import adapted
from utils.compat.training import CompatLoader
from utils.data.class_folders import class_folders, load_class_files, read_class_data
from utils.data.dataset import SampleKey
from utils.data.loader import Batch, make_loader
from utils.tasks.classify import dataset as ours
from utils.tasks.classify import transforms
from utils.tasks.classify.validation import ClassifyEvaluator, ClassifyResult

SIDE = 224  # of the images by default, pixels
_AUGMENTATIONS = {
    "scale": transforms.AREA[0],
    "fliplr": transforms.FLIP_PROBABILITY,
    "flipud": 0.0,
    "jitter": transforms.JITTER,
}


class ClassificationDataset(ours.ClassificationDataset):
    """The images of class folders, with the attributes of torchvision's ImageFolder.

    An item is a normalized image (3, imgsz, imgsz) and its class.

    Args:
        root: folder with a folder for each class, which are numbered in their order.
        augment: augment the images, with or without Albumentations.
        imgsz: side of the images, pixels.
        cache: keep images in memory (True or "ram") or as arrays on disk ("disk").

    Raises:
        DataError: no usable images.
    """

    def __init__(self, root: Any, augment: bool, imgsz: int, cache: Any = False) -> None:
        self.root = str(root)
        self.classes = class_folders(Path(root))
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}
        hyp = _AUGMENTATIONS if augment else None
        kind = "ram" if cache is True else cache or None
        files = load_class_files(Path(root), dict(enumerate(self.classes)))
        super().__init__(files, imgsz, hyp=hyp, cache=kind)
        self.targets = [int(number) for number in self.numbers]
        self.samples = [
            (str(file), number) for file, number in zip(self.image_files, self.targets, strict=True)
        ]
        self.imgs = self.samples
        self.torch_transforms = classify_transforms(imgsz)
        self.album_transforms = classify_albumentations(augment, imgsz) if augment else None
        self.indices = range(len(self))

    def __getitem__(self, key: int | SampleKey) -> Any:
        """Return the item of a number, augmented by chance, or the sample of a key for our loader."""
        if isinstance(key, SampleKey):
            return super().__getitem__(key)
        epoch = int(torch.randint(2**31, ())) if self.hyp is not None else 0
        item = super().__getitem__(SampleKey(epoch, int(key)))
        return _normalized(item.image[None])[0], self.targets[int(key)]


class ClassLoader(CompatLoader):
    """Iterable over batches (normalized images, classes); each iteration is a new epoch."""

    def unpack(self, batch: Batch) -> tuple[Any, ...]:
        return _normalized(batch.images), batch.targets[:, 1].long()


def create_classification_dataloader(
    path: Any,
    imgsz: int = SIDE,
    batch_size: int = 16,
    augment: bool = True,
    cache: Any = False,
    rank: int = -1,
    workers: int = 8,
    shuffle: bool = True,
) -> ClassLoader:
    """Return a loader of the images below class folders.

    Args:
        path: folder with a folder for each class.
        imgsz: side of the images, pixels.
        batch_size: images per batch.
        augment: augment the images.
        cache: keep images in memory (True or "ram") or as arrays on disk ("disk").
        rank: accepted for compatibility; each process loads all batches.
        workers: maximum number of worker processes.
        shuffle: another order in each epoch.

    Raises:
        DataError: no usable images.
    """
    dataset = ClassificationDataset(path, augment, imgsz, cache)
    size = min(batch_size, len(dataset))
    return ClassLoader(make_loader(dataset, size, workers=workers, shuffle=shuffle), dataset, size)


def smart_cross_entropy(label_smoothing: float = 0.0) -> nn.CrossEntropyLoss:
    """Return the cross entropy of logits (B, nc) and classes (B,), with label smoothing."""
    return nn.CrossEntropyLoss(label_smoothing=label_smoothing)


def validate_classifier(
    model: nn.Module,
    dataloader: Iterable[tuple[Tensor, Tensor]] | None,
    data: Any = None,
    *,
    batch_size: int = 128,
    imgsz: int = SIDE,
    half: bool = False,
    verbose: bool = False,
    criterion: Any = None,
    callbacks: Any = None,
    **ignored: Any,
) -> ClassifyResult:
    """Validate a model that is in memory: `classify.val.run(model=..., dataloader=...)`.

    Args:
        model: returns logits.
        dataloader: batches (normalized images, classes), such as those of create_classification_dataloader;
            by default those of the folder `val` of `data`, or of `test`.
        data: folder of the dataset; needed without a dataloader only.
        batch_size: images per batch, without a dataloader.
        imgsz: side of the images, without a dataloader.
        half: FP16, on CUDA.
        verbose: log the accuracy of each class.
        criterion: loss of (logits, classes), which is averaged.
        callbacks: called for each batch.
        **ignored: keywords of `classify.val.run` that the model and the loader decide.

    Returns:
        Unpacks into (top-1, top-5, loss).
    """
    from utils.val.evaluate import EvalConfig, evaluate

    if dataloader is None:
        folder = read_class_data(str(data)).val[0]
        dataloader = create_classification_dataloader(folder, imgsz, batch_size, augment=False, shuffle=False)

    def loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        value = criterion(logits, targets[:, 1].long().to(logits.device))
        return value, value[None]

    result: ClassifyResult = evaluate(
        model,
        _Batches(dataloader),
        class_names(model.names),
        EvalConfig(half=half, verbose=verbose),
        device=next(model.parameters()).device,
        loss=None if criterion is None else loss,
        callbacks=None if callbacks is None else adapted(callbacks),
        evaluator=ClassifyEvaluator,
    )
    return result


class _Batches:
    """The batches of a loader as `Batch`, whose images are not normalized."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for images, classes in self.loader:
            levels = (denormalize(images.float().clone()) * 255).round().clamp(0, 255).to(torch.uint8)
            targets = torch.stack((torch.arange(len(classes)), classes.cpu()), 1).float()
            yield Batch(levels, targets, [""] * len(classes), [None] * len(classes))


def _normalized(images: Tensor) -> Tensor:
    """Normalize images (B, 3, S, S) uint8."""
    return transforms.normalize(images.float().div_(255))
