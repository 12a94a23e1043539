"""Heat maps of a class, gates, and receptive fields of classification models."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import visualize
from models.yolo import ClassificationModel
from studies.explain.heatmap import ClassTarget, gradcam
from studies.explain.layers import find_layers, run_and_keep
from studies.explain.receptive_field import field_energy
from tests.studies.classifiers import CONFIG, classifier
from tests.studies.segmenters import segmenter
from tests.utils.sources.test_source import make_image_file
from utils.base.errors import ConfigError

SIDE = 64


@pytest.fixture
def model() -> ClassificationModel:
    """A network that ends with a mean over the map and a linear layer."""
    torch.manual_seed(0)
    return ClassificationModel(CONFIG, nc=5).eval().requires_grad_(False)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def test_grad_cam_of_a_linear_head_is_the_map_of_its_weights(
    model: ClassificationModel, images: torch.Tensor
) -> None:
    """Grad-CAM generalizes CAM (Selvaraju et al., section 3.1): the channels weighted by the linear layer."""
    layers = find_layers(model, ["head"])
    kept, logits = run_and_keep(model, images, layers)
    for number in range(5):
        weights = model.model[-1].linear.weight[number]
        expected = torch.einsum("c,chw->hw", weights, kept[layers[0]][0]).clamp(min=0)
        found = gradcam(model, images, layers, ClassTarget(number))
        probability, explained = found.detections[0]
        assert explained == number and probability == pytest.approx(float(logits[0].softmax(0)[number]))
        if not expected.any():
            assert found.heat is None
            continue
        assert found.heat is not None
        enlarged = cv2.resize(expected.numpy(), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(found.heat, enlarged / enlarged.max(), atol=1e-4)


def test_the_most_probable_class_is_explained_by_default(
    model: ClassificationModel, images: torch.Tensor
) -> None:
    layers = find_layers(model, ["head"])
    best = int(model(images).argmax())
    found, named = (gradcam(model, images, layers, ClassTarget(each)) for each in (None, best))
    assert found.detections[0, 1] == best
    np.testing.assert_array_equal(found.detections, named.detections)
    assert (found.heat is None) == (named.heat is None)
    assert found.heat is None or np.array_equal(found.heat, named.heat)


def test_layers_have_names_without_levels(model: ClassificationModel, images: torch.Tensor) -> None:
    assert find_layers(model, ["backbone", "head", "1"]) == [2, 1]
    assert field_energy(model, images, [1, 2]).keys() == {1, 2}
    with pytest.raises(ConfigError, match=r"--layer p3: .* has the layers 0-2, backbone, head$"):
        find_layers(model, ["p3"])


def test_all_kinds_are_drawn_of_the_central_square(tmp_path: Path) -> None:
    summary = visualize.run(
        weights=[classifier(tmp_path)],
        cfg=["yolov5n-cls-LSKA.yaml"],
        source=make_image_file(tmp_path / "a.jpg", 40, 60),
        classes=[1],
        imgsz=SIDE,
        device="cpu",
        project=tmp_path / "runs",
    )
    names = {path.name for path in summary.files}
    assert names == {"erf.png", "erf.csv", "gates_a.png", "gates.csv", "cam_a.png"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"classes": [0, 1]}, "explain one class at a time; give one"),
        ({"classes": [5]}, "5"),
        ({"conf_thres": 0.5}, "--conf-thres: a classification model has no boxes; leave it out"),
        ({"imgsz": (64, 96)}, "--imgsz 64 96: a classification model sees squares; give one side"),
        ({"cfg": ["yolov5n.yaml"]}, "which sees another part of an image: show them in two runs"),
    ],
)
def test_flags_that_do_not_fit_are_errors(tmp_path: Path, flags: dict[str, object], message: str) -> None:
    image = make_image_file(tmp_path / "a.jpg", 40, 60)
    with pytest.raises(ConfigError, match=message):
        visualize.run(
            weights=[classifier(tmp_path)], source=image, device="cpu", project=tmp_path / "runs", **flags
        )
    assert not (tmp_path / "runs").exists()


def test_a_segmentation_model_is_shown_in_another_run(tmp_path: Path) -> None:
    image = make_image_file(tmp_path / "a.jpg", 40, 60)
    with pytest.raises(ConfigError, match="classifier is a classification model, segmenter a segmentation"):
        visualize.run(
            weights=[classifier(tmp_path), segmenter(tmp_path)], source=image, device="cpu",
            project=tmp_path / "runs",
        )  # fmt: skip
