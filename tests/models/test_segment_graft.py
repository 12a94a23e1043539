"""Grafting segmentation models: from detection weights, into models with attention, for other classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.config import read_config
from models.graft import graft, load_by_key, output_gap
from models.weights import Checkpoint, build_model, model_record, read_checkpoint, save_checkpoint
from models.yolo import DetectionModel, SegmentationModel, make_model
from tests.known import fill

VARIANTS = ("-LSKA", "-SPPFLSKA", "-backbone-C3LSKA", "-neck-C3LSKA", "-head-LSKA")


def trained(folder: Path, name: str) -> Checkpoint:
    """Return a checkpoint of a model in which no weight has its initial value."""
    model = make_model(name, nc=4)
    fill(model, 1)
    model.names = {i: f"class {i}" for i in range(4)}
    path = folder / f"{Path(name).stem}.pt"
    save_checkpoint(path, {"model": model_record(model)})
    return read_checkpoint(path)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A trained yolov5n."""
    return trained(tmp_path_factory.mktemp("weights"), "yolov5n.yaml")


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """A trained yolov5n-seg."""
    return trained(tmp_path_factory.mktemp("weights"), "yolov5n-seg.yaml")


def head_rows(model: DetectionModel) -> list[Tensor]:
    """Return the weights of each level of the head by anchor and output: (na, no, channels + 1)."""
    state, head = model.head.m.state_dict(), model.head
    return [
        torch.cat((state[f"{i}.weight"].flatten(1), state[f"{i}.bias"][:, None]), 1).view(
            head.na, head.no, -1
        )
        for i in range(head.nl)
    ]


def outputs(model: DetectionModel) -> tuple[Tensor, ...]:
    image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return tuple(model.eval()(image)[:2])


def test_a_checkpoint_becomes_a_segmentation_model_again(masks: Checkpoint) -> None:
    model = build_model(masks)
    assert isinstance(model, SegmentationModel) and (model.nc, model.names[3]) == (4, "class 3")
    again = make_model("yolov5n-seg.yaml", nc=4)
    fill(again, 1)
    torch.testing.assert_close(outputs(model), outputs(again))


@pytest.mark.parametrize("name", ["yolov5n-seg.yaml", "yolov5n-seg-LSKA.yaml"])
def test_rows_of_a_detection_head_arrive_in_a_segmentation_head(name: str, boxes: Checkpoint) -> None:
    source, model = build_model(boxes), make_model(name, nc=4)
    before = [rows.clone() for rows in head_rows(model)]
    report = graft(model, boxes)

    assert (len(report.transferred), len(report.in_part), report.left_out) == (343, 6, [])
    assert "in part: 6 tensors of the head" in str(report) and model.names == boxes.names
    for old, new, first in zip(head_rows(source), head_rows(model), before, strict=True):
        assert torch.equal(new[:, : 5 + 4], old)
        assert torch.equal(new[:, 5 + 4 :], first[:, 5 + 4 :])  # coefficients keep their initial values
    assert all(".proto." in key for key in report.new if key.startswith(f"model.{len(model.model) - 1}."))
    decoded, expected = outputs(model)[0], outputs(source)[0]
    torch.testing.assert_close(decoded[..., :9], expected, rtol=1e-4, atol=1e-4)


def test_loading_detection_weights_by_key_leaves_the_head(boxes: Checkpoint) -> None:
    model = make_model("yolov5n-seg.yaml", nc=4)
    report = load_by_key(model, boxes, keep_anchors=True)
    assert (len(report.transferred), report.total) == (343, 349)  # of equal name and shape; the anchors agree
    assert all(key.startswith("model.24.m.") for key in report.left_out)


@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_does_not_change_the_outputs_of_segmentation_weights(
    variant: str, masks: Checkpoint
) -> None:
    model = make_model(f"yolov5n-seg{variant}.yaml", nc=4)
    report = graft(model, masks)
    assert (len(report.transferred), report.total, report.left_out) == (367, 367, [])
    assert len(report.new) == len(model.state_dict()) - 367
    source = build_model(masks)
    assert output_gap(source, model, torch.rand(1, 3, 64, 96)) <= 1e-5
    torch.testing.assert_close(outputs(model), outputs(source), rtol=1e-5, atol=1e-5)


def test_a_head_for_other_classes_gets_boxes_objectness_and_coefficients(masks: Checkpoint) -> None:
    source, model = build_model(masks), make_model("yolov5n-seg.yaml", nc=2)
    report = graft(model, masks)
    assert (len(report.transferred), len(report.in_part), report.left_out) == (361, 6, [])
    for old, new in zip(head_rows(source), head_rows(model), strict=True):
        assert torch.equal(new[:, :5], old[:, :5]) and torch.equal(new[:, -32:], old[:, -32:])
    found, expected = outputs(model), outputs(source)
    torch.testing.assert_close(found[0][..., -32:], expected[0][..., -32:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1], expected[1])


def test_segmentation_weights_become_a_detector(masks: Checkpoint) -> None:
    source, model = build_model(masks), make_model("yolov5n-LSKA.yaml", nc=4)
    report = graft(model, masks)
    assert len(report.in_part) == 6 and all(".proto." in key for key in report.left_out)
    torch.testing.assert_close(outputs(model)[0], outputs(source)[0][..., :9], rtol=1e-4, atol=1e-4)


def test_other_prototypes_are_left_out(masks: Checkpoint) -> None:
    config, _ = read_config("yolov5n-seg.yaml")
    config["head"][-1][3][2:] = [8, 128]  # of 32 coefficients, 256 channels
    model = make_model(config, nc=4)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = graft(model, masks)
    left_out = [key for key in report.left_out if ".proto." in key]
    assert left_out and set(left_out) <= set(report.new)
    assert all(before[key].equal(model.state_dict()[key]) for key in left_out)
    for rows, others in zip(head_rows(model), head_rows(build_model(masks)), strict=True):
        assert rows[:, :9].equal(others[:, :9])


def test_another_scale_is_grafted_without_its_convolutions(masks: Checkpoint) -> None:
    report = graft(make_model("yolov5s-seg.yaml", nc=4), masks)
    assert list(report.moved) == [24] and all(".proto." not in key for key in report.in_part)
