"""What large kernels are compared with: sizes by formula, shapes, a start as the identity, exports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.attention.controls import CBAM, ECA, EMA, SE, CoordAtt, Depthwise, Gate1x1, Residual1x1, SimAM
from models.attention.gates import CONTROLS, GATES, make_gate
from models.config import read_config, with_attention
from models.graft import graft, output_gap
from models.weights import model_record, read_checkpoint, save_checkpoint
from models.yolo import DetectionModel
from tests.known import fill
from utils.base.errors import ConfigError

Size = Callable[[int], int]
SIZES: dict[str, Size] = {
    "SE": lambda c: 2 * c * c // 16,
    "CBAM": lambda c: 2 * c * c // 16 + 99,
    "ECA": lambda c: {64: 3, 128: 5, 256: 5, 512: 5}[c],
    "CoordAtt": lambda c: (3 * c + 3) * max(8, c // 32) + 2 * c,
    "SimAM": lambda c: 0,
    "EMA": lambda c: 10 * (c // 8) ** 2 + 4 * (c // 8),
    "Gate1x1": lambda c: c * c + c,
    "Residual1x1": lambda c: c * c + 2 * c,
    "Depthwise": lambda c: (11 * 11 + 1) * c,
}
# Counted by building the published modules, at 256 channels.
PUBLISHED = {"CBAM": 8291, "SE": 8192, "EMA": 10368, "CoordAtt": 6680, "SimAM": 0, "ECA": 5, "Gate1x1": 65792}
PLACEMENTS = ("LSKA", "SPPFLSKA", "backbone-C3LSKA", "neck-C3LSKA", "head-LSKA")


def size_of(block: nn.Module) -> int:
    return sum(parameter.numel() for parameter in block.parameters())


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("dim", [64, 128, 256, 512])
def test_parameters_follow_the_formula(name: str, dim: int) -> None:
    found = size_of(make_gate(name, dim, init="paper"))
    assert found == SIZES[name](dim)
    if dim == 256 and name in PUBLISHED:
        assert found == PUBLISHED[name]


def test_reductions_reach_the_size_of_lska() -> None:
    assert size_of(SE(256, r=2)) == 65_536
    assert size_of(CBAM(256, r=2)) == 65_635
    assert size_of(CoordAtt(256, r=3)) == (3 * 256 + 3) * 85 + 2 * 256
    assert size_of(EMA(256, r=4)) == 10 * 64**2 + 4 * 64


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("shape", [(2, 16, 7, 10), (1, 16, 1, 1), (1, 16, 20, 3)])
def test_blocks_start_as_the_identity(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    block = make_gate(name, 16, 7).eval()
    assert torch.equal(block(x), x)
    paper = make_gate(name, 16, 7, init="paper").eval()(x)
    assert paper.shape == x.shape and not torch.equal(paper, x) and torch.isfinite(paper).all()


@pytest.mark.parametrize("name", CONTROLS)
def test_every_parameter_learns_from_the_identity(name: str) -> None:
    """The last layers start at zero: those before them get gradients from the second step on."""
    torch.manual_seed(0)
    block = make_gate(name, 16, 7)
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    start = {key: value.clone() for key, value in block.named_parameters()}
    x, target = torch.randn(4, 16, 12, 12), torch.randn(4, 16, 12, 12)
    for _ in range(4):
        optimizer.zero_grad()
        (block(x) - target).square().mean().backward()
        optimizer.step()
    still = {key for key, value in block.named_parameters() if torch.equal(value, start[key])}
    # The batch norm behind it takes out what this bias adds.
    assert still <= ({"conv1.bias"} if name == "CoordAtt" else set())


def test_the_gates_are_what_their_papers_describe() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 16, 5, 6)
    se = SE(16, r=4, init="paper")
    hidden = torch.relu(x.mean((2, 3)) @ se.fc1.weight[:, :, 0, 0].T)
    assert torch.allclose(se(x), x * torch.sigmoid(hidden @ se.fc2.weight[:, :, 0, 0].T)[..., None, None])
    eca = ECA(16, init="paper")
    taps = nn.functional.conv1d(x.mean((2, 3))[:, None], eca.conv.weight, padding=1)[:, 0]
    assert torch.allclose(eca(x), x * torch.sigmoid(taps)[..., None, None])
    deviation = (x - x.mean((2, 3), keepdim=True)) ** 2
    energy = deviation / (4 * (x.var((2, 3), keepdim=True) + 1e-4)) + 0.5
    assert torch.allclose(SimAM(16, init="paper")(x), x * torch.sigmoid(energy), atol=1e-6)


def test_coordinate_attention_is_a_product_of_a_row_and_a_column() -> None:
    torch.manual_seed(0)
    gate = CoordAtt(16, init="paper").eval().attention(torch.randn(1, 16, 6, 9))[0]
    for channel in gate.detach().numpy():
        assert np.linalg.matrix_rank(channel, tol=1e-5) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SE(16, r=17), "r=17: expected a reduction from 1 to 16"),
        (lambda: CBAM(16, r=0), "r=0: expected"),
        (lambda: EMA(12, r=8), "12 channels are not a multiple of r=8"),
        (lambda: Depthwise(8, k=4), "k=4 must be odd"),
        (lambda: Gate1x1(8, init="zero"), "init is 'zero'"),
        (lambda: make_gate("GAM", 8), "design 'GAM' is not one of LSKA, LKA"),
    ],
)
def test_arguments_are_checked(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    ("placement", "name"),
    [
        *((place, "CBAM") for place in PLACEMENTS),
        *((PLACEMENTS[0], name) for name in CONTROLS if name != "CBAM"),
    ],
)
def test_one_word_places_a_block_where_lska_is_and_outputs_stay(
    tmp_path: Path, placement: str, name: str
) -> None:
    plain = DetectionModel("yolov5n.yaml", nc=2)
    fill(plain, 1)
    save_checkpoint(tmp_path / "plain.pt", {"model": model_record(plain)})
    config, _ = read_config(f"yolov5n-{placement}.yaml")
    model = DetectionModel(with_attention(config, {"design": name}), nc=2)
    assert any(type(module) is CONTROLS[name] for module in model.modules())
    report = graft(model, read_checkpoint(tmp_path / "plain.pt"))
    assert (len(report.transferred), report.left_out) == (349, [])
    assert output_gap(plain.eval(), model.eval(), torch.rand(1, 3, 64, 64)) == 0


def test_a_residual_block_is_fused() -> None:
    torch.manual_seed(0)
    block, x = Residual1x1(8, init="paper").eval(), torch.randn(1, 8, 4, 4)
    before = block(x)
    block.conv.fuse()
    assert block.conv.bn is None and torch.allclose(block(x), before, atol=1e-6)


@pytest.mark.parametrize("name", CONTROLS)
def test_exports_compute_the_same(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    block, x = make_gate(name, 16, 7, init="paper").eval(), torch.randn(1, 16, 8, 10)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    expected = block(x).detach()
    assert torch.allclose(torch.jit.trace(block, x)(x), expected, atol=1e-5)
    onnxruntime = pytest.importorskip("onnxruntime")
    file = tmp_path / "block.onnx"
    torch.onnx.export(block, (x,), str(file), opset_version=17, dynamo=False, input_names=["x"])
    (found,) = onnxruntime.InferenceSession(str(file)).run(None, {"x": x.numpy()})
    assert np.abs(found - expected.numpy()).max() < 1e-5
