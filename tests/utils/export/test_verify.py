"""Comparing outputs with PyTorch's, and what happens to files that differ."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.backends.files import checkpoint, example, tiny_model
from utils.base.formats import FORMATS
from utils.base.options import options_from
from utils.export import export_job, verify
from utils.export.export_job import Exporter, ExportReport
from utils.export.export_options import ExportOptions
from utils.export.export_settings import ExportSettings
from utils.export.verify import TOLERANCE, compare_outputs

IMAGES = torch.zeros(1, 3, 100, 200)


def export(folder: Path, *formats: str) -> list[ExportReport]:
    """Export the tiny model to a folder."""
    weights = Path(shutil.copy(checkpoint(), folder / "m.pt"))
    return Exporter(weights, options_from(ExportOptions, {"include": formats, "imgsz": 64})).export()


def test_boxes_are_compared_relative_to_the_image_or_to_their_size() -> None:
    expected = torch.zeros(1, 2, 6)
    expected[0, 1, 2] = 1000.0
    actual = expected.clone()
    actual[0, 0, 0] = 1.0  # of 200 pixels
    actual[0, 1, 2] += 4.0  # of 1000
    actual[0, 1, 5] = 0.001

    difference = compare_outputs(expected, actual, IMAGES)

    assert difference.boxes == pytest.approx(1 / 200)
    assert difference.scores == pytest.approx(0.001)
    assert difference.largest == difference.boxes


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        (torch.zeros(1, 3, 6), r"\(1, 3, 6\) instead of \(1, 2, 6\)"),
        (torch.full((1, 2, 6), torch.nan), "finite"),
    ],
)
def test_other_shapes_and_nan_are_errors(actual: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare_outputs(torch.zeros(1, 2, 6), actual, IMAGES)


def test_a_file_with_another_output_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = verify.load_backend

    def wrong(*args: object, **kwargs: object) -> object:
        backend = real(*args, **kwargs)  # type: ignore[arg-type]
        return lambda images: backend(images) * (1 + 20 * TOLERANCE)

    monkeypatch.setattr(verify, "load_backend", wrong)
    (report,) = export(tmp_path, "torchscript")

    assert "differs from PyTorch by 2.0e-03; kept as m.torchscript.failed" in report.error
    assert {file.name for file in tmp_path.iterdir()} == {"m.pt", "m.torchscript.failed"}


def test_one_failure_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("no converter\nfor this")

    real = export_job.export_function
    monkeypatch.setattr(
        export_job, "export_function", lambda name: broken if name == "torchscript" else real(name)
    )
    reports = export(tmp_path, "torchscript", "engine", "onnx")

    assert [report.error for report in reports] == [
        "RuntimeError: no converter for this",
        "--include engine needs an NVIDIA GPU: add --device 0",
        "",
    ]
    assert reports[2].difference is not None and reports[2].difference < TOLERANCE
    assert {file.name for file in tmp_path.iterdir()} == {"m.pt", "m.onnx"}


def test_outputs_of_the_tiny_model_depend_on_the_image() -> None:
    """Otherwise equal outputs would mean nothing."""
    with torch.inference_mode():
        decoded = tiny_model()(example(2))[0]
    assert (decoded[0] - decoded[1]).abs().max() > 1


def test_int8_classifiers_are_compared_on_images_of_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of class folders are sorted by class; a file that knows only the first one is wrong."""

    class Model:
        names = {0: "dark", 1: "bright"}

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            bright = images.mean((1, 2, 3))
            return torch.stack((0.5 - bright, bright - 0.5), 1)

    images = [torch.full((1, 3, 8, 8), value) for value in (0.0, 1.0) for _ in range(8)]
    settings = ExportSettings(
        stride=32, names=Model.names, include=["onnx"], task="classify", int8=True,
        calibration_images=lambda: images,
    )  # fmt: skip
    model: Any = Model()
    runtimes = {"right": model, "wrong": lambda images: model(0 * images)}
    monkeypatch.setattr(verify, "load_backend", lambda file, *args, **keywords: runtimes[file.name])
    found = [verify.verify(FORMATS["onnx"], Path("right"), model, images[0], settings)]
    assert found == [(0.0, "finds 100% of the classes")]
    with pytest.raises(ValueError, match="finds 50% of PyTorch's classes"):
        verify.verify(FORMATS["onnx"], Path("wrong"), model, images[0], settings)
