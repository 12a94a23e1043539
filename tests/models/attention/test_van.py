"""VAN: published names, counts and outputs; stages as rows of a yaml."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models.attention.lska import DESIGNS
from models.attention.van import SIZES, VAN, DropPath, VANBlock, VANStage, rising_rates
from models.yolo import DetectionModel, read_config
from tests.known import arrays, fill, golden, pattern_image, to_tensor
from utils.base.errors import ConfigError
from utils.ops.flops import macs_by_module, macs_with_biases

KNOWN: dict[str, Any] = golden("10_lska")["van"]
COUNTED = [name for name, known in KNOWN.items() if isinstance(known, dict) and "parameters" in known]
CONFIGS = {"tiny": "yolov5-van-tiny.yaml", "small": "yolov5-van-small.yaml"}


def hollow(size: str = "tiny", k: int = 23, design: str = "LSKA") -> VAN:
    with torch.device("meta"):
        return VAN(size, k, design)


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def gmacs(module: nn.Module, side: int = 224, **how: Any) -> float:
    return sum(macs_by_module(module, torch.empty(1, 3, side, side, device="meta"), **how).values()) / 1e9


def small_config(**changes: Any) -> dict[str, Any]:
    """Return the tiny config with two classes and other keywords for its stages."""
    config, _ = read_config(CONFIGS["tiny"])
    for row in config["backbone"][:4]:
        row[3][-1].update(changes)
    return config | {"nc": 2}


@pytest.mark.parametrize("name", COUNTED)
def test_counts_equal_the_authors(name: str) -> None:
    known = KNOWN[name]
    size, _, k = name.removeprefix("van_").partition("/k")
    model = hollow(size, int(k))
    work = macs_by_module(model, torch.empty(1, 3, 224, 224, device="meta"))
    plain = sum(macs for leaf, macs in work.items() if isinstance(leaf, nn.Conv2d | nn.Linear))

    assert parameters(model) == known["parameters"]
    assert plain == round(known["conv_linear_gmacs_224"] * 1e9)
    assert sum(work.values()) == round(known["thop_gmacs_224"] * 1e9)
    in_gates = sum(p.numel() for key, p in model.named_parameters() if "spatial_gating_unit" in key)
    assert in_gates == known["lska_attention_parameters"]


@pytest.mark.parametrize(
    ("size", "millions", "published"), [("tiny", 4.11, 0.88), ("small", 13.86, 2.52), ("base", 26.58, 5.03)]
)
def test_lka_counts_as_the_van_paper_published(size: str, millions: float, published: float) -> None:
    model = hollow(size, 23, "LKA")

    gate = model.block1[0].attn.spatial_gating_unit
    assert [tuple(c.weight.shape[2:]) for c in (gate.conv0, gate.conv_spatial)] == [(5, 5), (7, 7)]
    assert round(parameters(model) / 1e6, 2) == millions
    assert round(gmacs(model, cost=macs_with_biases), 2) == published  # the paper adds the biases


def test_lska_counts_as_its_paper_published() -> None:
    assert [parameters(hollow(k=k)) for k in (7, 23, 53)] == [4_009_800, 4_029_000, 4_061_000]
    assert round(gmacs(hollow()), 3) == 0.839


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("k", [7, 35])
def test_designs_differ_only_in_their_kernels(design: str, k: int) -> None:
    near, far = (3, 3) if k == 7 else (5, 11)
    taps = {"LKATrivial": k**2, "LSKATrivial": 2 * k, "LKA": near**2 + far**2, "LSKA": 2 * (near + far)}
    biases = {"LKATrivial": 1, "LSKATrivial": 2, "LKA": 2, "LSKA": 4}
    size = SIZES["tiny"]
    width = sum(c * n for c, n in zip(size.channels, size.blocks, strict=True))

    def other_parameters(name: str) -> int:
        return parameters(hollow(k=k, design=name)) - width * (taps[name] + biases[name])

    assert other_parameters(design) == other_parameters("LSKA")


def test_state_dict_keys_in_order() -> None:
    state = [[key, list(value.shape)] for key, value in hollow().state_dict().items()]
    assert len(state) == 454
    assert state == KNOWN["van_tiny_k23_state_dict"]


@pytest.mark.parametrize("k", [7, 23, 53])
def test_logits_equal_the_authors_classifier(k: int) -> None:
    model = VAN("tiny", k).eval()
    fill(model, 3)
    for key, value in model.named_parameters():
        if "layer_scale" in key:
            value.data.fill_(0.5)
    with torch.no_grad():
        logits = model(to_tensor(pattern_image(64, 64, 9)[None]))[0]

    reference = arrays("10_lska")[f"van_tiny/k{k}/logits"]
    assert np.abs(logits.numpy() - reference).max() <= 1e-4
    assert int(logits.argmax()) == KNOWN[f"van_tiny/k{k}/forward"]["argmax"]


def test_weights_are_initialised_as_specified() -> None:
    torch.manual_seed(0)
    stage = VANStage(64, 160, 2, ratio=4)
    for key, module in stage.named_modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.weight.shape[2:].numel() * module.out_channels / module.groups
            assert float(module.weight.detach().std()) == pytest.approx(math.sqrt(2 / fan_out), rel=0.12), key
            assert module.bias is not None and not module.bias.any()
    scales = [value for key, value in stage.named_parameters() if "layer_scale" in key]
    assert len(scales) == 4 and all((value == 0.01).all() for value in scales)
    assert stage.norm.eps == 1e-6


def test_drop_path_drops_whole_images_as_torchvision_does() -> None:
    from torchvision.ops import StochasticDepth

    x = torch.randn(64, 3, 4, 5)
    dropped = []
    for module in (DropPath(0.4), StochasticDepth(0.4, "row")):
        torch.manual_seed(1)
        dropped.append(module(x))
        assert torch.equal(module.eval()(x), x)

    assert torch.allclose(*dropped)
    kept = dropped[0].flatten(1).any(1)
    assert 0 < kept.sum() < len(x)
    assert torch.allclose(dropped[0][kept], x[kept] / 0.6)


def test_a_block_with_all_branches_dropped_is_its_shortcut() -> None:
    x = torch.randn(2, 8, 6, 6)
    block = VANBlock(8, 4, 7, None, "LSKA", drop_path=1.0)
    assert torch.equal(block(x), x)
    assert not torch.equal(block.eval()(x), x)


def test_drop_path_rises_through_the_network_and_in_its_configs() -> None:
    def rates(model: nn.Module) -> list[float]:
        return [module.rate for module in model.modules() if isinstance(module, DropPath)]

    assert rates(hollow()) == pytest.approx(np.linspace(0, 0.1, 13))
    for size, cfg in CONFIGS.items():
        with torch.device("meta"):
            model = DetectionModel(cfg)
        assert rates(model) == pytest.approx(rates(hollow(size)), abs=1e-5)
    assert rising_rates((1,), 0.1) == [(0, 0)]
    assert rates(VANStage(3, 8, 3, k=7, drop_path=0.2)) == [0.2, 0.2, 0.2]


@pytest.mark.parametrize("size", CONFIGS)
def test_configs_have_the_stages_of_the_classifier(size: str) -> None:
    with torch.device("meta"):
        model = DetectionModel(CONFIGS[size])
    van = hollow(size)
    ours = sum(parameters(layer) for layer in model.model if isinstance(layer, VANStage))

    assert ours == parameters(van) - parameters(van.head)
    assert model.stride.tolist() == [8, 16, 32]
    assert [layer.type for layer in model.model][:5] == ["models.common.VANStage"] * 4 + [
        "models.common.SPPF"
    ]


@pytest.mark.parametrize("design", DESIGNS)
def test_a_detector_trains_fuses_and_decodes_with_any_design(design: str) -> None:
    torch.manual_seed(0)
    model = DetectionModel(small_config(design=design, k=7, drop_path=0))
    x = torch.rand(2, 3, 64, 96)
    sum(level.square().mean() for level in model(x)).backward()
    still = [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert still == []

    with torch.no_grad():
        decoded = model.eval()(x)[0]
        fused = model.fuse()(x)[0]
    assert decoded.shape == (2, 3 * (8 * 12 + 4 * 6 + 2 * 3), 7)
    assert torch.allclose(decoded, fused, atol=1e-3)


def test_multiples_scale_width_and_depth() -> None:
    config = small_config(k=7) | {"depth_multiple": 0.34, "width_multiple": 0.5}
    with torch.device("meta"):
        stages = DetectionModel(config).model[:4]
    assert [stage.norm.weight.numel() for stage in stages] == [16, 32, 80, 128]
    assert [len(stage.block) for stage in stages] == [1, 1, 2, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": 21}, "k=21 cannot be split"),
        ({"design": "SLKA"}, "'SLKA' is not one of LSKA"),
        ({"drop_path": 1.5}, "drop_path is 1.5, expected a probability"),
        ({"drop_path": [0, 0.1, 0.2]}, "do not fit"),
        ({"kernel": 7}, "do not fit .*kernel"),
    ],
)
def test_errors_in_a_row_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"layer 0 \(VANStage\): .*{message}"):
        DetectionModel(small_config(**changes))
    with pytest.raises(ConfigError, match="size 'large' is not one of tiny, small, base"):
        VAN("large")
