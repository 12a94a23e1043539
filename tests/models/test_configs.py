"""All configs build the models of the original: sizes, names, strides, GFLOPs, outputs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.config import MULTIPLES, config_names, read_config
from models.yolo import DetectionModel, make_model, task_of
from tests.known import arrays, fill, golden, pattern_image, to_tensor
from utils.base.paths import ROOT

MODELS: dict[str, dict[str, Any]] = {
    name: known
    for name, known in golden("09_models")["models"].items()
    if "parameters" in known and "seg" not in name
}
FORWARD = {name: known for name, known in golden("09b_model_forward")["models"].items() if "seg" not in name}
LSKA = [
    name
    for name in config_names()
    if "LSKA" in name
    and not any(part in name for part in ("-seg", "-cls"))
    and not name.startswith("yolov5-")
]


def hollow(cfg: str | Path, nc: int | None = None) -> DetectionModel:
    """Make a model without weights, for tests that need only shapes."""
    with torch.device("meta"):
        model: DetectionModel = make_model(cfg, nc=nc)
        return model


@pytest.mark.parametrize("name", MODELS)
def test_sizes_equal_the_originals(name: str) -> None:
    known = MODELS[name]
    model = hollow(f"models/{name.split('@')[0]}", known["nc"])
    state = [
        [key, list(v.shape), str(v.dtype).removeprefix("torch.")] for key, v in model.state_dict().items()
    ]

    assert sum(p.numel() for p in model.parameters()) == known["parameters"]
    assert sum(1 for m in model.modules() if not any(m.children())) == known["leaf_layers"]
    assert model.stride.tolist() == known["stride"]
    assert model.save == known["save"]
    assert [[m.i, m.f, m.type, m.np] for m in model.model] == known["layers"]
    assert len(state) == known["state_dict_entries"]
    digest = hashlib.sha256(json.dumps(state, separators=(",", ":")).encode()).hexdigest()
    assert digest == known["state_dict_sha256"]
    assert model.gflops() == pytest.approx(known["gflops_640"], rel=0.02)


@pytest.mark.parametrize("name", ["yolov5n.yaml", "yolov5s.yaml", "hub/yolov5s6.yaml"])
def test_state_dict_keys_in_order(name: str) -> None:
    known = golden("09_state_dict_keys")[name]
    assert [
        [k, list(v.shape), str(v.dtype).removeprefix("torch.")]
        for k, v in hollow(f"models/{name}").state_dict().items()
    ] == known


@pytest.mark.parametrize("name", FORWARD)
def test_outputs_equal_the_originals_in_float64(name: str) -> None:
    known = FORWARD[name]
    path = next(ROOT.glob(f"models/**/{Path(name).name}.yaml"))
    model = DetectionModel(path, nc=4)
    fill(model, 1)
    model.double()
    q = max(32, int(model.stride.max()))
    x = to_tensor(pattern_image(4 * q, 5 * q, 5)[None]).double()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
        decoded, maps = model.eval()(x)

    stored = arrays("09b_model_forward")
    for level, (logits, stats) in enumerate(zip(maps, known["raw"], strict=True)):
        rows = logits.reshape(-1, 9)[stored[f"{name}/raw{level}_idx"].astype(np.int64)]
        gap = np.abs(rows.numpy() - stored[f"{name}/raw{level}_rows"]).max()
        assert gap <= 1e-5 * max(stats["std"], 1) + 2e-7 * abs(stats["max"])
    assert list(decoded.shape) == known["decoded"]["shape"]
    assert float(decoded.mean()) == pytest.approx(known["decoded"]["mean"], rel=1e-5)

    with torch.no_grad():
        fused = model.float().fuse()(x.float())[0]
    floor = known["fused_fp32_vs_fp64_max_abs_diff_obj_cls"]
    assert float((fused[..., 4:] - decoded[..., 4:]).abs().max()) <= 10 * floor


def test_all_scales_of_all_placements_have_a_name() -> None:
    variants = ("-LSKA", "-SPPFLSKA", "-backbone-C3LSKA", "-neck-C3LSKA", "-head-LSKA")
    assert set(LSKA) == {f"yolov5{scale}{variant}.yaml" for scale in "nsmlx" for variant in variants}


@pytest.mark.parametrize("name", config_names())
def test_every_config_can_be_built(name: str) -> None:
    model = hollow(name)
    assert model.yaml_file == name
    assert model.stride.tolist() == sorted(model.stride.tolist())


@pytest.mark.parametrize("name", LSKA)
def test_every_attention_config_adds_attention_to_its_scale(name: str) -> None:
    model = hollow(name)
    plain = hollow(f"{name.split('-')[0]}.yaml")
    assert [model.yaml[key] for key in MULTIPLES] == [plain.yaml[key] for key in MULTIPLES]
    assert model.stride.tolist() == [8, 16, 32]
    assert model.nc == 80
    extra = {
        k for k in model.state_dict() if "attention" in k or "conv0h" in k or "gating" in k or "proj" in k
    }
    assert len(extra) > 0
    assert len(model.state_dict()) > len(plain.state_dict())


def test_biases_start_at_the_priors() -> None:
    known = golden("09_models")["bias_init"]["nc3"]
    torch.manual_seed(0)
    model = DetectionModel("yolov5n.yaml", nc=3)
    for conv, offset in zip(model.head.m, known["obj_offset"], strict=True):
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        bias = conv.bias.detach().view(3, 8)
        limit = conv.in_channels**-0.5  # PyTorch's default bias is uniform within it
        assert ((bias[:, 4] - offset).abs() <= limit).all()
        assert ((bias[:, 5:] - known["cls_offset"]).abs() <= limit).all()


def test_decoding_of_zero_logits() -> None:
    model = DetectionModel("yolov5n.yaml", nc=3).eval()
    head = model.head
    for conv in head.m:
        for value in conv.parameters():
            nn.init.zeros_(value)
    decoded, _ = head([torch.rand(1, c, n, n) for c, n in ((64, 4), (128, 2), (256, 1))])

    assert decoded.shape == (1, 63, 8)
    expected = {0: (4, 4, 10, 13), 1: (12, 4, 10, 13), 4: (4, 12, 10, 13), 16: (4, 4, 16, 30)}
    expected |= {48: (8, 8, 30, 61), 60: (16, 16, 116, 90)}
    for row, box in expected.items():
        assert decoded[0, row].tolist() == [*box, 0.5, 0.5, 0.5, 0.5]


def test_gradients_flow_after_a_pass_without() -> None:
    model = DetectionModel("yolov5n.yaml", nc=2).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        model(x)
    x.requires_grad_()
    model(x)[0].sum().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_boxes_are_decoded_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    model = DetectionModel("yolov5n.yaml", nc=2).eval()
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        decoded, maps = model(x)
    assert maps[0].dtype == torch.bfloat16 and decoded.dtype == torch.float32
    by_hand = maps[2].float().sigmoid()[0, 0, 1, 1, :2] * 2 * 32 + 0.5 * 32
    assert torch.allclose(decoded[0, -12 + 3, :2], by_hand, atol=1e-3)  # anchor 0, row 1, column 1 of P5


def test_files_of_scale_n_with_attention_are_detectors() -> None:
    """Scripts from outside graft yolov5n.pt into all of them; other tasks have files of scale s instead."""
    files = sorted((ROOT / "models").rglob("yolov5n-*LSKA*.yaml"))
    assert len(files) >= 4 and all(task_of(read_config(file)[0]) == "detect" for file in files)
    for name in ("yolov5n-seg-LSKA.yaml", "yolov5n-cls-LSKA.yaml", "models/segment/yolov5n-seg-LSKA.yaml"):
        config, _ = read_config(name)
        assert (config["depth_multiple"], config["width_multiple"]) == (0.33, 0.25)
