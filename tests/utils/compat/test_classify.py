"""YOLOv5's names for classification: loader, transforms, loss and validation, as its scripts use them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from classify import val
from models.common import Classify, DetectMultiBackend
from models.weights import model_record, save_checkpoint
from models.yolo import ClassificationModel, DetectionModel
from tests.known import SHARED, fill, needs_shared, pattern_image
from utils.augmentations import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    CenterCrop,
    ToTensor,
    classify_albumentations,
    classify_transforms,
    denormalize,
    normalize,
)
from utils.dataloaders import ClassificationDataset, create_classification_dataloader
from utils.plots import imshow_cls
from utils.tasks.task import get_task
from utils.torch_utils import reshape_classifier_output, smartCrossEntropyLoss

CLASSES = ("dark", "light", "mixed")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset with train and val of three classes, four images each."""
    root = tmp_path_factory.mktemp("classes")
    for split in ("train", "val"):
        for number, name in enumerate(CLASSES):
            (root / split / name).mkdir(parents=True)
            for k in range(4):
                image = (pattern_image(40, 56, 40 * k) // 3 + 80 * number).astype(np.uint8)
                cv2.imwrite(str(root / split / name / f"{k}.png"), image)
    return root


def small_classifier() -> ClassificationModel:
    torch.manual_seed(0)
    model = ClassificationModel("yolov5n-cls.yaml", nc=len(CLASSES))
    model.names = dict(enumerate(CLASSES))
    return model


def test_a_training_loop_decreases_the_loss_and_validates_in_memory(folders: Path) -> None:
    loader = create_classification_dataloader(folders / "train", 32, 6, augment=False, workers=0)
    test_loader = create_classification_dataloader(
        folders / "val", 32, 8, augment=False, workers=0, shuffle=False
    )
    model, criterion = small_classifier().train(), smartCrossEntropyLoss(label_smoothing=0.1)
    optimizer = torch.optim.Adam(model.parameters(), 0.002)
    losses = []
    for _ in range(4):
        for images, labels in loader:
            assert images.shape == (6, 3, 32, 32) and labels.dtype == torch.int64
            loss = criterion(model(images), labels)
            losses.append(loss.item())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert len(losses) == 8 and losses[-1] < losses[0] - 0.2

    top1, top5, loss = val.run(model=model.eval(), dataloader=test_loader, criterion=criterion, pbar=None)
    with torch.inference_mode():
        outputs = [(model(images), labels) for images, labels in test_loader]
    logits, labels = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    assert (top1, top5) == (pytest.approx((logits.argmax(1) == labels).float().mean().item()), 1.0)
    assert loss == pytest.approx(criterion(logits, labels).item(), rel=1e-4)
    assert val.run(str(folders), model=model, imgsz=32).top1 == top1, "the loader is made from --data"


def test_a_file_is_validated_with_positional_arguments(folders: Path, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "small.pt", {"model": model_record(small_classifier())})
    result = val.run(str(folders), str(tmp_path / "small.pt"), 4, 32, workers=0, plots=False)
    assert result.seen == 12


def test_the_dataset_has_the_attributes_of_an_image_folder(folders: Path) -> None:
    dataset = ClassificationDataset(root=str(folders / "train"), augment=True, imgsz=32)
    assert (dataset.classes, len(dataset), dataset.targets) == ([*CLASSES], 12, [0] * 4 + [1] * 4 + [2] * 4)
    assert dataset.class_to_idx["mixed"] == 2 and dataset.samples[0] == (str(dataset.image_files[0]), 0)
    (first, number), (again, _) = dataset[5], dataset[5]
    assert first.shape == (3, 32, 32) and number == 1
    assert not torch.equal(first, again), "augmentations are random"
    plain = ClassificationDataset(str(folders / "val"), False, 32, cache=True)
    image = cv2.imread(plain.samples[3][0])
    torch.testing.assert_close(plain[3][0], classify_transforms(32)(image), atol=1e-5, rtol=0)


def test_transforms_prepare_images_as_the_model_takes_them() -> None:
    image = pattern_image(50, 70)
    expected = get_task("classify").prepare_image(image, (32, 32))[0]
    torch.testing.assert_close(classify_transforms(32)(image), expected, atol=1e-6, rtol=0)
    resized = classify_albumentations(augment=False, size=32)(image=image[..., ::-1])["image"]
    torch.testing.assert_close(resized, expected, atol=1e-6, rtol=0)
    levels = ToTensor()(CenterCrop(32)(image))
    torch.testing.assert_close(denormalize(expected.clone()), levels, atol=1e-6, rtol=0)
    with pytest.raises(AssertionError, match="one number"):
        classify_transforms((32, 32))


def test_augmentations_need_no_albumentations() -> None:
    made = classify_albumentations(size=32, hflip=1.0, scale=(1.0, 1.0), ratio=(1, 1), jitter=0)
    image = pattern_image(32, 32)
    flipped = normalize(ToTensor()(image[:, ::-1]), IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(made(image=image[..., ::-1])["image"], flipped, atol=1e-6, rtol=0)


def test_a_detector_is_cut_as_the_original_cuts_it(tmp_path: Path) -> None:
    detector = DetectionModel("yolov5n.yaml")
    fill(detector, 4)
    model = ClassificationModel(model=detector, nc=6, cutoff=10)
    assert isinstance(model.model[-1], Classify) and len(model.model) == 10 and model.nc == 6
    key = "model.3.conv.weight"
    assert torch.equal(model.state_dict()[key], detector.state_dict()[key])
    assert ClassificationModel(None, detector).nc == 1000
    save_checkpoint(tmp_path / "n.pt", {"model": model_record(detector)})
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        wanted = model.eval().model[:9](images)
        fused = ClassificationModel(model=DetectMultiBackend(tmp_path / "n.pt"), nc=6).eval()
        torch.testing.assert_close(fused.model[:9](images), wanted, atol=1e-3, rtol=1e-3)


def test_the_output_of_classifiers_is_reshaped() -> None:
    model = small_classifier()
    reshape_classifier_output(model, 5)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert (model.nc, [*model.names.values()]) == (5, [*CLASSES, "3", "4"])
    convolution = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 4, 1))
    reshape_classifier_output(convolution, 7)
    assert convolution[2].out_channels == 7


def test_images_are_plotted_with_their_classes(tmp_path: Path, logged: list[str]) -> None:
    images = normalize(torch.rand(5, 3, 32, 32))
    labels, names = torch.tensor([0, 1, 2, 0, 1]), dict(enumerate(CLASSES))
    file = imshow_cls(images, labels, torch.zeros(5), names, 4, True, tmp_path / "a.jpg")
    assert file == tmp_path / "a.jpg" and cv2.imread(str(file)) is not None
    assert logged[-1].endswith("dark - dark, light - dark, mixed - dark, dark - dark")


@needs_shared
def test_the_transforms_in_a_file_of_the_original_work() -> None:
    """Loaded in torch's safe mode, with our classes in place of torchvision's."""
    model = torch.load(SHARED / "weights/cells-cls.pt", map_location="cpu")["model"]
    image = pattern_image(50, 70)
    made = model.transforms(image)
    expected = get_task("classify").prepare_image(image, tuple(made.shape[1:]))[0]
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)
