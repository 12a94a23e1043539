"""Every format whose packages are installed, for a segmentation model: masks, validation, INT8."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import cv2
import numpy as np
import pytest
import torch

import export
from models.autoshape import AutoShape
from models.backends import load_backend
from models.weights import read_checkpoint
from segment import val
from tests.models.backends.files import CPU
from tests.studies.segmenters import polygon_set, segmenter
from tests.utils.export.test_every_format import PACKAGES, RUN_HERE, needs_packages
from utils.base.formats import FORMATS
from utils.base.options import options_from
from utils.export.export_job import ExportReport
from utils.export.export_options import ExportOptions
from utils.export.verify import TOLERANCE

SIDE = 64
LOADED_HERE = ("torchscript", "onnx", "openvino", "ncnn", "pt2")  # others crash beside PyTorch


@cache
def home() -> Path:
    """A folder with a checkpoint and images with polygons."""
    folder = Path(mkdtemp(prefix="masks to export-"))
    polygon_set(folder)
    segmenter(folder)
    return folder


def exported(name: str, **more: object) -> ExportReport:
    needs_packages(name)
    keywords = {"weights": str(home() / "segmenter.pt"), "include": [name], "imgsz": SIDE, **more}
    (report,) = export.export(options_from(ExportOptions, keywords))
    assert report.error == ""
    return report


def formats() -> list[object]:
    """Return all formats; compiling AOTInductor takes half a minute."""
    slow = {"pt2": pytest.mark.slow}
    names = ["torchscript", "onnx", *PACKAGES]
    return [pytest.param(name, marks=slow.get(name, ())) for name in names]


@pytest.mark.parametrize("name", formats())
def test_a_file_has_the_boxes_and_masks_of_pytorch(name: str) -> None:
    report = exported(name)
    if name in PACKAGES and name not in RUN_HERE:
        assert report.note.startswith("not run")
        return
    assert report.difference is not None and report.difference < TOLERANCE
    if name not in LOADED_HERE:
        return
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8), (2 * SIDE, 2 * SIDE))
    found = []
    for path in (home() / "segmenter.pt", report.file):
        model = AutoShape(load_backend(path, CPU))
        model.conf, model.max_det, model.retina_masks = 1e-5, 5, True
        found.append(model(image, size=(SIDE, SIDE)))
    assert found[0].names == found[1].names and found[0].masks[0].shape == (5, 2 * SIDE, 2 * SIDE)
    np.testing.assert_allclose(found[1].pred[0], found[0].pred[0], atol=2e-2)
    assert (found[0].masks[0] != found[1].masks[0]).mean() < 1e-3


def test_val_measures_a_file_as_pytorch_does(tmp_path: Path) -> None:
    report = exported("onnx")
    results = [
        val.run(
            weights=path, data=home() / "data.yaml", imgsz=SIDE, batch_size=2, device="cpu", project=tmp_path,
            plots=False,
        )
        for path in (home() / "segmenter.pt", report.file)
    ]  # fmt: skip
    np.testing.assert_allclose(results[1][0], results[0][0], atol=1e-3)


@pytest.mark.parametrize("name", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_int8_and_half_are_near(name: str) -> None:
    quantized = exported(name, int8=True, data=str(home() / "data.yaml"))
    assert quantized.file.name == f"segmenter{FORMATS[name].ending('int8')}"
    assert quantized.difference is not None and 1e-5 < quantized.difference < 1
    half = exported(name, half=True)
    assert half.difference is not None and 1e-6 < half.difference < 2e-2


def test_the_checkpoint_is_not_changed_by_exports() -> None:
    before = read_checkpoint(str(home() / "segmenter.pt"))
    exported("onnx")
    after = read_checkpoint(str(home() / "segmenter.pt"))
    assert all(torch.equal(a, b) for a, b in zip(before.state.values(), after.state.values(), strict=True))
