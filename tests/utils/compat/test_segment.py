"""YOLOv5's modules `utils.segment`: a training step, as its scripts write it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from models.weights import model_record, save_checkpoint
from models.yolo import SegmentationModel
from segment import val
from tests.utils.train.small import SEGMENT_CONFIG, hyperparameters, small_set, with_polygons
from utils.segment.dataloaders import create_dataloader, polygon2mask, polygons2masks, polygons2masks_overlap
from utils.segment.loss import ComputeLoss
from utils.segment.metrics import KEYS, ap_per_class_box_and_mask, fitness
from utils.segment.plots import plot_images_and_masks


@pytest.mark.parametrize("overlap", [True, False])
def test_a_training_step_decreases_the_loss(tmp_path: Path, overlap: bool) -> None:
    small_set(tmp_path)
    with_polygons(tmp_path)
    folder, how = str(tmp_path / "set/images/train"), {"mask_downsample_ratio": 2, "overlap_mask": overlap}
    loader, dataset = create_dataloader(folder, 64, 4, 32, workers=0, **how)
    torch.manual_seed(0)
    model = SegmentationModel(SEGMENT_CONFIG, nc=5).train()
    model.hyp = hyperparameters()
    compute_loss = ComputeLoss(model, overlap=overlap)
    images, targets, paths, shapes, masks = next(iter(loader))
    assert masks.shape == ((4 if overlap else len(targets)), 32, 32) and len(paths) == len(shapes) == 4
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(6):
        loss, items = compute_loss(model(images.float() / 255), targets, masks)
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert items.shape == (4,) and losses[-1] < losses[0] - 0.2
    plot_images_and_masks(images, targets, masks, paths, tmp_path / "batch.jpg", dict(enumerate("abcde")))
    assert cv2.imread(str(tmp_path / "batch.jpg")) is not None and dataset.n == 8


def test_a_model_in_memory_is_validated_and_data_may_be_positional(tmp_path: Path) -> None:
    data = small_set(tmp_path)
    with_polygons(tmp_path)
    torch.manual_seed(0)
    model = SegmentationModel(SEGMENT_CONFIG, nc=5)
    file = tmp_path / "model.pt"
    save_checkpoint(file, {"model": model_record(model)})
    in_memory = val.run(str(data), model=model.eval(), imgsz=64, batch_size=4)
    loader = create_dataloader(
        str(tmp_path / "set/images/val"), 64, 4, 32, rect=True, pad=0.5, workers=0, overlap_mask=True
    )[0]
    overlapping = val.run(str(data), model=model, dataloader=loader, overlap=True)
    from_file = val.run(str(data), str(file), 4, 64, workers=0, plots=False)
    assert in_memory.seen == overlapping.seen == from_file.seen == 4
    assert in_memory.mask.label_counts.tolist() == from_file.mask.label_counts.tolist()
    assert len(from_file.results) == 12


def test_polygons_become_masks() -> None:
    square = np.array([[2, 2], [8, 2], [8, 8], [2, 8]], np.float32)
    large = np.array([[0, 0], [15, 0], [15, 15], [0, 15]], np.float32)

    assert polygon2mask((16, 16), square.reshape(1, -1)).sum() == 49
    assert polygons2masks((16, 16), [square, large], downsample_ratio=2).shape == (2, 8, 8)
    packed, order = polygons2masks_overlap((16, 16), [square, large])
    assert order.tolist() == [1, 0]
    assert (packed == 2).sum() == 49 and (packed == 1).sum() == 256 - 49


def test_metrics_of_boxes_and_masks() -> None:
    correct = np.ones((2, 10), bool)
    result = ap_per_class_box_and_mask(~correct, correct, np.array([0.9, 0.8]), np.zeros(2), np.zeros(2))

    assert result["boxes"]["ap"].mean() == pytest.approx(0.995)
    assert not np.any(result["masks"]["ap"])
    assert fitness(np.array([[0, 0, 0.5, 0.25, 0, 0, 0.1, 0.2]]))[0] == pytest.approx(0.275 + 0.19)
    assert KEYS[1] == "train/seg_loss" and len(KEYS) == 19
