"""The models to visualize, and their labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.weights import model_record, save_checkpoint
from models.yolo import DetectionModel
from studies.explain.labelled_models import load_labelled_models, unique_labels
from utils.base.errors import ConfigError

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["a.pt", "x/b.pt"], ["a", "b"]),
        (["runs/a/weights/best.pt", "runs/b/weights/best.pt", "c.pt"], ["a/best", "b/best", "c"]),
        (["x/best.pt", "y/best.pt"], ["x/best", "y/best"]),
        (["1/run/best.pt", "2/run/best.pt"], [str(Path("1/run/best.pt")), str(Path("2/run/best.pt"))]),
        (["a.pt", "a.pt", "b.pt"], ["a", "a2", "b"]),
    ],
)
def test_labels_are_as_short_as_possible(paths: list[str], labels: list[str]) -> None:
    assert unique_labels([Path(path) for path in paths]) == labels


def test_trained_and_untrained_models(tmp_path: Path) -> None:
    model = DetectionModel("yolov5n.yaml", nc=2)
    file = tmp_path / "yolov5n.pt"
    save_checkpoint(file, {"epoch": -1, "model": model_record(model), "ema": None, "optimizer": None})
    models = load_labelled_models([str(file)], ["yolov5n.yaml"], CPU)
    assert [model.label for model in models] == ["yolov5n", "yolov5n (untrained)"]
    assert [model.model.nc for model in models] == [2, 80]
    for model in models:
        assert not model.model.training
        assert not any(value.requires_grad for value in model.model.parameters())


def test_an_untrained_model_depends_only_on_the_seed() -> None:
    state = torch.get_rng_state()
    weights = []
    for seed in (1, 1, 2):
        (model,) = load_labelled_models([], ["yolov5n.yaml"], CPU, seed)
        weights.append(model.model.model[0].conv.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["a.onnx", "a.torchscript", "a.engine"])
def test_other_formats_are_errors_before_they_are_opened(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name}: .*give the \.pt file"):
        load_labelled_models([name], [], CPU)


def test_equal_labels_are_an_error() -> None:
    with pytest.raises(ConfigError, match="--labels same"):
        load_labelled_models([], ["yolov5n.yaml", "yolov5n.yaml"], CPU, labels=["same", "same"])


def test_models_with_other_channels_are_an_error(tmp_path: Path) -> None:
    cfg = tmp_path / "grey.yaml"
    cfg.write_text(Path("models/yolov5n.yaml").read_text() + "\nch: 1\n")
    with pytest.raises(ConfigError, match="grey.yaml: takes images of 1 channels"):
        load_labelled_models([], [str(cfg)], CPU)
