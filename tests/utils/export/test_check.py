from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.models.backends.files import checkpoint, example, tiny_model
from utils.export import export_job
from utils.export.export_options import ExportOptions
from utils.export.verify import TOLERANCE, compare, example_images

IMAGES = torch.zeros(1, 3, 100, 200)


def test_boxes_are_compared_in_parts_of_the_image_or_of_themselves() -> None:
    expected = torch.zeros(1, 2, 6)
    expected[0, 1, 2] = 1000.0
    found = expected.clone()
    found[0, 0, 0] = 1.0  # of 200 pixels
    found[0, 1, 2] += 4.0  # of 1000
    found[0, 1, 5] = 0.001

    difference = compare(expected, found, IMAGES)

    assert difference.boxes == pytest.approx(1 / 200)
    assert difference.scores == pytest.approx(0.001)
    assert difference.largest == difference.boxes


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (torch.zeros(1, 3, 6), r"\(1, 3, 6\) instead of \(1, 2, 6\)"),
        (torch.full((1, 2, 6), torch.nan), "finite"),
    ],
)
def test_other_shapes_and_nonsense_numbers_are_failures(found: torch.Tensor, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        compare(torch.zeros(1, 2, 6), found, IMAGES)


def test_without_images_a_pattern_is_drawn(tmp_path: Path) -> None:
    images = example_images((64, 96), 2, tmp_path)
    assert images.shape == (2, 3, 64, 96)
    assert 0 <= images.min() < images.max() <= 1
    assert torch.equal(images[0], images[1])


def test_a_file_that_answers_otherwise_is_a_failure(tmp_path: Path) -> None:
    model = tiny_model()
    model.head.export = True

    reports = export_job.export_all(
        ["torchscript"],
        tmp_path / "m.pt",
        model,
        example(),
        ExportOptions(32),
        lambda file: lambda images: model(images)[0] * (1 + 20 * TOLERANCE),
    )

    assert "differs from PyTorch by 2.0e-03; kept as m.torchscript.failed" in reports[0].error
    assert [file.name for file in tmp_path.iterdir()] == ["m.torchscript.failed"]


def test_one_failure_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    model.head.export = True

    def broken(*args: object) -> None:
        raise RuntimeError("no converter\nfor this")

    real = export_job.exporter
    monkeypatch.setattr(export_job, "exporter", lambda name: broken if name == "torchscript" else real(name))
    reports = export_job.export_all(
        ["torchscript", "engine", "onnx"],
        tmp_path / "m.pt",
        model,
        example(),
        ExportOptions(32),
        lambda file: lambda images: model(images)[0],
    )

    assert [report.error for report in reports] == [
        "RuntimeError: no converter for this",
        "--include engine needs an NVIDIA GPU: add --device 0",
        "",
    ]
    assert reports[2].difference is not None
    assert reports[2].difference < TOLERANCE
    assert {file.name for file in tmp_path.iterdir()} == {"m.onnx"}


def test_the_checkpoint_of_these_tests_is_not_trivial() -> None:
    """Equal outputs mean something only if outputs depend on the image."""
    assert checkpoint().exists()
    with torch.inference_mode():
        decoded = tiny_model()(example(2))[0]
    assert (decoded[0] - decoded[1]).abs().max() > 1
