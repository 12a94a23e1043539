"""Every format whose packages are installed: export it, load it, and compare the boxes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import export
from tests.known import SHARED, needs_shared
from tests.models.backends.files import checkpoint
from utils.base.errors import ConfigError
from utils.base.formats import FORMATS, size_of
from utils.base.options import options_from
from utils.base.paths import ROOT
from utils.export.export_job import ExportReport
from utils.export.export_options import ExportOptions
from utils.export.verify import TOLERANCE

PACKAGES = {
    "openvino": ("openvino",),
    "coreml": ("coremltools",),
    "saved_model": ("tensorflow",),
    "pb": ("tensorflow",),
    "tflite": ("litert_torch",),
    "paddle": ("paddle", "x2paddle"),
    "executorch": ("executorch",),
    "ncnn": ("ncnn", "pnnx"),
    "pt2": (),
}
RUN_HERE = [name for name in PACKAGES if name != "coreml"]


def needs_packages(name: str) -> None:
    """Skip where a format's packages are missing."""
    if missing := [package for package in PACKAGES.get(name, ()) if find_spec(package) is None]:
        pytest.skip(f"{' '.join(missing)}: not installed ({FORMATS[name].install})")
    if name == "pt2" and shutil.which("g++") is None:
        pytest.skip("no C++ compiler")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint, a dataset's yaml, and a space in its name."""
    folder = tmp_path_factory.mktemp("all formats")
    shutil.copy(checkpoint(), folder / "tiny.pt")
    images = folder / "images"
    images.mkdir()
    for file in (ROOT / "data" / "images").glob("*.jpg"):
        shutil.copy(file, images)
    words = f"path: {folder}\ntrain: images\nval: images\nnames: [cell, plate]\n"
    (folder / "data.yaml").write_text(words)
    return folder


def exported(folder: Path, name: str, **more: object) -> ExportReport:
    """Export the checkpoint of a folder to one format."""
    needs_packages(name)
    keywords = {"weights": str(folder / "tiny.pt"), "include": [name], "imgsz": 64, **more}
    (report,) = export.export(options_from(ExportOptions, keywords))
    return report


@pytest.mark.parametrize("name", PACKAGES)
def test_a_file_has_the_boxes_of_pytorch_and_detect_finds_them(folder: Path, name: str) -> None:
    report = exported(folder, name)

    assert report.error == ""
    assert report.file == folder / f"tiny{FORMATS[name].ending()}"
    assert size_of(report.file) > 20_000
    if name not in RUN_HERE:
        assert report.note.startswith("not run")
        return
    assert report.difference is not None and report.difference < TOLERANCE
    first, second = found_by_detect(folder, folder / "tiny.pt"), found_by_detect(folder, report.file)
    assert len(first) > 3
    assert second == [pytest.approx(row, abs=1e-2) for row in first]


def found_by_detect(folder: Path, weights: Path) -> list[list[float]]:
    """Return the rows of the label files that detect.py writes."""
    words = ["--weights", str(weights), "--source", str(folder / "images"), "--img", "64", "--nosave"]
    words += ["--save-txt", "--save-conf", "--conf-thres", "0.2", "--project", str(folder / "runs")]
    command = [sys.executable, "detect.py", *words, "--name", weights.name, "--exist-ok", "--device", "cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return [
        [float(word) for word in line.split()]
        for text in sorted((folder / "runs" / weights.name / "labels").glob("*.txt"))
        for line in sorted(text.read_text().splitlines())
    ]


@pytest.mark.parametrize("name", ["onnx", "openvino", "tflite"])
def test_int8_finds_the_same_objects(folder: Path, name: str) -> None:
    report = exported(folder, name, int8=True, data=str(folder / "data.yaml"))

    assert report.error == ""
    assert report.file.name == f"tiny{FORMATS[name].ending('int8')}"
    assert "of the boxes" in report.note
    assert report.difference is not None and 1e-4 < report.difference < 1


@needs_shared
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_int8_finds_the_confident_boxes_of_a_trained_model(tmp_path: Path, name: str) -> None:
    """Unlike the tiny model, this one has high confidences."""
    shutil.copy(SHARED / "weights" / "bccd_yolov5n.pt", tmp_path / "tiny.pt")
    words = f"path: {SHARED / 'data' / 'bccd'}\ntrain: images/train\nval: images/val\nnames: [a, b, c]\n"
    (tmp_path / "data.yaml").write_text(words)
    report = exported(tmp_path, name, int8=True, data=str(tmp_path / "data.yaml"), imgsz=320, calibration=20)

    assert report.error == ""
    assert int(report.note.split()[1].rstrip("%")) >= 95


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_int8_is_calibrated_with_batches_of_the_fixed_size(folder: Path, name: str) -> None:
    report = exported(folder, name, int8=True, data=str(folder / "data.yaml"), batch_size=2)
    assert report.error == ""


@pytest.mark.parametrize("limits", [{"topk_all": 5}, {"topk_per_class": 2}])
@pytest.mark.parametrize("name", ["onnx", "openvino", "saved_model"])
def test_a_file_with_nms_keeps_at_most_k_boxes(folder: Path, name: str, limits: dict[str, int]) -> None:
    report = exported(folder, name, nms=True, conf_thres=0.01, **limits)
    assert report.error == ""


@pytest.mark.parametrize("name", ["onnx", "openvino", "tflite"])
def test_half_differs_by_rounding_only(folder: Path, name: str) -> None:
    half = exported(folder, name, half=True)

    assert half.error == ""
    assert half.difference is not None and 1e-5 < half.difference < 2e-2


@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize("name", ["onnx", "openvino", "saved_model", "pb"])
def test_nms_in_the_file_keeps_the_boxes_of_detect(folder: Path, name: str, agnostic: bool) -> None:
    report = exported(folder, name, nms=True, agnostic_nms=agnostic, conf_thres=0.05, topk_all=50)

    assert report.error == ""
    assert report.difference is not None and report.difference < TOLERANCE


def test_options_that_a_format_lacks_are_reset_with_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keywords = {"weights": str(folder / "tiny.pt"), "imgsz": 64, "nms": True, "optimize": False}
    reports = export.export(options_from(ExportOptions, {**keywords, "include": ["torchscript", "onnx"]}))

    assert [report.error for report in reports] == ["", ""]
    assert "torchscript: written without --nms, which it does not support" in caplog.messages
    assert b"nms" not in (folder / "tiny.torchscript").read_bytes().split(b"config.txt")[1][:300]


def test_int8_without_a_dataset_is_an_error_before_the_export(folder: Path) -> None:
    command = [sys.executable, "export.py", "--weights", str(folder / "tiny.pt"), "--include", "onnx"]
    command += ["--int8", "--data", "nowhere.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("ERROR: --data nowhere.yaml: no such file")


def test_int8_with_shards_is_an_error(folder: Path) -> None:
    words = f"path: {folder}\ntrain: a.tar\nval: images\nnames: [cell, plate]\n"
    (folder / "packed.yaml").write_text(words)
    with pytest.raises(ConfigError, match=r"packed.yaml: has no training images in folders or lists"):
        exported(folder, "onnx", int8=True, data=str(folder / "packed.yaml"))


def test_a_missing_package_is_named_and_the_others_are_written(folder: Path) -> None:
    """OpenVINO and NNCF cannot be imported in the subprocess."""
    code = (
        "import sys, json; sys.modules['openvino'] = sys.modules['nncf'] = None; import export\n"
        "from utils.base.options import options_from\n"
        "from utils.export.export_options import ExportOptions\n"
        f"keywords = dict(weights={str(folder / 'tiny.pt')!r}, include=['openvino', 'onnx'])\n"
        "reports = export.export(options_from(ExportOptions, keywords))\n"
        "print(json.dumps([report.error for report in reports]))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    errors = json.loads(done.stdout.splitlines()[-1])
    assert errors == ["--include openvino needs: pip install openvino nncf", ""]


def test_a_converter_that_crashes_does_not_stop_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(folder / "broken"))
    (folder / "broken").mkdir()
    (folder / "broken" / "sitecustomize.py").write_text(
        "import os, sys\nif 'utils.export.export_job' in str(sys.orig_argv):\n"
        "    os.write(2, b'no memory\\n'); os.abort()\n"
    )
    keywords = {"weights": str(folder / "tiny.pt"), "include": ["ncnn", "torchscript"], "imgsz": 64}
    crashed, made = export.export(options_from(ExportOptions, keywords))

    assert crashed.error == "the converter ended with status -6: no memory"
    assert made.error == ""


@needs_shared
@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchscript", "onnx", *RUN_HERE])
def test_the_official_weights_differ_by_less_than_a_ten_thousandth(tmp_path: Path, name: str) -> None:
    shutil.copy(SHARED / "weights" / "yolov5n.pt", tmp_path / "tiny.pt")
    report = exported(tmp_path, name, imgsz=320)
    assert report.error == ""
    assert report.difference is not None and report.difference < TOLERANCE
