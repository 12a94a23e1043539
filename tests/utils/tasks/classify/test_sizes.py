"""Image sizes of classification models: checked before the work, and those of the training by default."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.backends import load_backend
from models.weights import model_record, save_checkpoint
from models.yolo import ClassificationModel
from tests.models.backends.files import CPU
from tests.studies.classifiers import CONFIG, classifier
from utils.base.errors import ConfigError
from utils.tasks.classify.sizes import check_size, check_training_size
from utils.tasks.classify.task import ClassifyTask
from utils.tasks.classify.top import shown_names
from utils.tasks.task import Task


def test_a_last_batch_of_one_image_with_a_map_of_one_cell_is_an_error() -> None:
    model = ClassificationModel("yolov5n-cls-LSKA.yaml", nc=2)
    model.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    check_training_size(model, 32, images=10, batch_size=8)
    check_training_size(model, 64, images=9, batch_size=8)
    with pytest.raises(ConfigError, match=r"--imgsz 32: .* on a batch of 1 at this size; .* --batch-size"):
        check_training_size(model, 32, images=9, batch_size=8)
    assert not model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_models_of_one_size_are_summarized_and_checked() -> None:
    row = [-1, 1, "TorchVision", ["nc", "vit_b_16"]]
    with torch.device("meta"):
        model = ClassificationModel({"nc": 3, "backbone": [], "head": [row]}, nc=3)
    assert model.summary().endswith(" gradients")
    check_training_size(model, 224, images=2, batch_size=2)
    with pytest.raises(ConfigError, match="Expected 224 but got 64"):
        check_training_size(model, 64, images=2, batch_size=2)


def test_another_size_than_that_of_the_training_gives_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = ClassificationModel(CONFIG, nc=5)
    save_checkpoint(tmp_path / "own.pt", {"model": model_record(model), "opt": {"imgsz": 96}})
    backend = load_backend(tmp_path / "own.pt", CPU)
    check_size(backend, 96)
    assert "trained at" not in caplog.text
    check_size(backend, 224)
    assert "own.pt was trained at 96 px and runs at 224 px" in caplog.text
    check_size(load_backend(classifier(tmp_path), CPU), 224)
    assert caplog.text.count("trained at") == 1, "nothing is said where the file does not know"
    with pytest.raises(ConfigError, match="--imgsz 1: .*own.pt cannot run at this size"):
        check_size(backend, 1)


def test_the_default_size_is_that_of_the_training() -> None:
    assert (ClassifyTask().size_for(96), ClassifyTask().size_for(None)) == (96, 224)
    assert (Task().size_for(96), Task().size_for(None)) == (640, 640)


def test_ids_of_imagenet_are_shown_as_words() -> None:
    ids = {index: f"n{index:08}" for index in range(1000)} | {0: "n01440764"}
    names = shown_names(ids)
    assert (names[0], names[999], len(names)) == ("tench", "toilet tissue", 1000)
    assert shown_names({0: "n01440764", 1: "b"}) == {0: "n01440764", 1: "b"}
