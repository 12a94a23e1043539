from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch

from models.backends import load_backend
from models.backends.metadata import Metadata, from_zip
from tests.models.backends.files import CPU, NAMES, SIDE, checkpoint, example, expected, exported, tiny_model
from utils.base.errors import ConfigError, DataError
from utils.base.formats import format_of
from utils.base.paths import ROOT
from utils.export import export_function
from utils.export.export_settings import ExportSettings
from utils.ops.nms import non_max_suppression

RUNTIMES = ("torchscript", "onnx")


def test_a_checkpoint_has_names_and_stride_and_takes_any_rectangle() -> None:
    backend = load_backend([str(checkpoint())], CPU)

    assert (backend.names, backend.nc, backend.stride) == (NAMES, 2, 32)
    assert backend.pt
    assert backend(torch.zeros(2, 3, 32, 96)).shape == (2, 2 * (2 * 6 + 1 * 3), 7)


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="no instructions for bfloat16")
def test_a_checkpoint_runs_in_bfloat16() -> None:
    backend = load_backend([str(checkpoint())], CPU, runtime="bf16")
    assert next(backend.model.parameters()).dtype == torch.bfloat16

    found, exact = backend(example()), expected(example())
    assert found.dtype == torch.float32
    torch.testing.assert_close(found[..., :4], exact[..., :4], rtol=0.05, atol=0.5)  # pixels
    torch.testing.assert_close(found[..., 4:], exact[..., 4:], rtol=0, atol=0.02)
    assert (found != exact).any()


def test_bfloat16_needs_a_processor_with_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("models.backends.pytorch.has_bf16", lambda: False)
    backend = load_backend([str(checkpoint())], CPU, runtime="bf16")
    assert next(backend.model.parameters()).dtype == torch.float32
    assert "no instructions" in caplog.text
    assert torch.equal(backend(example()), load_backend([str(checkpoint())], CPU)(example()))


def test_other_runtimes_of_a_checkpoint_are_an_error() -> None:
    with pytest.raises(ConfigError, match="--runtime GPU: for a .pt file bf16"):
        load_backend([str(checkpoint())], CPU, runtime="GPU")


@pytest.mark.parametrize("name", RUNTIMES)
def test_an_exported_file_gives_the_boxes_of_pytorch(name: str) -> None:
    backend = load_backend([str(exported(name))], CPU)

    assert (backend.names, backend.stride, backend.imgsz) == (NAMES, 32, (SIDE, SIDE))
    assert not backend.pt
    torch.testing.assert_close(backend(example()), expected(example()), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", RUNTIMES)
def test_larger_batches_than_the_exported_one_are_split(name: str) -> None:
    backend = load_backend([str(exported(name))], CPU)
    torch.testing.assert_close(backend(example(3)), expected(example(3)), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_file_of_one_size_names_it_when_given_another(name: str) -> None:
    backend = load_backend([str(exported(name))], CPU)
    with pytest.raises(ConfigError, match=f"images of 64x64 only, not 96x96; use --imgsz {SIDE}"):
        backend(example(side=96))


def test_a_dynamic_file_takes_any_size_and_batch() -> None:
    backend = load_backend([str(exported("onnx", dynamic=True))], CPU)
    assert (backend.imgsz, backend.batch) == (None, None)
    torch.testing.assert_close(backend(example(2, 96)), expected(example(2, 96)), rtol=1e-4, atol=1e-3)


def test_opencv_runs_onnx_too() -> None:
    backend = load_backend([str(exported("onnx"))], CPU, names=NAMES, dnn=True)
    assert backend.names == NAMES
    torch.testing.assert_close(backend(example(2)), expected(example(2)), rtol=1e-3, atol=1e-2)


def test_opencv_without_names_numbers_the_classes() -> None:
    backend = load_backend([str(exported("onnx"))], CPU, dnn=True)
    assert backend.names == {0: "class0", 1: "class1"}


def test_dnn_is_for_onnx_files() -> None:
    with pytest.raises(ConfigError, match=r"--dnn runs .onnx files"):
        load_backend([str(checkpoint())], CPU, dnn=True)


def test_a_torchscript_program_named_pt_is_not_run(tmp_path: Path) -> None:
    disguised = tmp_path / "model.pt"
    shutil.copy(exported("torchscript"), disguised)
    with pytest.raises(DataError, match=r"model.pt: not a checkpoint but a TorchScript program.*rename"):
        load_backend([str(disguised)], CPU)


def test_several_checkpoints_form_an_ensemble() -> None:
    backend = load_backend([str(checkpoint()), str(checkpoint())], CPU)
    alone = expected(example())
    torch.testing.assert_close(backend(example()), torch.cat((alone, alone), 1))


def test_only_checkpoints_form_an_ensemble() -> None:
    with pytest.raises(ConfigError, match="ensemble"):
        load_backend([str(checkpoint()), str(exported("onnx"))], CPU)


def test_test_time_augmentation_needs_a_checkpoint() -> None:
    native = load_backend([str(checkpoint())], CPU)
    assert native(example(), augment=True).shape[1] != native(example()).shape[1]
    with pytest.raises(ConfigError, match=r"--augment needs a PyTorch model \(.pt\)"):
        load_backend([str(exported("onnx"))], CPU)(example(), augment=True)


def test_visualize_is_called_with_every_layer() -> None:
    layers: list[str] = []
    load_backend([str(checkpoint())], CPU)(
        example(), visualize=lambda layer, output: layers.append(type(layer).__name__)
    )
    assert layers == ["Conv", "Conv", "C3", "Conv"]


def test_formats_without_a_python_runtime_are_an_error() -> None:
    with pytest.raises(ConfigError, match="run in browsers, not in Python"):
        load_backend(["yolov5s_web_model"], CPU)


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("a.pt", "pt"),
        ("A.ONNX", "onnx"),
        ("runs/yolov5s_openvino_model/", "openvino"),
        ("yolov5s-int8_edgetpu.tflite", "edgetpu"),
        ("yolov5s-fp16.tflite", "tflite"),
        ("yolov5s.mlmodel", "coreml"),
        ("grpc://host:8001", "triton"),
        ("https://github.com/some/where/yolov5s.pt", "pt"),
        ("best", "pt"),
    ],
)
def test_the_file_name_decides_the_format(file: str, kind: str) -> None:
    assert format_of(file).name == kind


@pytest.mark.parametrize("name", RUNTIMES)
def test_missing_and_corrupt_files_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"model.{name}"
    with pytest.raises(DataError, match=f"model.{name}: no such file"):
        load_backend([str(path)], CPU)
    path.write_bytes(b"nonsense")
    with pytest.raises(DataError, match=f"model.{name}"):
        load_backend([str(path)], CPU)


def test_names_in_a_file_are_never_evaluated(tmp_path: Path) -> None:
    import onnx

    marker, file = tmp_path / "owned", tmp_path / "hostile.onnx"
    graph = onnx.load(str(exported("onnx")))
    onnx.helper.set_model_props(graph, {"names": f"__import__('pathlib').Path({str(marker)!r}).touch()"})
    onnx.save(graph, str(file))

    with pytest.raises(DataError, match="hostile.onnx: stride or names"):
        load_backend([str(file)], CPU)
    assert not marker.exists()


def test_telemetry_of_onnx_runtime_is_disabled(offline: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its wheels (1.32) report to Microsoft unless this variable is set before they are loaded."""
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    program = f"""
import os, sys, torch
from models.backends import load_backend
assert "onnxruntime" not in sys.modules
load_backend({str(exported("onnx"))!r}, torch.device("cpu"))
assert "onnxruntime" in sys.modules
print("variable", os.environ.get("ORT_DISABLE_TELEMETRY"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert "variable 1" in done.stdout, done.stderr


@pytest.mark.parametrize(
    "values",
    [
        {"stride": "0"},
        {"stride": "-32"},
        {"stride": "1e999"},
        {"stride": "100000000"},
        {"names": "[" * 5000 + "]" * 5000},
        {"names": "5"},
        {"imgsz": {"a": 1}},
        {"batch": -3},
        {"nms": {"iou": 0.4}},
    ],
)
def test_corrupt_metadata_are_a_one_line_error(values: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"^m.onnx: stride or names in its metadata are corrupt") as caught:
        Metadata.of(values, "m.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[1, 2]", "5", "'a'", "[" * 5000])
def test_metadata_that_are_not_a_mapping_are_an_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "model.pte"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("metadata.txt", text)
    with pytest.raises(DataError, match=r"model.pte: .*metadata are corrupt"):
        from_zip(file)


def test_a_file_that_takes_no_images_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "linear.onnx"
    torch.onnx.export(torch.nn.Linear(3, 3), (torch.rand(2, 3),), str(file), dynamo=False)
    with pytest.raises(DataError, match=r"linear.onnx: not a model for images: its input has 2 dimensions"):
        load_backend(str(file), CPU)


def test_a_file_with_nms_warns_about_a_lower_confidence_threshold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model()
    model.head.export = True
    options = ExportSettings(stride=32, names=NAMES, include=["onnx"], nms=True, conf_thres=0.2)
    export_function("onnx")(model, example(), tmp_path / "nms.onnx", options)
    backend = load_backend(str(tmp_path / "nms.onnx"), CPU)

    backend.warn_about_conf_thres(0.25)
    assert not caplog.messages
    backend.warn_about_conf_thres(0.001)
    assert (
        "NMS built in with confidence threshold 0.2, so --conf-thres 0.001 has no effect"
        in caplog.messages[0]
    )
    found = non_max_suppression(backend(example()), 0.2, 0.45)[0]
    own = non_max_suppression(expected(example()), 0.2, 0.45)[0]
    torch.testing.assert_close(found, own, rtol=1e-4, atol=1e-3)
