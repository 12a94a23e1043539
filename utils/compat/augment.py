"""YOLOv5's `utils.augmentations`, over utils/data; random numbers come from Python's generator, as there."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.data import augment as ours
from utils.data.letterbox import letterbox as fit
from utils.data.perspective import PerspectiveDraws
from utils.data.perspective import random_perspective as warp
from utils.data.samples import Sample
from utils.tasks.classify import transforms as classify

IMAGENET_MEAN = classify.MEAN  # RGB
IMAGENET_STD = classify.STD


def _generator() -> np.random.Generator:
    return np.random.default_rng(random.getrandbits(64))


def letterbox(
    im: Any = None,
    new_shape: Any = (640, 640),
    color: Any = (114, 114, 114),
    auto: bool = True,
    scaleFill: bool = False,
    scaleup: bool = True,
    stride: Any = 32,
    img: Any = None,
) -> tuple[np.ndarray, tuple[float, float], tuple[float, float]]:
    """Resize an image (H, W, 3) to fit into `new_shape` (h, w), and pad it.

    Returns:
        The image, the ratios (w, h), and the padding (w, h) on one side.
    """
    im = im if img is None else img  # its name until v5.0
    shape = tuple(int(side) for side in new_shape) if isinstance(new_shape, list | tuple) else int(new_shape)
    return fit(im, shape, color, auto, scaleFill, scaleup, int(stride))


def augment_hsv(im: np.ndarray, hgain: float = 0.5, sgain: float = 0.5, vgain: float = 0.5) -> None:
    """Change hue, saturation and value of an image (H, W, 3) BGR at random, in place."""
    gains = ours.draw_hsv_gains(_generator(), {"hsv_h": hgain, "hsv_s": sgain, "hsv_v": vgain})
    im[:] = ours.adjust_hsv(im, gains)


def mixup(
    im: np.ndarray, labels: np.ndarray, im2: np.ndarray, labels2: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Blend two images of one size, and join their labels."""
    ratio = float(_generator().beta(ours.MIXUP_BETA, ours.MIXUP_BETA))
    mixed = ours.mixup(Sample(im, labels), Sample(im2, labels2), ratio)
    return mixed.image, mixed.boxes


def copy_paste(
    im: np.ndarray, labels: np.ndarray, segments: Sequence[np.ndarray], p: float = 0.5
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Paste mirrored copies of the fraction `p` of the objects, which need polygons."""
    if not p or not len(segments):
        return im, labels, list(segments)
    sample = Sample(im, labels, list(segments))
    pasted = ours.copy_paste(sample, ours.draw_pastes(_generator(), len(segments), p))
    return pasted.image, pasted.boxes, list(pasted.polygons)


def random_perspective(
    im: np.ndarray,
    targets: Any = (),
    segments: Any = (),
    degrees: float = 10,
    translate: float = 0.1,
    scale: float = 0.1,
    shear: float = 10,
    perspective: float = 0.0,
    border: tuple[int, int] = (0, 0),
) -> tuple[np.ndarray, np.ndarray]:
    """Rotate, scale, shear, translate and tilt an image at random, with its boxes (n, 5) class, xyxy."""
    amounts = {"degrees": degrees, "translate": translate, "scale": scale, "shear": shear}
    draws = PerspectiveDraws.draw(_generator(), amounts | {"perspective": perspective})
    boxes = np.asarray(targets, np.float32).reshape(-1, 5)
    moved = warp(Sample(im, boxes, list(segments)), draws, border)
    return moved.image, moved.boxes


def box_candidates(
    box1: np.ndarray,
    box2: np.ndarray,
    wh_thr: float = 2,
    ar_thr: float = 100,
    area_thr: float = 0.1,
    eps: float = 1e-16,
) -> np.ndarray:
    """Return which boxes (4, n) xyxy are usable after augmentation: by size, shape, and area left."""
    before, after = box1[2:4] - box1[:2], box2[2:4] - box2[:2]
    ratio = np.maximum(after[0] / (after[1] + eps), after[1] / (after[0] + eps))
    left = after.prod(0) / (before.prod(0) + eps)
    return (after > wh_thr).all(0) & (left > area_thr) & (ratio < ar_thr)


class Albumentations:
    """Blur, MedianBlur, ToGray and CLAHE of Albumentations, each rarely, if it is installed."""

    def __init__(self, size: int = 640) -> None:
        self.transform = ours.load_extra_transforms()

    def __call__(self, im: np.ndarray, labels: np.ndarray, p: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
        if self.transform is not None and random.random() < p:
            im = self.transform(_generator(), im)
        return im, labels


def normalize(x: Any, mean: Any = IMAGENET_MEAN, std: Any = IMAGENET_STD, inplace: bool = False) -> Any:
    """Normalize images (B, 3, H, W) or (3, H, W) RGB in 0-1 with the mean and deviation of ImageNet."""
    result = (x - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(std).view(3, 1, 1)
    return x.copy_(result) if inplace else result


def denormalize(x: Tensor, mean: Any = IMAGENET_MEAN, std: Any = IMAGENET_STD) -> Tensor:
    """Undo `normalize`, in place."""
    return x.copy_(x * x.new_tensor(std).view(3, 1, 1) + x.new_tensor(mean).view(3, 1, 1))


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


class CenterCrop:
    """The square in the centre of an image (H, W, 3), resized."""

    def __init__(self, size: Any = 640) -> None:
        self.h, self.w = _pair(size)

    def __call__(self, im: np.ndarray) -> np.ndarray:
        side = min(im.shape[:2])
        top, left = (im.shape[0] - side) // 2, (im.shape[1] - side) // 2
        square = im[top : top + side, left : left + side]
        return cv2.resize(square, (self.w, self.h), interpolation=cv2.INTER_LINEAR)


class ToTensor:
    """An image (H, W, 3) uint8 BGR as a tensor (3, H, W) RGB in 0-1."""

    def __init__(self, half: bool = False) -> None:
        self.half = half

    def __call__(self, im: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(im.transpose(2, 0, 1)[::-1]))
        return (tensor.half() if self.half else tensor.float()) / 255


class LetterBox:
    """An image (H, W, 3) resized to fit into `size` (h, w), in the centre of a gray one."""

    def __init__(self, size: Any = (640, 640), auto: bool = False, stride: int = 32) -> None:
        self.h, self.w = _pair(size)
        self.auto, self.stride = auto, stride

    def __call__(self, im: np.ndarray) -> np.ndarray:
        return letterbox(im, (self.h, self.w), auto=self.auto, stride=self.stride)[0]


class Normalize:
    """`normalize` as an object, with the attributes of torchvision's class."""

    def __init__(self, mean: Any = IMAGENET_MEAN, std: Any = IMAGENET_STD) -> None:
        self.mean, self.std = mean, std

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = normalize(x, self.mean, self.std)
        return result


class Compose:
    """Transforms that follow each other."""

    def __init__(self, transforms: Sequence[Any]) -> None:
        self.transforms = list(transforms)

    def __call__(self, x: Any) -> Any:
        for step in self.transforms:
            x = step(x)
        return x


def classify_transforms(size: int = 224) -> Compose:
    """Return the transforms of a classifier: centre square, resize, tensor (3, size, size), normalize.

    Raises:
        AssertionError: a size that is not one number.
    """
    if not isinstance(size, int):
        raise AssertionError(f"classify_transforms: size {size}: expected one number of pixels")
    return Compose([CenterCrop(size), ToTensor(), Normalize()])


class _ClassifyAugmentations:
    """Our augmentations of classification: `transform(image=rgb)["image"]`, as Albumentations is called."""

    def __init__(self, size: int, hyp: dict[str, Any] | None, last: Compose) -> None:
        self.size, self.hyp, self.last = size, hyp, last

    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        """Return a tensor (3, size, size) of an image (H, W, 3) uint8 RGB."""
        bgr = np.ascontiguousarray(image[..., ::-1])
        if self.hyp is not None:
            bgr = classify.augment(_generator(), bgr, self.size, self.hyp)
        return {"image": self.last(bgr)}


def classify_albumentations(
    augment: bool = True,
    size: int = 224,
    scale: Any = classify.AREA,
    ratio: Any = classify.ASPECT,
    hflip: float = classify.FLIP_PROBABILITY,
    vflip: float = 0.0,
    jitter: float = classify.JITTER,
    mean: Any = IMAGENET_MEAN,
    std: Any = IMAGENET_STD,
    auto_aug: bool = False,
) -> _ClassifyAugmentations:
    """Return the augmentations of classification; they need no Albumentations.

    Args:
        augment: False: centre square and resize only.
        size: side of the result, pixels.
        scale: the least fraction of the image that a crop has, and a second number that changes nothing.
        ratio: accepted for compatibility; crops have aspect ratios from 3/4 to 4/3.
        hflip: probability of a flip from left to right.
        vflip: probability of a flip upside down.
        jitter: largest change of brightness, contrast and saturation.
        mean: of the normalization, RGB.
        std: the same.
        auto_aug: accepted for compatibility.
    """
    hyp = {"scale": scale[0], "fliplr": hflip, "flipud": vflip, "jitter": jitter}
    crop = [] if augment else [CenterCrop(size)]
    last = Compose([*crop, ToTensor(), Normalize(mean, std)])
    return _ClassifyAugmentations(size, hyp if augment else None, last)


def hist_equalize(im: np.ndarray, clahe: bool = True, bgr: bool = False) -> np.ndarray:
    """Return an image (H, W, 3) with an equalized histogram of brightness."""
    to, back = (cv2.COLOR_BGR2YUV, cv2.COLOR_YUV2BGR) if bgr else (cv2.COLOR_RGB2YUV, cv2.COLOR_YUV2RGB)
    yuv = cv2.cvtColor(im, to)
    y = np.ascontiguousarray(yuv[..., 0])
    equalize = cv2.createCLAHE(clipLimit=2.0, tileGridSize=(8, 8)).apply if clahe else cv2.equalizeHist
    yuv[..., 0] = equalize(y)
    return cv2.cvtColor(yuv, back)


def replicate(im: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Copy the smaller half of the objects, labels (n, 5) class xyxy, to random places, in place."""
    height, width = im.shape[:2]
    boxes = labels[:, 1:].astype(int)
    order = ((boxes[:, 2:] - boxes[:, :2]).sum(1) / 2).argsort()
    for index in order[: round(len(order) * 0.5)]:
        x1, y1, x2, y2 = boxes[index]
        h, w = y2 - y1, x2 - x1
        top, left = int(random.uniform(0, height - h)), int(random.uniform(0, width - w))
        im[top : top + h, left : left + w] = im[y1:y2, x1:x2]
        labels = np.append(labels, [[labels[index, 0], left, top, left + w, top + h]], axis=0)
    return im, labels


def cutout(im: np.ndarray, labels: np.ndarray, p: float = 0.5) -> np.ndarray:
    """Fill random rectangles with random colours, in place; return the labels that are mostly visible."""
    if random.random() >= p:
        return labels
    height, width = im.shape[:2]
    for scale in [0.5] + [0.25] * 2 + [0.125] * 4 + [0.0625] * 8 + [0.03125] * 16:
        h, w = random.randint(1, max(int(height * scale), 1)), random.randint(1, max(int(width * scale), 1))
        x1, y1 = max(0, random.randint(0, width) - w // 2), max(0, random.randint(0, height) - h // 2)
        x2, y2 = min(width, x1 + w), min(height, y1 + h)
        im[y1:y2, x1:x2] = [random.randint(64, 191) for _ in range(3)]
        if len(labels) and scale > 0.03:
            from utils.ops.boxes import box_ioa

            hidden = box_ioa(np.array([[x1, y1, x2, y2]], np.float32), labels[:, 1:5].astype(np.float32))[0]
            labels = labels[hidden < 0.60]
    return labels
