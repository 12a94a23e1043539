"""Flags of export.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.base.errors import ConfigError
from utils.base.options import options_from, parse_options
from utils.export.export_options import ExportOptions
from utils.export.export_settings import ExportSettings


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--img 320", {"imgsz": (320, 320)}),
        ("--imgsz 320 640", {"imgsz": (320, 640)}),
        ("--img-size 64 --batch 4", {"imgsz": (64, 64), "batch_size": 4}),
        ("--include onnx ONNX torchscript", {"include": ["onnx", "torchscript"]}),
        ("--weights a.pt b.pt --include tflite --int8", {"weights": ["a.pt", "b.pt"], "int8": True}),
        ("--topk-per-class 5 --topk-all 6 --iou 0.5 --conf 0.3 --nms --agnostic-nms", {"topk_all": 6}),
        ("--keras --optimize --per-tensor --dynamic --cache c --simplify --mlmodel", {"cache": "c"}),
        ("--opset 12 --verbose --workspace 8 --inplace --data d.yaml --device cpu", {"opset": 12}),
    ],
)
def test_every_flag_of_the_original_is_accepted(line: str, expected: dict[str, object]) -> None:
    options = parse_options(ExportOptions, line.split())
    assert {key: getattr(options, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--include onx",
            r"--include onx: unknown format \(did you mean onnx\?\); expected one of torchscript",
        ),
        ("--half", "--half needs a GPU for torchscript"),
        ("--half --dynamic --device 0", "--half and --dynamic exclude each other"),
        ("--half --int8 --device 0", "--half and --int8 exclude each other"),
        ("--optimize --device 0", "--optimize is for the CPU"),
        ("--imgsz 1 2 3", "--imgsz 1 2 3: expected one or two sizes"),
        ("--batch-size 0", "--batch-size 0: expected an integer of at least 1"),
        ("--opset 99", "--opset 99: expected an integer from 11 to 20"),
        ("--conf-thres 2", "--conf-thres 2.0: expected a number from 0 to 1"),
    ],
)
def test_invalid_values_are_named(line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_options(ExportOptions, line.split())


def test_a_flag_without_effect_is_mentioned(caplog: pytest.LogCaptureFixture) -> None:
    parse_options(ExportOptions, ["--include", "onnx", "--optimize", "--dynamic"])
    assert caplog.messages == ["--optimize has no effect: it is for torchscript"]


def test_options_that_a_format_lacks_are_reset(caplog: pytest.LogCaptureFixture) -> None:
    line = "--include torchscript onnx engine --dynamic --nms --cache c --opset 12"
    options = parse_options(ExportOptions, line.split()).for_format("onnx")

    assert (options.include, options.dynamic, options.nms, options.cache) == (["onnx"], True, True, "")
    assert options.opset == 12
    assert caplog.messages == ["onnx: written without --cache, which it does not support"]


def test_keywords_are_the_flags() -> None:
    options = options_from(ExportOptions, {"weights": Path("a.pt"), "include": "onnx", "imgsz": 96})
    assert (options.weights, options.include, options.imgsz) == (["a.pt"], ["onnx"], (96, 96))
    with pytest.raises(ConfigError, match="no option 'inclde'; did you mean include"):
        options_from(ExportOptions, {"inclde": "onnx"})


def test_settings_are_options_with_what_the_model_adds() -> None:
    settings = ExportSettings(include=["onnx"], nms=True, stride=32, names={0: "cell"})

    nms = {"conf": 0.25, "iou": 0.45}
    assert settings.metadata() == {"task": "detect", "stride": 32, "names": {0: "cell"}, "nms": nms}
    assert "stride" not in settings.as_dict()
