"""YOLOv5's functions for training loops of one's own: dataloader, loss, anchors, batch size."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.base.log import LOG
from utils.data.coco_source import CocoImages
from utils.data.dataset import DetectionDataset, MaskFormat, SampleKey
from utils.data.image_lists import label_path
from utils.data.loader import Batch, Loader, collate, make_loader
from utils.data.samplers import Share
from utils.ops import anchors as fitting
from utils.ops.loss import DetectionLoss, smooth_labels
from utils.train.hyp import load_hyp


class CompatLoader:
    """Iterable over batches (images uint8, targets (n, 6), paths, shapes); each iteration is a new epoch.

    Batches of segmentation end with masks.
    """

    def __init__(self, loader: Loader, dataset: Any, batch_size: int) -> None:
        self._loader = loader
        self._epoch = 0
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = loader.workers
        weakref.finalize(self, loader.close)  # which scripts do not call
        self.sampler = self  # scripts of distributed training call sampler.set_epoch

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        self._loader.set_epoch(self._epoch)
        epoch, self._epoch = self._epoch, self._epoch + 1
        chosen = not isinstance(self.dataset.indices, range)
        for batch in self._of_indices(epoch) if chosen else self._loader:
            yield self.unpack(batch)

    def unpack(self, batch: Batch) -> tuple[Any, ...]:
        """Return a batch as scripts take it."""
        masks = () if batch.masks is None else (batch.masks,)
        return batch.images, batch.targets, tuple(batch.paths), tuple(batch.shapes), *masks

    def _of_indices(self, epoch: int) -> Iterator[Any]:
        """Yield batches of the images that a script has listed in `dataset.indices`."""
        seen: Counter[int] = Counter()
        keys = []
        for index in map(int, self.dataset.indices):
            keys.append(SampleKey(epoch, index, seen[index]))
            seen[index] += 1
        for first in range(0, len(keys), self.batch_size):
            yield collate([self.dataset[key] for key in keys[first : first + self.batch_size]])

    def close(self) -> None:
        """End the worker processes."""
        self._loader.close()


InfiniteDataLoader = CompatLoader


class LoadImagesAndLabels(DetectionDataset):
    """Labelled images; the attributes of the original that scripts read, over our dataset."""

    def __init__(
        self,
        path: Any,
        img_size: int = 640,
        batch_size: int = 16,
        augment: bool = False,
        hyp: Any = None,
        rect: bool = False,
        image_weights: bool = False,
        cache_images: Any = False,
        single_cls: bool = False,
        stride: int = 32,
        pad: float = 0.0,
        prefix: str = "",
        masks: MaskFormat | None = None,
    ) -> None:
        sources = path if isinstance(path, list | tuple) else [path]
        paths = [one if isinstance(one, CocoImages) else Path(one) for one in sources]
        kind = "ram" if cache_images is True else cache_images or None
        given = hyp if isinstance(hyp, Mapping) or hyp is None else vars(hyp)
        settings = load_hyp({key: value for key, value in (given or {}).items() if key in load_hyp({})})
        super().__init__(
            paths,
            img_size,
            batch_size=batch_size,
            stride=int(stride),
            augment=augment,
            hyp=settings,
            rect=rect and not image_weights,
            cache=kind,
            single_cls=single_cls,
            pad=pad,
            masks=masks,
            prefix=prefix,
        )
        self.img_size = img_size
        self.image_weights = image_weights
        self.n = len(self)
        self.indices: Any = range(self.n)
        self.batch = self._batch if self.rect else np.arange(self.n) // batch_size
        self.albumentations = self._extra
        self.stride = int(stride)

    @property
    def mosaic(self) -> bool:
        """Whether images are combined to mosaics; setting it to False has an effect without workers."""
        return self.augment and not self.rect and self.hyp.get("mosaic", 0) > 0

    @mosaic.setter
    def mosaic(self, wanted: bool) -> None:
        self.hyp["mosaic"] = float(wanted)

    @staticmethod
    def collate_fn(batch: Sequence[Any]) -> Any:
        """Return items of the dataset as a batch (images, targets, paths, shapes)."""
        return collate(batch)[:4]

    @property
    def im_files(self) -> list[str]:
        """Paths of the images."""
        return [str(file) for file in self.image_files]

    img_files = im_files

    @property
    def label_files(self) -> list[str]:
        """Paths of the label files."""
        return [str(label_path(Path(file))) for file in self.im_files]


def create_dataloader(
    path: Any,
    imgsz: int,
    batch_size: int,
    stride: int,
    single_cls: Any = False,
    hyp: Any = None,
    augment: bool = False,
    cache: Any = False,
    pad: float = 0.0,
    rect: bool = False,
    rank: int = -1,
    workers: int = 8,
    image_weights: bool = False,
    quad: bool = False,
    prefix: str = "",
    shuffle: bool = False,
    seed: int = 0,
    world_size: int = 1,
    masks: MaskFormat | None = None,
    **ignored: Any,
) -> tuple[CompatLoader, LoadImagesAndLabels]:
    """Return a loader of labelled images, and its dataset.

    Args:
        path: folder, list of images, or several of these.
        imgsz: side of the network's input.
        batch_size: images per batch.
        stride: batch shapes are multiples of it.
        single_cls: treat all objects as class 0; until v5.0 the options of train.py.
        hyp: hyperparameters of the augmentations.
        augment: augment the images, with mosaics.
        cache: keep images in memory ("ram") or as arrays on disk ("disk").
        pad: padding of rectangular batches, in strides.
        rect: rectangular batches.
        rank: of this process of several, which share the batches.
        workers: maximum number of worker processes.
        image_weights: no rectangular batches; set `dataset.indices` to the images of an epoch.
        quad: four images in one.
        prefix: text before log messages.
        shuffle: another order in each epoch.
        seed: seed of order and augmentations.
        world_size: number of processes that share the batches.
        masks: how samples hold masks; None: boxes only.
        **ignored: arguments of other versions that change nothing here.

    Raises:
        DataError: no usable images.
    """
    single = single_cls if isinstance(single_cls, bool) else bool(getattr(single_cls, "single_cls", False))
    dataset = LoadImagesAndLabels(
        path, imgsz, batch_size, augment, hyp, rect, image_weights, cache, single, int(stride), pad, prefix,
        masks,
    )  # fmt: skip
    if rank != -1 and torch.distributed.is_available() and torch.distributed.is_initialized():
        world_size = torch.distributed.get_world_size()
    share = Share(rank, world_size) if rank != -1 and world_size > 1 else None
    loader = make_loader(
        dataset,
        min(batch_size, len(dataset)) * (world_size if share else 1),
        workers=workers,
        shuffle=shuffle or (augment and not rect),
        seed=seed,
        quad=quad,
        share=share,
    )
    return CompatLoader(loader, dataset, batch_size), dataset


class ComputeLoss:
    """The training loss of a model with `hyp`: `loss, items = ComputeLoss(model)(maps, targets)`."""

    sort_obj_iou = False

    def __init__(self, model: Any, autobalance: bool = False) -> None:
        from utils.compat.torch_tools import de_parallel

        model = de_parallel(model)
        hyp, head = model.hyp, model.model[-1]
        if hyp is None:
            raise AttributeError("ComputeLoss: set model.hyp to the hyperparameters first")
        self.hyp = dict(hyp if isinstance(hyp, Mapping) else vars(hyp))
        if "giou" in self.hyp:
            self.hyp.setdefault("box", self.hyp["giou"])  # its name until v2
        self.na, self.nc, self.nl, self.anchors = head.na, head.nc, head.nl, head.anchors
        self.device = next(model.parameters()).device
        self._loss = DetectionLoss(head.anchors, head.stride, head.nc, self.hyp, autobalance)
        self.balance = self._loss.balance

    def __call__(self, p: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss (1,) times the batch size, and box, objectness and class loss (3,), detached."""
        loss, items = self._loss(p, targets)
        return loss.reshape(1), items


def compute_loss(p: Sequence[Tensor], targets: Tensor, model: Any) -> tuple[Tensor, Tensor]:
    """Return the loss and its items, as until v4.0."""
    return ComputeLoss(model)(p, targets)


def smooth_BCE(eps: float = 0.1) -> tuple[float, float]:
    """Return the targets of the true class and of the others, for label smoothing."""
    return smooth_labels(eps)


class FocalLoss(nn.Module):
    """Focal loss around `nn.BCEWithLogitsLoss` (Lin et al., arXiv:1708.02002)."""

    def __init__(self, loss_fcn: nn.BCEWithLogitsLoss, gamma: float = 1.5, alpha: float = 0.25) -> None:
        super().__init__()
        self.loss_fcn, self.gamma, self.alpha = loss_fcn, gamma, alpha
        self.reduction = loss_fcn.reduction
        self.loss_fcn.reduction = "none"

    def forward(self, pred: Tensor, true: Tensor) -> Tensor:
        probability = pred.sigmoid()
        alpha = true * self.alpha + (1 - true) * (1 - self.alpha)
        return self._reduce(self.loss_fcn(pred, true) * alpha * self._error(probability, true) ** self.gamma)

    def _error(self, probability: Tensor, true: Tensor) -> Tensor:
        return true * (1 - probability) + (1 - true) * probability

    def _reduce(self, loss: Tensor) -> Tensor:
        return {"mean": loss.mean, "sum": loss.sum}.get(self.reduction, lambda: loss)()


class QFocalLoss(FocalLoss):
    """Quality focal loss (Li et al., arXiv:2006.04388), for targets between 0 and 1."""

    def _error(self, probability: Tensor, true: Tensor) -> Tensor:
        return (true - probability).abs()


class BCEBlurWithLogitsLoss(nn.Module):
    """Binary cross entropy in which predictions without a label, which may be missing, count less."""

    def __init__(self, alpha: float = 0.05) -> None:
        super().__init__()
        self.loss_fcn = nn.BCEWithLogitsLoss(reduction="none")
        self.alpha = alpha

    def forward(self, pred: Tensor, true: Tensor) -> Tensor:
        excess = pred.sigmoid() - true
        return (self.loss_fcn(pred, true) * (1 - torch.exp((excess - 1) / (self.alpha + 1e-4)))).mean()


def check_anchors(dataset: Any, model: Any, thr: float = 4.0, imgsz: int = 640) -> None:
    """Log how well the anchors fit the labels; below 0.98 best possible recall fit new ones into the head."""
    from utils.compat.torch_tools import de_parallel

    head = de_parallel(model).model[-1]
    new, line = fitting.check_anchors(
        np.asarray(dataset.shapes), list(dataset.labels), head.anchors_px().cpu(), head.stride, imgsz, thr
    )
    LOG.info(line)
    if new is not None:
        head.set_anchors(torch.from_numpy(new))


def kmean_anchors(
    dataset: Any = "./data/coco128.yaml",
    n: int = 9,
    img_size: int = 640,
    thr: float = 4.0,
    gen: int = 1000,
    verbose: bool = True,
) -> np.ndarray:
    """Return `n` anchors (n, 2) in pixels for a dataset, or for the training images of a data yaml."""
    if isinstance(dataset, str | Path):
        from utils.data.dataset_yaml import read_data_yaml

        spec = read_data_yaml(dataset)
        dataset = DetectionDataset(spec.train, img_size, rect=True, names=spec.names, root=spec.root)
    wh = fitting.label_sizes(np.asarray(dataset.shapes), list(dataset.labels), img_size)
    return fitting.kmean_anchors(wh, n, img_size, thr, gen)


def check_anchor_order(m: Any) -> None:
    """Reverse the anchors of a head if their sizes and the strides are in opposite order."""
    m.set_anchors(m.anchors_px())


def check_train_batch_size(model: Any, imgsz: int = 640, amp: bool = True) -> int:
    """Return the largest batch size that fits into the memory of the GPU; 16 on a CPU."""
    return autobatch(model, imgsz)


def autobatch(model: Any, imgsz: int = 640, fraction: float = 0.8, batch_size: int = 16) -> int:
    """Return the largest batch size that fits into the memory of the GPU; `batch_size` on a CPU."""
    if next(model.parameters()).device.type != "cuda":
        return batch_size
    from utils.train.build import measure_batch

    return measure_batch(model, imgsz, None)
