"""The -cls configs, cut detectors, VAN and torchvision models have the sizes and outputs known for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.attention.van import VAN
from models.common import Classify
from models.config import config_names, read_config
from models.graft import graft
from models.weights import load_for_inference, model_record, read_checkpoint, save_checkpoint
from models.yolo import BaseModel, ClassificationModel, DetectionModel, make_model, task_of
from tests.known import SHARED, arrays, fill, golden, needs_shared, pattern_image, to_tensor
from tests.models.test_segment_models import sizes_of
from utils.base.errors import ConfigError
from utils.tasks.classify.head import ClassifyLinear, TorchVision
from utils.tasks.classify.transforms import center_crop, normalize
from utils.train.optim import make_optimizer, parameter_groups

KNOWN: dict[str, Any] = golden("15_classify_models")
FORWARD: dict[str, Any] = golden("15_classify_forward")
MODELS: dict[str, dict[str, Any]] = KNOWN["models"]
CUTS = {int(cutoff): known for cutoff, known in KNOWN["cutoff"].items()}
VARIANTS = ("-LSKA", "-backbone-C3LSKA")


def hollow(name: str, nc: int | None = None) -> BaseModel:
    """Make a model without weights, for tests that need only shapes."""
    with torch.device("meta"):
        return make_model(name, nc=nc)


def known_sizes(known: dict[str, Any]) -> list[Any]:
    return [known[key] for key in ("parameters", "leaf_layers", "state_dict_entries", "state_dict_sha256")]


def rows_of(module: nn.Module) -> list[list[Any]]:
    """Return name, shape and type of each tensor."""
    return [[k, list(v.shape), str(v.dtype).removeprefix("torch.")] for k, v in module.state_dict().items()]


@pytest.mark.parametrize("name", MODELS)
def test_sizes_equal_the_originals_fused_too(name: str) -> None:
    known = MODELS[name]
    model = hollow(f"{name.split('@')[0]}.yaml", known["nc"])

    assert isinstance(model, ClassificationModel) and model.task == "classify"
    assert sizes_of(model) == known_sizes(known)
    assert model.gflops(640) == pytest.approx(known["gflops_640"], rel=0.02)
    assert model.gflops(224) == pytest.approx(known["gflops_224"], rel=0.02)
    assert (model.save, model.nc) == (known["save"], known["nc"])
    # The original computes no number of parameters for the head that it exchanges.
    expected = [tuple(row[:3]) + ((row[3],) if row[3] is not None else ()) for row in known["layers"]]
    own = [(layer.i, layer.f, layer.type, layer.np) for layer in model.model]
    assert [row[: len(other)] for row, other in zip(own, expected, strict=True)] == expected
    assert rows_of(model.model[-1]) == known["head_state_dict"]

    model.fuse()
    assert sizes_of(model) == known_sizes(known["fused"])
    assert model.gflops(640) == pytest.approx(known["fused"]["gflops_640"], rel=0.02)
    assert model.gflops(224) == pytest.approx(known["fused"]["gflops_224"], rel=0.02)


@pytest.mark.parametrize("name", [name for name in MODELS if name.endswith("nc1000")])
def test_a_config_is_the_cut_detector_of_its_scale(name: str) -> None:
    size = name.split("-")[0]
    with torch.device("meta"):
        cut = ClassificationModel(f"{size}.yaml", nc=1000)
    assert sizes_of(cut) == known_sizes(MODELS[name])


@pytest.mark.parametrize("cutoff", [cutoff for cutoff, known in CUTS.items() if isinstance(known, dict)])
def test_a_detector_can_be_cut_at_any_layer_with_own_weights(cutoff: int) -> None:
    known, detector = CUTS[cutoff], hollow("yolov5n.yaml", 80)
    with torch.device("meta"):
        assert isinstance(detector, DetectionModel)
        model = ClassificationModel(model=detector, nc=6, cutoff=cutoff)
    head = model.model[-1]
    assert isinstance(head, Classify) and head.conv.conv.in_channels == known["head_in_channels"]
    assert (len(model.model), head.i) == (known["layers"], known["head_index"])
    assert [sizes_of(model)[index] for index in (0, 3)] == [known["parameters"], known["state_dict_sha256"]]


@pytest.mark.parametrize("cutoff", [cutoff for cutoff, known in CUTS.items() if not isinstance(known, dict)])
def test_a_cut_at_a_layer_without_weights_is_an_error(cutoff: int) -> None:
    kind = CUTS[cutoff].split("'")[1]  # of the original's AttributeError
    with pytest.raises(ConfigError, match=rf"--cutoff {cutoff}: layer {cutoff - 1} is (nn\.)?{kind}"):
        ClassificationModel("yolov5n.yaml", cutoff=cutoff)


@pytest.mark.parametrize("cutoff", [-1, 25, 100])
def test_a_cut_outside_the_detector_is_an_error(cutoff: int) -> None:
    with pytest.raises(ConfigError, match=f"--cutoff {cutoff}: expected 1 to 24 layers of yolov5n.yaml"):
        ClassificationModel("yolov5n.yaml", cutoff=cutoff)


def test_cutting_copies_the_weights_of_the_kept_layers() -> None:
    detector = make_model("yolov5n.yaml", nc=3)
    fill(detector, 2)
    model = ClassificationModel(model=detector, nc=4)
    theirs = detector.state_dict()
    kept = {key: value for key, value in model.state_dict().items() if not key.startswith("model.9.")}
    assert len(kept) == 186 and all(torch.equal(value, theirs[key]) for key, value in kept.items())
    assert model.nc == 4 and model.names == {0: "0", 1: "1", 2: "2", 3: "3"}


def test_the_head_keeps_the_default_constants_of_batch_norm() -> None:
    model = hollow("yolov5n-cls.yaml", 6)
    head = model.model[-1]
    assert head.conv.bn.eps == KNOWN["cut_model_bn_eps_of_head"] == 1e-5
    assert head.conv.bn.momentum == KNOWN["cut_model_bn_momentum_of_head"] == 0.1
    others = [m for m in model.model[:-1].modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in others} == {(1e-3, 0.03)}


def test_a_saved_classifier_keeps_the_constants_of_its_head(tmp_path: Path) -> None:
    model = make_model("yolov5n-cls.yaml", nc=3)
    fill(model, 1)
    model.names = {0: "a", 1: "b", 2: "c"}
    save_checkpoint(tmp_path / "saved.pt", {"model": model_record(model)})
    loaded = load_for_inference(str(tmp_path / "saved.pt"), torch.device("cpu"), fuse=False)
    assert loaded.names == model.names and loaded.nc == 3
    assert loaded.model[-1].conv.bn.eps == 1e-5
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x), model.eval()(x))


def test_classify_has_the_modules_of_the_original() -> None:
    known = KNOWN["classify_module"]
    head = Classify(16, 4, dropout_p=0.3)
    assert rows_of(head) == known["state_dict"]
    assert head.drop.p == known["dropout_p"] and repr(head.pool) == known["pool"]
    assert head.conv.bn.eps == known["bn_eps_standalone"]


def test_a_checkpoint_of_other_classes_keeps_all_but_the_linear_layer(tmp_path: Path) -> None:
    known, source = KNOWN["reshape_classify"], make_model("yolov5n-cls.yaml", nc=10)
    save_checkpoint(tmp_path / "ten.pt", {"model": model_record(source)})
    model = make_model("yolov5n-cls.yaml", nc=known["linear"][0])
    report = graft(model, read_checkpoint(tmp_path / "ten.pt"))
    assert list(model.model[-1].linear.weight.shape) == known["linear"]
    assert model.nc == known["linear"][0]  # the original leaves the old number here
    assert sorted(report.new) == ["model.9.linear.bias", "model.9.linear.weight"]
    assert torch.equal(model.model[-1].conv.conv.weight, source.model[-1].conv.conv.weight)


@pytest.mark.parametrize("name", KNOWN["optimizer"])
def test_optimizers_equal_the_originals(name: str) -> None:
    model = make_model("yolov5n-cls.yaml", nc=6)
    hyp = {"lr0": 1e-3, "weight_decay": 5e-5, "momentum": 0.9}
    optimizer = make_optimizer(model, name, hyp, batch_size=64, nominal=64)  # type: ignore[arg-type]
    groups = optimizer.param_groups
    for group, known in zip(groups, KNOWN["optimizer"][name], strict=True):
        own = {key: group[key] for key in known if key != "tensors"}
        own = {key: list(value) if isinstance(value, tuple) else value for key, value in own.items()}
        assert own == {key: value for key, value in known.items() if key != "tensors"}
    assert [len(group["params"]) for group in groups] == [k["tensors"] for k in KNOWN["optimizer"][name]]


def calibrated(name: str) -> tuple[BaseModel, Tensor]:
    """Return a model in eval mode as the golden numbers were recorded from, in float64, and its input."""
    known = FORWARD[name]
    model = make_model(f"{name}.yaml", nc=known["nc"])
    fill(model, known["fill_tag"])
    model.double()
    images = np.stack([pattern_image(*known["input_hw"], k) for k in known["pattern_k"]])
    x = to_tensor(images).double()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
    return model.eval(), x


@pytest.mark.parametrize("name", ["yolov5n-cls", "yolov5s-cls"])
def test_outputs_equal_the_originals_in_float64(name: str) -> None:
    known = FORWARD[name]
    model, x = calibrated(name)
    outputs: list[Tensor] = []
    with torch.no_grad():
        logits = model(x, visualize=lambda layer, output: outputs.append(output))
    np.testing.assert_allclose(logits.numpy(), known["logits"], rtol=1e-5)
    np.testing.assert_allclose(logits.softmax(1).numpy(), known["softmax"], rtol=1e-5)
    for layer, output, stats in zip(model.model, outputs, known["layers"], strict=True):
        assert (layer.i, layer.type, list(output.shape)) == (stats["index"], stats["type"], stats["shape"])
        own = [output.mean(), output.std(), output.abs().mean(), output.min(), output.max()]
        expected = [stats[key] for key in ("mean", "std", "absmean", "min", "max")]
        assert [float(value) for value in own] == pytest.approx(expected, rel=1e-5)

    with torch.no_grad():
        fused = model.float().fuse()(x.float())
    assert float((fused - logits).abs().max()) <= 10 * known["fused_fp32_max_abs_diff"]


def test_the_head_alone_equals_the_original_and_takes_a_list_of_maps() -> None:
    known, x = FORWARD["head"], torch.from_numpy(arrays("15_classify_forward")["head/input_x16"]).float() / 16
    head = Classify(8, 5)
    fill(head, known["fill_tag"])
    head.double().eval()
    assert head.conv.bn.eps == known["bn_eps"]
    with torch.no_grad():
        logits, of_list = head(x.double()), head([x[:, :3].double(), x[:, 3:].double()])
    np.testing.assert_allclose(logits.numpy(), known["logits"], rtol=1e-5)
    assert known["list_input_equal"] and torch.equal(of_list, logits)


@needs_shared
def test_official_weights_cut_into_a_classifier_equal_the_original() -> None:
    known = FORWARD["cut"]
    detector = load_for_inference(str(SHARED / "weights/yolov5n.pt"), torch.device("cpu"), fuse=False)
    model = ClassificationModel(model=detector, nc=known["nc"], cutoff=known["cutoff"]).eval()
    theirs = detector.state_dict()
    own = model.state_dict()
    equal = [key for key, value in own.items() if key in theirs and torch.equal(theirs[key], value)]
    assert (len(own), len(equal)) == (known["entries"], known["entries_equal_to_detector"])
    assert [key for key in own if key.startswith("model.9.")] == known["new_entries"]
    head = model.model[-1]
    fill(head, known["head_fill_tag"])
    assert (head.conv.bn.eps, model.model[0].bn.eps) == (known["head_bn_eps"], known["backbone_bn_eps"])
    for case, expected in known["logits"].items():
        name, _, size = case.partition("/")
        image = center_crop(cv2.imread(str(SHARED / f"data/{name}.jpg")), int(size))
        with torch.no_grad():
            logits = model(normalize(to_tensor(image[None])))[0]
        assert logits.tolist() == pytest.approx(expected, abs=2e-3)


def replaced(name: str, nc: int) -> tuple[int, dict[str, list[list[int]]]]:
    """Return the parameters of a torchvision model with `nc` classes, and the shapes that have changed."""
    from torchvision.models import get_model

    with torch.device("meta"):
        model, original = TorchVision(nc, name).model, get_model(name, weights=None)
    before = {key: list(value.shape) for key, value in original.state_dict().items()}
    after = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert before.keys() == after.keys()
    changed = {key: [before[key], after[key]] for key in after if before[key] != after[key]}
    return sum(p.numel() for p in model.parameters()), changed


@pytest.mark.parametrize("name", KNOWN["torchvision"])
def test_last_layers_of_torchvision_models_are_replaced_as_in_the_original(name: str) -> None:
    known = KNOWN["torchvision"][name]
    assert replaced(name, 6) == (known["parameters_at_6"], known["changed"])


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_torchvision_models_with_auxiliary_outputs_return_logits_only(name: str) -> None:
    with torch.device("meta"):
        model = TorchVision(4, name)
        size = 299 if name == "inception_v3" else 64
        assert model.train()(torch.empty(2, 3, size, size)).shape == (2, 4)


def test_unknown_torchvision_models_get_near_names() -> None:
    with pytest.raises(ConfigError, match=r"--model resnet19: .*did you mean resnet18"):
        TorchVision(4, "resnet19")
    with pytest.raises(ConfigError, match=r"--model 123xyz: .*it has alexnet, "):
        TorchVision(4, "123xyz")


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "raft_small", "r3d_18"])
def test_torchvision_models_of_other_tasks_are_no_classifiers(name: str) -> None:
    with pytest.raises(ConfigError, match="torchvision has no classifier of this name"):
        TorchVision(2, name)


def test_classify_linear_is_the_mean_of_a_linear_layer() -> None:
    head = ClassifyLinear(6, 3, dropout_p=0.5).eval()
    x = torch.rand(2, 6, 4, 5)
    with torch.no_grad():
        expected = x.mean((2, 3)) @ head.linear.weight.T + head.linear.bias
        torch.testing.assert_close(head(x), expected)
    assert (head.drop.p, head.task) == (0.5, "classify")
    assert rows_of(head) == [["linear.weight", [3, 6], "float32"], ["linear.bias", [3], "float32"]]


@pytest.mark.parametrize(
    ("size", "parameters", "gmacs"),
    [("tiny", 4_029_000, 0.839), ("small", 13_732_776, 2.460), ("base", 26_292_776, 4.923)],
)
def test_van_has_the_published_sizes(size: str, parameters: int, gmacs: float) -> None:
    model = hollow(f"van-{size}-cls.yaml")
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert model.gflops(224) / 2 == pytest.approx(gmacs, rel=0.01)


@pytest.mark.parametrize(("k", "parameters"), [(7, 4_009_800), (23, 4_029_000), (53, 4_061_000)])
def test_van_tiny_grows_with_its_kernel(k: int, parameters: int) -> None:
    config, _ = read_config("van-tiny-cls.yaml")
    for row in config["backbone"]:
        row[3][-1]["k"] = k
    with torch.device("meta"):
        model = make_model(config)
    assert sum(p.numel() for p in model.parameters()) == parameters


def test_published_van_weights_give_the_logits_of_van(tmp_path: Path) -> None:
    van = VAN("tiny", 23, "LSKA")
    fill(van, 3)
    for key, value in van.named_parameters():
        if "layer_scale" in key:
            value.data.fill_(0.5)
    torch.save({"state_dict": van.state_dict()}, tmp_path / "van_tiny.pth")
    model = make_model("van-tiny-cls.yaml")
    report = graft(model, read_checkpoint(tmp_path / "van_tiny.pth"))
    x = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        expected = van.eval()(x)
        torch.testing.assert_close(model.eval()(x), expected, rtol=1e-4, atol=1e-5 * float(expected.std()))
    assert not report.new and not report.left_out


def test_all_classifiers_have_a_name() -> None:
    wanted = {f"yolov5{scale}-cls{variant}.yaml" for scale in "nsmlx" for variant in ("", *VARIANTS)}
    wanted |= {f"van-{size}-cls.yaml" for size in ("tiny", "small", "base")}
    assert {name for name in config_names() if "-cls" in name} == wanted
    assert {task_of(read_config(name)[0]) for name in wanted} == {"classify"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_adds_parameters_and_keeps_the_head(variant: str) -> None:
    plain, attentive = hollow("yolov5n-cls.yaml", 6), hollow(f"yolov5n-cls{variant}.yaml", 6)
    assert sizes_of(plain)[0] < sizes_of(attentive)[0]
    assert rows_of(plain.model[-1]) == rows_of(attentive.model[-1])
    assert len(parameter_groups(attentive)[0]) >= 33


def test_a_classifier_grafted_into_one_with_lska_gives_equal_logits(tmp_path: Path) -> None:
    plain = make_model("yolov5n-cls.yaml", nc=5)
    fill(plain, 4)
    plain.names = dict(enumerate("abcde"))
    save_checkpoint(tmp_path / "plain.pt", {"model": model_record(plain)})
    attentive = make_model("yolov5n-cls-LSKA.yaml", nc=5)
    report = graft(attentive, read_checkpoint(tmp_path / "plain.pt"))
    x = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(attentive.eval()(x), plain.eval()(x), rtol=1e-6, atol=1e-6)
    assert report.moved == {**{layer: layer for layer in range(9)}, 9: 10}
    assert len(report.transferred) == report.total and not report.left_out
    assert attentive.names == plain.names


@pytest.mark.parametrize("cfg", ["yolov5n-cls.yaml", "yolov5n-cls-LSKA.yaml"])
def test_a_detector_fills_the_backbone_of_a_classifier(cfg: str, tmp_path: Path) -> None:
    detector = make_model("yolov5n.yaml", nc=3)
    save_checkpoint(tmp_path / "detector.pt", {"model": model_record(detector)})
    model = make_model(cfg, nc=4)
    report = graft(model, read_checkpoint(tmp_path / "detector.pt"))
    assert report.moved == {layer: layer for layer in range(9)}
    assert len(report.transferred) == 186 and not report.in_part
    assert {int(key.split(".")[1]) for key in report.new} == set(range(9, len(model.model)))
    assert model.names == {0: "0", 1: "1", 2: "2", 3: "3"}
