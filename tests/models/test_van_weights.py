"""Published VAN weights: recognised, read as data, and copied into the stages of a detector."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from graft import run as graft_script
from models.attention.van import VAN, VANStage
from models.graft import graft
from models.official_weights import locate_weights
from models.van_weights import MEAN, STD, classifier_state, detector_config, stage_gate, stage_tensors
from models.weights import VANCheckpoint, build_model, read_checkpoint
from models.yolo import DetectionModel
from tests.known import fill
from utils.base.errors import ConfigError, DataError

TINY = "yolov5-van-tiny.yaml"


def trained(size: str = "tiny", k: int = 23, design: str = "LSKA") -> VAN:
    """A classifier whose branches all contribute, as after training."""
    van = VAN(size, k, design)
    fill(van, 3)
    for key, value in van.named_parameters():
        if "layer_scale" in key:
            value.data.fill_(0.5)
    return van.eval()


def publish(van: VAN, path: Path, form: str = "state_dict") -> Path:
    """Save as the authors do, or in another common form."""
    state: Any = van.state_dict()
    if form == "module.":
        state = OrderedDict((f"module.{key}", value) for key, value in state.items())
    torch.save(state if form == "bare" else {"epoch": 300, "arch": "van", "state_dict": state}, path)
    return path


@pytest.fixture(scope="module")
def van() -> VAN:
    return trained()


@pytest.fixture(scope="module")
def file(van: VAN, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(van, tmp_path_factory.mktemp("published") / "van_tiny.pth")


def normalised(x: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (x - mean) / std


def test_stage_outputs_equal_the_classifiers(van: VAN, file: Path) -> None:
    model = DetectionModel(TINY, nc=3)
    report = graft(model, read_checkpoint(file))
    model.eval()
    x = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    embed, blocks, norm = next(iter(van.stages()))
    with torch.no_grad():
        # The detector's padding is black, the classifier's has ImageNet's mean colour.
        black = functional.conv2d(
            normalised(functional.pad(x, (3, 3, 3, 3))), embed.proj.weight, embed.proj.bias, 4
        )
        y = embed.norm(black)
        for block in blocks:
            y = block(y)
        expected = [norm(y)]
        for embed, blocks, norm in list(van.stages())[1:]:
            y = embed(expected[-1])
            for block in blocks:
                y = block(y)
            expected.append(norm(y))

        made = x
        for layer, reference in zip(model.model[:4], expected, strict=True):
            made = layer(made)
            assert torch.allclose(made, reference, atol=2e-4)

    assert (len(report.transferred), report.total) == (452, 454)
    assert "(head.bias, head.weight)" in str(report)
    assert report.moved == {0: 0, 1: 1, 2: 2, 3: 3}
    assert {int(key.split(".")[1]) for key in report.new} == {4, 5, 8, 9, 12, 13, 15, 16, 18, 19}
    assert {*report.transferred, *report.new} == set(model.state_dict())


def test_the_folded_normalisation_is_exact_in_the_interior(van: VAN, file: Path) -> None:
    model = DetectionModel(TINY, nc=3)
    graft(model, read_checkpoint(file))
    x = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        ours = model.model[0].patch_embed.eval()(x)
        theirs = van.patch_embed1(normalised(x))
    assert torch.allclose(ours[:, :, 1:, 1:], theirs[:, :, 1:, 1:], atol=1e-4)
    assert not torch.allclose(ours[:, :, 0], theirs[:, :, 0], atol=1e-2)  # these read the padding


@pytest.mark.parametrize("form", ["bare", "module."])
@pytest.mark.parametrize("suffix", [".pth", ".pth.tar"])
def test_other_forms_and_suffixes_are_read(form: str, suffix: str, van: VAN, tmp_path: Path) -> None:
    path = publish(van, tmp_path / f"van{suffix}", form)
    checkpoint = read_checkpoint(locate_weights(path))
    assert isinstance(checkpoint, VANCheckpoint) and checkpoint.state.keys() == van.state_dict().keys()


@pytest.mark.parametrize("content", [{}, {"model": 1}, [1], {"state_dict": {"conv.weight": torch.ones(1)}}])
def test_other_files_are_not_taken_for_classifiers(content: Any, tmp_path: Path) -> None:
    assert classifier_state(content) is None
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(DataError, match="other.pth: not a YOLOv5 checkpoint"):
        read_checkpoint(tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("size", "design", "k"),
    [("tiny", "LKA", 23), ("tiny", "LSKA", 7), ("tiny", "LSKATrivial", 11), ("base", "LKATrivial", 7)],
)
def test_the_yaml_is_derived_from_the_weights(size: str, design: str, k: int) -> None:
    with torch.device("meta"):
        state = VAN(size, k, design).state_dict()
        model = DetectionModel(detector_config(state), nc=2)

    assert model.yaml_file == f"yolov5-van-{size}.yaml"
    for number, stage in enumerate(model.model[:4], 1):
        theirs = {inner: value.shape for inner, value in stage_tensors(state, number).values()}
        assert theirs == {key: value.shape for key, value in stage.state_dict().items()}


@pytest.mark.parametrize(("design", "k", "d"), [("LSKA", 53, 3), ("LKA", 11, 2), ("LSKA", 15, 2)])
def test_design_and_kernel_of_gates_are_read_from_their_weights(design: str, k: int, d: int) -> None:
    stage = VANStage(3, 8, k=k, dilation=d, design=design)
    assert stage_gate(stage.state_dict()) == {"design": design, "k": k, "dilation": d}


def test_weights_of_another_size_are_rejected(tmp_path: Path) -> None:
    small = publish(VAN("small", 7), tmp_path / "van_small.pth")
    line = (
        "stage 1 has 64 channels, 2 blocks, MLP ratio 8; in yolov5-van-tiny.yaml 32 channels, 3 blocks, "
        "MLP ratio 8; use --cfg yolov5-van-small.yaml, or train.py without --cfg"
    )
    with pytest.raises(ConfigError, match=f"van_small.pth: {line}"):
        graft(DetectionModel(TINY), read_checkpoint(small))
    with pytest.raises(ConfigError, match="VAN weights need VANStage rows, and yolov5n.yaml has none"):
        graft(DetectionModel("yolov5n.yaml"), read_checkpoint(small))


def test_other_gates_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = publish(trained(design="LKA"), tmp_path / "van.pth")
    report = graft(DetectionModel(TINY), read_checkpoint(path))
    assert len(report.transferred) == 402 - 13 * 4 - 2
    assert "its gates are design=LKA k=23 dilation=3, those of yolov5-van-tiny.yaml LSKA k=23" in caplog.text
    assert "train.py --attention design=LKA k=23 dilation=3" in caplog.text


def test_a_classifier_cannot_be_built_as_a_detector(file: Path) -> None:
    with pytest.raises(DataError, match="a VAN classifier, which detects nothing; .* train.py --weights"):
        build_model(read_checkpoint(file))


def test_a_damaged_classifier_is_named(van: VAN, tmp_path: Path) -> None:
    state = {key: value for key, value in van.state_dict().items() if not key.startswith("block3")}
    torch.save(state, tmp_path / "cut.pth")
    with pytest.raises(DataError, match="cut.pth: a damaged VAN classifier"):
        read_checkpoint(tmp_path / "cut.pth")


def test_graft_py_writes_a_detector(file: Path, tmp_path: Path) -> None:
    out = graft_script(weights=file, cfg=TINY, output=tmp_path / "detector.pt", nc=3)
    model = build_model(read_checkpoint(out))
    assert model.nc == 3
    assert torch.equal(model.model[3].norm.weight, read_checkpoint(file).state["norm4.weight"])
