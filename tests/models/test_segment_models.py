"""The -seg configs build the models of the original: sizes, names, biases, outputs of every form."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.config import MULTIPLES, config_names, read_config
from models.weights import Ensemble
from models.yolo import DetectionModel, SegmentationModel, make_model
from tests.known import arrays, fill, golden, pattern_image, to_tensor
from utils.base.errors import ConfigError
from utils.tasks.segment.head import Segment
from utils.train.optim import parameter_groups

MODELS: dict[str, dict[str, Any]] = golden("14_segment_models")
FORWARD: dict[str, dict[str, Any]] = golden("14_segment_forward")
VARIANTS = ("-LSKA", "-SPPFLSKA", "-backbone-C3LSKA", "-neck-C3LSKA", "-head-LSKA")


def hollow(name: str, nc: int | None = None) -> DetectionModel:
    """Make a model without weights, for tests that need only shapes."""
    with torch.device("meta"):
        return make_model(name, nc=nc)


def sizes_of(model: nn.Module) -> list[Any]:
    """Return the numbers of parameters, of layers and of tensors, and the digest of the state_dict."""
    rows = [
        [key, list(v.shape), str(v.dtype).removeprefix("torch.")] for key, v in model.state_dict().items()
    ]
    digest = hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()
    leaves = sum(1 for module in model.modules() if not any(module.children()))
    return [sum(p.numel() for p in model.parameters()), leaves, len(rows), digest]


def known_sizes(known: dict[str, Any]) -> list[Any]:
    return [known[key] for key in ("parameters", "leaf_layers", "state_dict_entries", "state_dict_sha256")]


@pytest.mark.parametrize("name", MODELS)
def test_sizes_equal_the_originals_fused_too(name: str) -> None:
    known = MODELS[name]
    model = hollow(f"{name.split('@')[0]}.yaml", known["nc"])

    assert isinstance(model, SegmentationModel)
    assert sizes_of(model) == known_sizes(known)
    assert model.gflops() == pytest.approx(known["gflops_640"], rel=0.02)
    assert (model.stride.tolist(), model.save) == (known["stride"], known["save"])
    groups = [len(group) for group in parameter_groups(model)]
    assert groups == known["parameter_groups_bias_weight_norm"]

    model.fuse()
    assert sizes_of(model) == known_sizes(known["fused"])
    assert model.gflops() == pytest.approx(known["fused"]["gflops_640"], rel=0.02)


@pytest.mark.parametrize("name", MODELS)
def test_heads_equal_the_originals(name: str) -> None:
    known = MODELS[name]["head"]
    head = hollow(f"{name.split('@')[0]}.yaml", known["nc"]).head
    assert isinstance(head, Segment)
    assert [getattr(head, key) for key in ("nc", "nm", "npr", "no", "na", "nl")] == [
        known[key] for key in ("nc", "nm", "npr", "no", "na", "nl")
    ]
    assert sum(p.numel() for p in head.parameters()) == known["parameters"]
    assert sum(p.numel() for p in head.proto.parameters()) == known["proto_parameters"]
    assert [
        [key, list(v.shape), str(v.dtype).removeprefix("torch.")] for key, v in head.state_dict().items()
    ] == known["state_dict"]


@pytest.mark.parametrize("name", [name for name in MODELS if "bias_added" in MODELS[name]])
def test_biases_start_at_the_priors_but_for_coefficients(name: str) -> None:
    known = MODELS[name]
    torch.manual_seed(0)
    head = make_model(f"{name.split('@')[0]}.yaml", nc=known["nc"]).head
    assert isinstance(head, Segment)
    before = {key: value.clone() for key, value in head.m.state_dict().items()}
    head.init_biases()
    for level, added in enumerate(known["bias_added"]):
        key = f"{level}.bias"
        gained = (head.m.state_dict()[key] - before[key]).view(head.na, -1)
        expected = torch.tensor([*added, *[0.0] * (head.no - len(added))])
        torch.testing.assert_close(gained, expected.expand_as(gained), atol=1e-5, rtol=1e-5)
        assert (gained[:, -head.nm :] == 0).all()


def calibrated(name: str) -> tuple[DetectionModel, Tensor, dict[str, Any]]:
    """Return a model in eval mode as the golden numbers were recorded from, in float64, and its input."""
    known = FORWARD[name]
    model = make_model(f"{name}.yaml", nc=known["nc"])
    fill(model, known["fill_tag"])
    model.double()
    height, width = known["input_hw"]
    x = to_tensor(pattern_image(height, width, known["pattern_k"])[None]).double()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        maps, protos = model.train()(x)
    assert [[list(level.shape) for level in maps], list(protos.shape)] == known["train_outputs"]
    return model.eval(), x, known


@pytest.mark.parametrize("name", FORWARD)
def test_outputs_equal_the_originals_in_float64(name: str) -> None:
    model, x, known = calibrated(name)
    stored = {
        key.removeprefix(f"{name}/"): v for key, v in arrays("14_segment_forward").items() if name in key
    }
    with torch.no_grad():
        decoded, protos, maps = model(x)

    for level, (logits, stats) in enumerate(zip(maps, known["raw"], strict=True)):
        rows = logits.reshape(-1, logits.shape[-1])[stored[f"raw{level}_idx"].astype(np.int64)]
        gap = np.abs(rows.numpy() - stored[f"raw{level}_rows"]).max()
        assert gap <= 1e-5 * stats["std"]
        assert float(logits.std()) == pytest.approx(stats["std"], rel=1e-5)
    rows = decoded[0, stored["decoded_idx"].astype(np.int64)].numpy()
    np.testing.assert_allclose(rows, stored["decoded_rows"], rtol=1e-5, atol=1e-5 * known["decoded"]["std"])
    channels = stored["proto"].shape[1]
    np.testing.assert_allclose(
        protos[:, :channels].numpy(), stored["proto"], rtol=1e-5, atol=1e-5 * known["proto"]["std"]
    )
    assert protos.mean((0, 2, 3)).tolist() == pytest.approx(known["proto_channel_mean"], rel=1e-5, abs=1e-6)
    assert decoded[0].mean(0).tolist() == pytest.approx(known["decoded_column_mean"], rel=1e-5, abs=1e-5)

    # Coefficients are linear: those of the decoded rows are those of the logits.
    flat = torch.cat([level.reshape(1, -1, level.shape[-1]) for level in maps], 1)
    torch.testing.assert_close(decoded[..., -32:], flat[..., -32:].to(decoded))

    with torch.no_grad():
        fused = model.float().fuse()(x.float())
    floor = known["fused_fp32_max_abs_diff"]
    assert float((fused[0] - decoded).abs().max()) <= 10 * floor["decoded"]
    assert float((fused[1] - protos).abs().max()) <= 10 * floor["proto"]


def test_an_exported_model_has_two_outputs() -> None:
    known = FORWARD["yolov5n-seg"]
    model = make_model("yolov5n-seg.yaml", nc=known["nc"]).eval()
    x = torch.rand(1, 3, *known["input_hw"])
    with torch.no_grad():
        decoded, protos, maps = model(x)
        model.head.export = True
        exported = model(x)
    assert [list(output.shape) for output in exported] == known["export_outputs"]
    torch.testing.assert_close(exported, (decoded, protos), rtol=1e-5, atol=1e-4)
    assert len(maps) == 3


def test_all_scales_of_all_placements_have_a_name() -> None:
    wanted = {f"yolov5{scale}-seg{variant}.yaml" for scale in "nsmlx" for variant in ("", *VARIANTS)}
    assert {name for name in config_names() if "-seg" in name} == wanted


@pytest.mark.parametrize(
    ("scale", "variant"),
    [
        *((scale, variant) for scale in "nsmlx" for variant in ("", "-LSKA")),
        *(("n", v) for v in VARIANTS[1:]),
    ],
)
def test_a_config_builds_the_detection_model_of_its_scale_with_another_head(scale: str, variant: str) -> None:
    name = f"yolov5{scale}-seg{variant}.yaml"
    model, boxes = hollow(name), hollow(f"yolov5{scale}{variant}.yaml")
    assert isinstance(model, SegmentationModel) and model.task == "segment"
    assert not isinstance(boxes, SegmentationModel) and boxes.task == "detect"
    assert model.stride.tolist() == [8, 16, 32]
    assert [model.yaml[key] for key in MULTIPLES] == [boxes.yaml[key] for key in MULTIPLES]
    described = [
        [(layer.f, layer.type, layer.np) for layer in list(each.model)[:-1]] for each in (model, boxes)
    ]
    assert described[0] == described[1]


@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_adds_parameters_and_keeps_the_head(variant: str) -> None:
    plain, attentive = hollow("yolov5n-seg.yaml"), hollow(f"yolov5n-seg{variant}.yaml")
    count = [sum(p.numel() for p in model.parameters()) for model in (plain, attentive)]
    assert count[0] < count[1]
    shapes = [{key: v.shape for key, v in model.head.state_dict().items()} for model in (plain, attentive)]
    assert shapes[0] == shapes[1]


def test_the_number_of_prototypes_is_that_of_the_yaml_and_not_scaled() -> None:
    cfg = {**hollow("yolov5n-seg.yaml").yaml}
    cfg["head"] = [*cfg["head"][:-1], [[17, 20, 23], 1, "Segment", ["nc", "anchors", 12, 100]]]
    model = make_model(cfg, nc=2).eval()
    head = model.head
    assert isinstance(head, Segment)
    assert (head.nm, head.npr, head.no) == (12, 32, 5 + 2 + 12)  # 100 * 0.25, rounded up to a multiple of 8
    with torch.no_grad():
        decoded, protos, _ = model(torch.rand(2, 3, 64, 96))
    assert (decoded.shape, protos.shape) == ((2, 378, 19), (2, 12, 16, 24))


def test_a_detection_config_is_not_a_segmentation_model() -> None:
    with pytest.raises(ConfigError, match="the last layer must be Segment"):
        SegmentationModel("yolov5n.yaml")


def test_test_time_augmentation_is_refused() -> None:
    with pytest.raises(ConfigError, match="--augment"):
        make_model("yolov5n-seg.yaml", nc=2).eval()(torch.rand(1, 3, 64, 64), augment=True)


def test_several_models_form_no_ensemble_of_masks() -> None:
    with pytest.raises(ConfigError, match="give one model"):
        Ensemble([hollow("yolov5n-seg.yaml"), hollow("yolov5n-seg.yaml")])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nc", "anchors", 0, 256], "mask coefficients: 0, expected an integer of at least 1"),
        (["nc", "anchors", 32, 0], "prototype channels: 0"),
        (["nc", "anchors", 32.5, 256], "nm is 32.5, expected an integer"),
        (["nc", "anchors", 32, 256, 7], "expected nc, anchors, mask coefficients, prototype channels"),
    ],
)
def test_arguments_of_segment_are_checked(arguments: list[object], words: str) -> None:
    config, _ = read_config("yolov5n-seg.yaml")
    config["head"][-1][3] = arguments
    with pytest.raises(ConfigError, match=re.escape(words)):
        make_model(config)


def test_segment_has_defaults_and_the_ratio_of_its_first_level() -> None:
    config, _ = read_config("yolov5n-seg.yaml")
    config["head"][-1][3] = ["nc", "anchors"]
    with torch.device("meta"):
        plain, fine = make_model(config), make_model("yolov5n-seg.yaml")
        p2, _ = read_config("yolov5-p2.yaml")
        p2["head"][-1][2:] = ["Segment", ["nc", "anchors", 32, 256]]
        assert make_model(p2).head.mask_ratio == 2
    assert plain.state_dict().keys() == fine.state_dict().keys() and plain.head.nm == 32
    assert plain.head.npr == fine.head.npr and fine.head.mask_ratio == 4
