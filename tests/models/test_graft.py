"""Grafting: all tensors of the source are transferred, and the outputs do not change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from models.config import config_names
from models.graft import align, graft, output_gap
from models.weights import Checkpoint, build_model, model_record, read_checkpoint, save_checkpoint
from models.yolo import DetectionModel
from tests.known import SHARED, fill, needs_shared

LSKA_N = [
    name
    for name in config_names()
    if name.startswith("yolov5n-") and "LSKA" in name and "-seg" not in name and "-cls" not in name
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A yolov5n in which no weight has its initial value."""
    model = DetectionModel("yolov5n.yaml", nc=4)
    fill(model, 1)
    model.names = {i: f"class {i}" for i in range(4)}
    path = tmp_path_factory.mktemp("weights") / "trained.pt"
    save_checkpoint(path, {"model": model_record(model)})
    return read_checkpoint(path)


@pytest.mark.parametrize("name", LSKA_N)
def test_all_tensors_are_transferred_and_outputs_do_not_change(name: str, trained: Checkpoint) -> None:
    model = DetectionModel(name, nc=4)
    report = graft(model, trained)

    assert (len(report.transferred), report.total, report.left_out) == (349, 349, [])
    assert "349 of 349 tensors" in str(report)
    assert len(report.new) == len(model.state_dict()) - 349
    assert model.names == trained.names
    assert output_gap(build_model(trained), model, torch.rand(1, 3, 64, 96)) <= 1e-5


def test_loading_by_key_would_lose_most(trained: Checkpoint) -> None:
    state = DetectionModel("yolov5n-LSKA.yaml", nc=4).state_dict()
    by_key = [k for k, v in trained.state.items() if k in state and state[k].shape == v.shape]
    assert len(by_key) < 250  # what loading by key transfers


def test_paper_initialisation_changes_the_outputs(trained: Checkpoint) -> None:
    cfg = {**json.loads(json.dumps(DetectionModel("yolov5n-LSKA.yaml").yaml)), "init": "paper"}
    model = DetectionModel(cfg, nc=4)
    assert len(graft(model, trained).transferred) == 349
    assert output_gap(build_model(trained), model, torch.rand(1, 3, 64, 64)) > 1e-3


def test_a_head_for_other_classes_gets_box_and_objectness_channels(trained: Checkpoint) -> None:
    model = DetectionModel("yolov5n-LSKA.yaml", nc=2)
    report = graft(model, trained)
    assert (len(report.transferred), len(report.in_part), report.left_out) == (343, 6, [])
    assert "in part: 6 tensors" in str(report)

    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        before, after = build_model(trained)(x)[0], model.eval()(x)[0]
    # Boxes and objectness: the same channels, but a smaller convolution may sum in another order.
    assert torch.allclose(before[..., :5], after[..., :5], rtol=1e-5, atol=1e-4)
    assert (before.shape[2], after.shape[2]) == (9, 7)


def test_a_head_with_other_anchors_is_left_out(trained: Checkpoint) -> None:
    own = [[8, 8, 16, 16, 24, 24], [32, 32, 64, 64, 48, 96], [100, 100, 200, 200, 300, 300]]
    report = graft(DetectionModel("yolov5n.yaml", nc=2, anchors=own), trained, keep_anchors=True)
    assert report.in_part == [] and len(report.left_out) == 7


def test_anchors_are_copied_unless_kept(trained: Checkpoint) -> None:
    own = [[8, 8, 16, 16, 24, 24], [32, 32, 64, 64, 48, 96], [100, 100, 200, 200, 300, 300]]
    follows, keeps = (DetectionModel("yolov5n-LSKA.yaml", nc=4, anchors=own) for _ in range(2))
    graft(follows, trained)
    report = graft(keeps, trained, keep_anchors=True)
    assert follows.head.anchors_px()[0, 0].tolist() == [10, 13]
    assert keeps.head.anchors_px()[0, 0].tolist() == [8, 8]
    assert report.left_out == ["model.24.anchors"]


def test_a_graft_can_be_reversed(trained: Checkpoint, tmp_path: Path) -> None:
    model = DetectionModel("yolov5n-head-LSKA.yaml", nc=4)
    graft(model, trained)
    save_checkpoint(tmp_path / "lska.pt", {"model": model_record(model)})
    plain = DetectionModel("yolov5n.yaml", nc=4)
    report = graft(plain, read_checkpoint(tmp_path / "lska.pt"))
    assert len(report.transferred) == 349 and report.new == []
    assert output_gap(build_model(trained), plain, torch.rand(1, 3, 64, 64)) == 0


def test_layers_are_paired_in_order() -> None:
    pairs = align(DetectionModel("yolov5n.yaml"), DetectionModel("yolov5n-LSKA.yaml"))
    tensors = [i for i in range(25) if i not in (11, 12, 15, 16, 19, 22)]  # the others hold none
    assert pairs == {i: i + (i > 9) for i in tensors}


def test_another_scale_does_not_fit(trained: Checkpoint) -> None:
    report = graft(DetectionModel("yolov5s.yaml", nc=4), trained)
    assert list(report.moved) == [24]  # of the head, anchors and biases have the same shapes


@needs_shared
@pytest.mark.parametrize("name", LSKA_N)
def test_official_weights_are_transferred_completely(name: str) -> None:
    checkpoint = read_checkpoint(SHARED / "weights/yolov5n.pt")
    model = DetectionModel(name)
    assert len(graft(model, checkpoint).transferred) == 349
    image = torch.rand(1, 3, 160, 128, generator=torch.Generator().manual_seed(0))
    assert output_gap(build_model(checkpoint), model, image) <= 1e-5
