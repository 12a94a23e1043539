"""Heat maps and receptive fields of a segmentation model: those of its boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import visualize
from models.graft import graft
from models.weights import model_record, read_checkpoint, save_checkpoint
from models.yolo import DetectionModel
from studies.explain.heatmap import METHODS, BoxFilter
from studies.explain.layers import find_layers
from studies.explain.receptive_field import field_energy
from tests.studies.segmenters import segmenter
from tests.utils.sources.test_source import make_image_file
from tests.utils.train.small import CONFIG, small_segmenter

Pair = tuple[DetectionModel, DetectionModel]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """A detector, and a segmentation model with the same boxes."""
    torch.manual_seed(0)
    detector = DetectionModel(CONFIG).eval()
    for layer in detector.head.m:
        nn.init.normal_(layer.weight, std=0.3)
        nn.init.zeros_(layer.bias)
    path = tmp_path / "detector.pt"
    save_checkpoint(path, {"model": model_record(detector)})
    model = DetectionModel(small_segmenter(tmp_path)).eval()
    graft(model, read_checkpoint(path))
    graft(detector, read_checkpoint(path))  # in the precision of the file
    return detector.requires_grad_(False), model.requires_grad_(False)


@pytest.mark.parametrize("method", METHODS)
def test_heat_maps_are_those_of_a_detector_with_the_same_boxes(pair: Pair, method: str) -> None:
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    box_filter = BoxFilter(confidence=0.01)
    one, other = (
        METHODS[method](model, images, find_layers(model, ["detect"]), box_filter) for model in pair
    )
    assert one.detections.shape == other.detections.shape and len(one.detections) > 3
    assert np.allclose(one.detections, other.detections, atol=1e-5)
    assert one.heat is not None and other.heat is not None
    assert np.allclose(one.heat, other.heat, atol=1e-4)


def test_receptive_fields_do_not_depend_on_the_head(pair: Pair) -> None:
    images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    one, other = (field_energy(model, images, find_layers(model, ["backbone", "detect"])) for model in pair)
    assert one.keys() == other.keys()
    for layer, energy in one.items():
        assert np.allclose(energy, other[layer], rtol=1e-4)


def test_all_kinds_are_drawn_for_checkpoints_and_yamls(tmp_path: Path) -> None:
    summary = visualize.run(
        weights=[segmenter(tmp_path)],
        cfg=["yolov5n-seg-LSKA.yaml"],
        source=make_image_file(tmp_path / "a.jpg", 40, 60),
        conf_thres=0.001,
        imgsz=64,
        device="cpu",
        project=tmp_path / "runs",
    )
    names = {path.name for path in summary.files}
    assert names == {"erf.png", "erf.csv", "gates_a.png", "gates.csv", "cam_a.png"}
    assert [row.layer for rows in summary.fields for row in rows] == ["layer 2: Conv", "layer 10: LSKA"]
