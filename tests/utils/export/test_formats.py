from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import torch

from tests.models.backends.files import NAMES, exported
from utils.base.errors import ConfigError
from utils.export.export_options import options_from, parse_options


@pytest.mark.filterwarnings("ignore::FutureWarning")  # announces the end of TorchScript
def test_torchscript_holds_shape_stride_and_names() -> None:
    extra = {"config.txt": ""}
    torch.jit.load(str(exported("torchscript")), _extra_files=extra)
    config = json.loads(extra["config.txt"])
    assert config == {"shape": [1, 3, 64, 64], "stride": 32, "names": {"0": "cell", "1": "red plate"}}


@pytest.mark.parametrize("dynamic", [False, True])
def test_onnx_holds_what_other_programs_look_for(dynamic: bool) -> None:
    import onnx

    model = onnx.load(str(exported("onnx", dynamic)))
    meta = {item.key: item.value for item in model.metadata_props}
    (images,), (output,) = model.graph.input, model.graph.output
    sizes = [size.dim_param or size.dim_value for size in images.type.tensor_type.shape.dim]

    assert (images.name, output.name) == ("images", "output0")
    assert sizes == (["batch", 3, "height", "width"] if dynamic else [1, 3, 64, 64])
    assert (meta["stride"], ast.literal_eval(meta["names"])) == ("32", NAMES)
    assert model.opset_import[0].version == 17


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--img 320", {"imgsz": [320, 320]}),
        ("--imgsz 320 640", {"imgsz": [320, 640]}),
        ("--img-size 64 --batch 4", {"imgsz": [64, 64], "batch_size": 4}),
        ("--include onnx ONNX torchscript", {"include": ["onnx", "torchscript"]}),
        ("--weights a.pt b.pt --include tflite --int8", {"weights": ["a.pt", "b.pt"], "int8": True}),
        ("--topk-per-class 5 --topk-all 6 --iou 0.5 --conf 0.3 --nms --agnostic-nms", {"topk_all": 6}),
        ("--keras --optimize --per-tensor --dynamic --cache c --simplify --mlmodel", {"cache": "c"}),
        ("--opset 12 --verbose --workspace 8 --inplace --data d.yaml --device cpu", {"opset": 12}),
    ],
)
def test_every_flag_of_the_original_is_understood(line: str, expected: dict[str, object]) -> None:
    opt = parse_options(line.split())
    assert {key: getattr(opt, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("--include onx", r"onx: unknown format \(did you mean onnx\?\); expected one of torchscript"),
        ("--half", "--half needs a GPU"),
        ("--half --dynamic --device 0", "exclude each other"),
        ("--optimize --device 0", "--optimize is for the CPU"),
        ("--imgsz 1 2 3", "--imgsz 1 2 3: one size, or height and width"),
        ("--batch-size 0", "--batch-size 0: at least 1"),
        ("--opset 99", "--opset 99: 11 to 20"),
    ],
)
def test_what_cannot_be_is_refused(line: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse_options(line.split())


def test_a_flag_without_effect_is_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    parse_options(["--include", "onnx", "--optimize", "--dynamic"])
    assert caplog.messages == ["--optimize changes nothing here: it is for torchscript"]


def test_keywords_are_the_flags() -> None:
    opt = options_from({"weights": Path("a.pt"), "include": "onnx", "imgsz": 96})
    assert (opt.weights, opt.include, opt.imgsz) == (["a.pt"], ["onnx"], [96, 96])
    with pytest.raises(ConfigError, match="no option inclde; did you mean include"):
        options_from({"inclde": "onnx"})
