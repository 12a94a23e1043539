"""Heat maps: known features are found at their positions; EigenCAM is the first principal component."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from studies.explain.heatmap import BoxFilter, Heat, eigen_cam_map, eigencam, grad_cam_map, gradcam, merge
from tests.known import SHARED, needs_shared

CELL = 8  # pixels


class TwoFeatures:
    """A model with two features in an 8 x 8 map, one for each class.

    There is one box for each class: at (row 2, column 5) and (row 6, column 1).
    """

    positions = ((2, 5), (6, 1))

    def __call__(self, images: torch.Tensor, visualize: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
        base = images.mean(1, keepdim=True)[:, :, ::CELL, ::CELL] * 0
        blobs = torch.zeros(1, 2, 8, 8)
        for channel, (row, column) in enumerate(self.positions):
            blobs[0, channel, row, column] = 1
            blobs[0, channel, row, column - 1] = 0.5  # no box here, but gradients are pooled
        maps = base + blobs
        visualize(type("Layer", (), {"i": 3, "type": "C3"}), maps)
        rows = []
        for kind, (row, column) in enumerate(self.positions):
            score = maps[0, kind, row, column] * 0.9
            x, y = (column + 0.5) * CELL, (row + 0.5) * CELL
            scores = [score, score * 0]
            box = torch.tensor([x, y, 2.0 * CELL, 2.0 * CELL, 1.0])
            rows.append(torch.cat((box, torch.stack(scores[:: 1 - 2 * kind]))))
        return torch.stack(rows)[None], []


IMAGE = torch.full((1, 3, 64, 64), 0.5)


def hottest(heat: Heat) -> tuple[int, int]:
    """Return the (row, column) of the cell with the maximum."""
    assert heat.heat is not None
    row, column = np.unravel_index(heat.heat.argmax(), heat.heat.shape)
    return int(row) // CELL, int(column) // CELL


@pytest.mark.parametrize("kind", [0, 1])
def test_gradcam_has_its_maximum_at_the_feature_of_the_class(kind: int) -> None:
    model: Any = TwoFeatures()
    heat = gradcam(model, IMAGE, [3], BoxFilter(classes=[kind]))
    assert heat.heat is not None and heat.heat.shape == (64, 64)
    assert heat.heat.max() == 1 and heat.heat.min() == 0
    assert hottest(heat) == TwoFeatures.positions[kind]
    other = TwoFeatures.positions[1 - kind]
    assert heat.heat[other[0] * CELL + 4, other[1] * CELL + 4] == 0
    row, column = TwoFeatures.positions[kind]
    assert heat.heat[row * CELL + 4, (column - 1) * CELL + 4] == pytest.approx(0.5, abs=0.1)
    assert heat.detections[:, 5].tolist() == [kind]
    assert heat.detections[0, 4] == pytest.approx(0.9)


def test_gradcam_of_all_boxes_has_both_features() -> None:
    model: Any = TwoFeatures()
    heat = gradcam(model, IMAGE, [3], BoxFilter())
    assert len(heat.detections) == 2
    for row, column in TwoFeatures.positions:
        assert heat.heat is not None and heat.heat[row * CELL + 4, column * CELL + 4] > 0.9


def test_without_boxes_gradcam_has_no_map() -> None:
    model: Any = TwoFeatures()
    heat = gradcam(model, IMAGE, [3], BoxFilter(confidence=0.95))
    assert heat.heat is None
    assert heat.detections.shape == (0, 6)
    assert eigencam(model, IMAGE, [3], BoxFilter(confidence=0.95)).heat is not None


@pytest.mark.parametrize("shape", [(6, 5, 7), (50, 3, 4)])
def test_eigencam_is_the_first_component_of_numpys_svd(shape: tuple[int, int, int]) -> None:
    source = np.random.default_rng(0).standard_normal(shape) + 0.3
    values = source.reshape(shape[0], -1).T
    first = values @ np.linalg.svd(values)[2][0]
    first = (first * np.sign(first.sum())).clip(0).reshape(shape[1:])
    found = eigen_cam_map(torch.from_numpy(source)[None])
    np.testing.assert_allclose(found / found.max(), first / first.max(), atol=1e-6)


def test_gradcam_weights_channels_by_their_gradient_and_clips_negative_values() -> None:
    source = torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])  # two channels of 1 x 2
    gradient = torch.tensor([[[[1.0, 1.0]], [[-1.0, 0.0]]]])
    np.testing.assert_allclose(grad_cam_map(source, gradient), [[0, 4]])  # 2 * 1 - 1 * 3 < 0


def test_maps_are_enlarged_and_added() -> None:
    near, far = np.array([[0.0, 2.0], [0.0, 0.0]], np.float32), np.array([[2.0]], np.float32)
    merged = merge([near, far], (2, 2))
    assert merged is not None
    np.testing.assert_allclose(merged, [[0.5, 1], [0.5, 0.5]])
    assert merge([np.zeros((2, 2), np.float32)], (4, 4)) is None


@needs_shared
def test_the_heat_of_official_weights_is_inside_their_boxes() -> None:
    import cv2

    from models.weights import load_for_inference
    from models.yolo import DetectionModel
    from studies.explain.layers import head_inputs
    from tests.known import to_tensor
    from utils.data.letterbox import letterbox

    model = load_for_inference(SHARED / "weights" / "yolov5n.pt", torch.device("cpu"), fuse=False)
    assert isinstance(model, DetectionModel)
    image = letterbox(cv2.imread(str(SHARED / "data" / "zidane.jpg")), 320)[0]
    heat = gradcam(model, to_tensor(image[None]), head_inputs(model), BoxFilter())
    assert heat.heat is not None and heat.heat.shape == image.shape[:2]
    inside = np.zeros(heat.heat.shape, bool)
    for x1, y1, x2, y2 in heat.detections[:, :4].astype(int):
        inside[y1:y2, x1:x2] = True
    assert inside.mean() < 0.7
    assert heat.heat[inside].sum() / heat.heat.sum() > 0.95
