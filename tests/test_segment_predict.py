"""segment/predict.py: the polygons of the original, and masks in images, labels and crops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from segment import predict
from tests.detecting import Finder, made
from tests.known import SHARED, golden, needs_shared
from tests.models.backends.files import checkpoint
from tests.utils.sources.test_source import make_image_file
from utils.base.errors import ConfigError
from utils.base.options import options_from
from utils.plots.annotator import blend_masks
from utils.predict.detector import DetectSummary, detect
from utils.tasks.segment.options import PredictOptions

KNOWN: dict[str, Any] = golden("14_segment_predict")
IMAGES = SHARED / "data" / KNOWN["split"].removeprefix("data/")


def read_rows(file: Path) -> list[list[float]]:
    return [[float(word) for word in line.split()] for line in file.read_text().splitlines()]


def filled(points: list[float], height: int, width: int) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    corners = (np.array(points).reshape(-1, 2) * (width, height)).astype(np.int32)
    cv2.fillPoly(mask, [corners], 1)
    return mask.astype(bool)


@needs_shared
@pytest.mark.parametrize("retina_masks", [False, True])
def test_polygons_equal_the_original(tmp_path: Path, retina_masks: bool) -> None:
    listed = tmp_path / "files.txt"
    listed.write_text("".join(f"{IMAGES / name}\n" for name in KNOWN["files"]))
    summary = predict.run(
        weights=SHARED / "weights" / "nuclei-seg.pt", source=listed, imgsz=256, device="cpu", nosave=True,
        save_txt=True, save_conf=True, retina_masks=retina_masks, project=tmp_path,
    )  # fmt: skip
    known = KNOWN["retina_masks" if retina_masks else "input_size_masks"]
    files = {file.stem: read_rows(file) for file in (summary.save_dir / "labels").iterdir()}
    # Rows of masks without a polygon are left out: readers fail on them.
    expected = {name: [row for row in rows if len(row) >= 8] for name, rows in known.items()}
    assert files.keys() == {name for name, rows in expected.items() if rows}
    for name, rows in files.items():
        height, width = cv2.imread(str(IMAGES / f"{name}.jpg")).shape[:2]
        assert len(rows) == len(expected[name])
        for found, true in zip(rows, expected[name], strict=True):
            assert found[0] == true[0] and found[-1] == pytest.approx(true[-1], abs=2e-3)
            one, other = (filled(row[1:-1], height, width) for row in (found, true))
            assert (one & other).sum() >= 0.97 * (one | other).sum()


class MaskFinder(Finder):
    """Backend that finds a cat in the upper left, and a smaller dog that overlaps it, with masks."""

    def __init__(self) -> None:
        super().__init__()
        self.task = "segment"

    def infer(self, images: torch.Tensor) -> Any:
        batch, _, h, w = images.shape
        protos = torch.full((batch, 2, h // 4, w // 4), -20.0)
        protos[:, 0, : h // 8, : w // 8] = 20
        protos[:, 1, h // 16 : h // 8, w // 16 : w // 8] = 20
        rows = [
            [w / 4, h / 4, w / 2, h / 2, 0.9, 1, 0, 1, 0],
            [3 * w / 8, 3 * h / 8, w / 4, h / 4, 0.6, 0, 1, 0, 1],
        ]
        return torch.tensor([rows] * batch), protos


def segment_in(source: Path, folder: Path, backend: Finder | None = None, **more: Any) -> DetectSummary:
    values = {"source": source, "project": str(folder), "imgsz": 64, "device": "cpu", **more}
    return detect(options_from(PredictOptions, values), load=lambda _: backend or MaskFinder())


def test_masks_are_drawn_into_images_but_not_into_crops(tmp_path: Path, logged: list[str]) -> None:
    file = make_image_file(tmp_path / "a.png", 128, 128)
    original = cv2.imread(str(file)).astype(int)
    summary = segment_in(
        file, tmp_path / "runs", save_crop=True, save_txt=True, hide_labels=True, line_thickness=1
    )
    assert made(summary.save_dir) == {
        "a.png", "labels/a.txt", "crops/cat/a.jpg", "crops/dog_wolf/a.jpg",
    }  # fmt: skip
    drawn = cv2.imread(str(summary.save_dir / "a.png")).astype(int)
    cat, dog = (np.array(color) for color in ((0xFF, 0x2A, 0x04), (0xEB, 0xDB, 0x0B)))
    assert np.abs(drawn[10, 10] - (original[10, 10] + cat) / 2).max() <= 1
    both = original[50, 50] / 4 + np.maximum(cat, dog) / 2
    assert np.abs(drawn[50, 50] - both).max() <= 1
    assert (drawn[70:, 70:] == original[70:, 70:]).all()
    crop = cv2.imread(str(summary.save_dir / "crops/cat/a.jpg")).astype(int)
    assert np.abs(crop - original[10, 10]).max() < 8
    assert logged[0].startswith(f"image 1/1 {file}: 64x64 1 cat, 1 dog/wolf, ")


@pytest.mark.parametrize("retina_masks", [False, True])
def test_labels_are_polygons_from_the_lowest_confidence_to_the_highest(
    tmp_path: Path, retina_masks: bool
) -> None:
    file = make_image_file(tmp_path / "a.png", 128, 128)
    summary = segment_in(file, tmp_path / "runs", save_txt=True, save_conf=True, retina_masks=retina_masks)
    dog, cat = read_rows(summary.save_dir / "labels/a.txt")
    assert (dog[0], dog[-1], cat[0], cat[-1]) == (1, pytest.approx(0.6), 0, pytest.approx(0.9))
    for row, low, high in ((cat, 0, 0.5), (dog, 0.25, 0.5)):
        points = np.array(row[1:-1]).reshape(-1, 2)
        assert len(points) >= 3
        # The last pixel of a mask is one of the input, or of the image, before its end.
        np.testing.assert_allclose(points.min(0), low, atol=1.01 / 64)
        np.testing.assert_allclose(points.max(0), high, atol=1.01 / 64)


def test_an_image_without_detections_has_no_labels(tmp_path: Path) -> None:
    file = make_image_file(tmp_path / "a.png", 40, 60)
    for retina_masks in (False, True):
        summary = segment_in(
            file, tmp_path / "runs", save_txt=True, conf_thres=0.95, retina_masks=retina_masks
        )
        assert made(summary.save_dir) == {"a.png"} and summary.label_files == 0


def test_a_detection_model_is_refused(tmp_path: Path) -> None:
    file = make_image_file(tmp_path / "a.png", 40, 60)
    with pytest.raises(ConfigError, match=r"is a detection model, expected a segmentation model"):
        predict.run(weights=checkpoint(), source=file, imgsz=64, device="cpu", project=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_masks_are_blended_by_the_formula_of_the_original() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 30, 3), np.uint8)
    masks = rng.random((5, 20, 30)) < 0.3
    colors = [(255, 0, 10), (0, 200, 30), (255, 0, 10), (40, 50, 60), (0, 0, 0)]
    weights = 0.5 * masks[..., None]
    tints = (weights * np.array(colors, float)[:, None, None]).max(0)
    expected = image * np.prod(1 - weights, 0) + tints
    blended = image.copy()
    blend_masks(blended, masks.astype(np.uint8), colors)
    assert np.abs(blended - expected).max() <= 1
    assert (blended[~masks.any(0)] == image[~masks.any(0)]).all()
