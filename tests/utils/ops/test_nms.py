"""NMS: the rows of the original; unlike there, no image is dropped and NaN has no effect."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.known import arrays, golden
from utils.base.errors import ConfigError
from utils.ops import nms
from utils.ops.nms import non_max_suppression

CASES = golden("04_nms")["cases"]
THREE_CLASSES = torch.tensor(
    [
        [10, 10, 10, 10, 0.9, 0.9, 0.1, 0.2],
        [11, 10, 10, 10, 0.8, 0.8, 0.5, 0.1],
        [10, 10, 10, 10, 0.7, 0.1, 0.9, 0.1],
        [50, 50, 20, 20, 0.2, 0.3, 0.3, 0.4],
    ]
)[None]


def golden_input(name: str) -> Tensor:
    case = CASES[name]
    if "generator_seed" not in case:
        return torch.from_numpy(arrays("04_nms")[f"{case.get('input_of', name)}/input"])
    generator = np.random.default_rng(case["generator_seed"])
    p = np.empty((1, 9000, 10), np.float32)
    p[..., :2] = generator.uniform(0, 640, (1, 9000, 2))
    p[..., 2:4] = generator.uniform(4, 60, (1, 9000, 2))
    p[..., 4] = generator.uniform(0, 1, (1, 9000))
    p[..., 5:] = generator.uniform(0, 1, (1, 9000, 5))
    assert p.astype(np.float64).sum() == pytest.approx(case["input_sum"], rel=1e-7)
    return torch.from_numpy(p)


@pytest.mark.parametrize("name", CASES)
def test_rows_equal_the_original(name: str) -> None:
    stored, decoded = arrays("04_nms"), golden_input(name)
    labels: Any = ()
    if f"{name}/labels0" in stored:
        labels = [torch.from_numpy(stored[f"{name}/labels{i}"]) for i in range(len(decoded))]
    before = decoded.clone()
    ours = non_max_suppression(decoded, **CASES[name]["args"], labels=labels)
    assert torch.equal(decoded, before)
    assert [len(rows) for rows in ours] == CASES[name]["n_out"]
    for i, rows in enumerate(ours):
        expected = stored[f"{name}/out{i}"]
        np.testing.assert_allclose(ordered(rows.numpy()), ordered(expected), atol=1e-3)
        np.testing.assert_allclose(rows[:, 4].numpy(), expected[:, 4], atol=1e-6)


def ordered(rows: np.ndarray) -> np.ndarray:
    """Sort rows of equal score, whose order is not defined, by class."""
    return rows[np.lexsort((rows[:, 0], rows[:, 5], -rows[:, 4]))]


def test_a_small_example() -> None:
    (best,) = non_max_suppression(THREE_CLASSES)
    torch.testing.assert_close(
        best, torch.tensor([[5, 5, 15, 15, 0.81, 0], [5, 5, 15, 15, 0.63, 1]]), atol=1e-6, rtol=0
    )
    (agnostic,) = non_max_suppression(THREE_CLASSES, agnostic=True)
    assert agnostic[:, 5].tolist() == [0]
    (several,) = non_max_suppression(THREE_CLASSES, 0.05, multi_label=True)
    assert several[:, 5].tolist() == [0, 1, 2, 2, 0, 1]
    assert several[:, 4].tolist() == pytest.approx([0.81, 0.63, 0.18, 0.08, 0.06, 0.06])


def random_boxes(count: int, nc: int = 3, batch: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.rand(batch, count, 5 + nc, generator=generator)
    rows[..., :4] *= torch.tensor([640, 640, 120, 120])
    return rows


def greedy(xyxy: Tensor, group: Tensor, iou_thres: float, max_det: int) -> list[int]:
    """Compute NMS by its definition, one candidate after the other, best first."""
    from utils.ops.boxes import box_iou

    overlap = box_iou(xyxy.double(), xyxy.double(), eps=0) > iou_thres
    kept: list[int] = []
    for i in range(len(xyxy)):
        if not any(overlap[i, j] and group[i] == group[j] for j in kept):
            kept.append(i)
    return kept[:max_det]


@pytest.mark.parametrize("max_det", [3, 10, 1000])
def test_stopping_early_does_not_change_the_result(max_det: int) -> None:
    """The first 4 * max_det candidates are too few for 3 and 10 detections, so more have to be processed."""
    centre = torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) * 60
    xyxy = torch.cat((centre, centre + 40), 1)
    group = torch.arange(200) % 2
    score = torch.linspace(1, 0.1, 200)
    kept = nms._suppress(xyxy, score, group, 0.3, max_det)
    assert kept.tolist() == greedy(xyxy, group, 0.3, max_det)


@pytest.mark.parametrize("offset", [0.0, 7680.0, 50_000.0])
def test_classes_are_independent_in_images_of_any_size(offset: float) -> None:
    """A box of class 0, 7680 px further right, is where the original compares those of class 1."""
    boxes = torch.tensor([[offset + 20, 7700, 30, 30, 0.9, 1, 0], [20, 20, 30, 30, 0.8, 0, 1]])
    (rows,) = non_max_suppression(boxes[None])
    assert rows[:, 5].tolist() == [0, 1]


def test_iou_of_small_boxes_is_exact_in_the_last_of_many_classes() -> None:
    pair = torch.zeros(2, 5 + 1000)
    pair[:, :4] = torch.tensor([[100.0, 100, 2, 2], [100.6, 100, 2, 2]])  # IoU 1.4 / 2.6 = 0.538
    pair[:, 4], pair[:, -1] = torch.tensor([0.9, 0.8]), 1
    assert [len(non_max_suppression(pair[None], 0.25, t)[0]) for t in (0.53, 0.55)] == [1, 2]


def test_one_huge_box_does_not_affect_the_others() -> None:
    rows = random_boxes(50)
    huge = rows[:, :1].clone()
    huge[..., :4] = 1e30
    huge[..., 4:] = 1
    alone = non_max_suppression(rows)[0]
    together = non_max_suppression(torch.cat((rows, huge), 1))[0]
    assert torch.equal(together[1:], alone)


@pytest.mark.parametrize("column", [0, 3, 4, 6])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_rows_with_nan_or_inf_are_dropped(column: int, value: float) -> None:
    damaged = random_boxes(40)
    damaged[0, ::2, column] = value
    clean = non_max_suppression(damaged[:, 1::2])[0]
    assert len(clean)
    assert torch.equal(non_max_suppression(damaged)[0], clean)


def test_no_image_of_an_untrained_model_is_dropped() -> None:
    """The original reaches its time limit here and returns [300, 0, 0, 0] detections."""
    decoded = random_boxes(25200, nc=3, batch=4)
    found = non_max_suppression(decoded, 0.001, 0.6, multi_label=True)
    assert [len(rows) for rows in found] == [300] * 4


def test_images_of_a_batch_are_independent() -> None:
    batch = random_boxes(300, batch=3)
    together = non_max_suppression(batch)
    for i, rows in enumerate(together):
        assert torch.equal(rows, non_max_suppression(batch[i : i + 1])[0])


def test_equal_scores_keep_their_order() -> None:
    rows = torch.zeros(1, 100, 6)
    rows[0, :, 0] = torch.arange(100) * 50
    rows[0, :, 2:] = torch.tensor([10, 10, 0.5, 1])
    (found,) = non_max_suppression(rows)
    assert (found[:, 0].diff() > 0).all()


def test_fp16_is_processed_in_float32() -> None:
    rows = random_boxes(200)
    (found,) = non_max_suppression(rows.half())
    assert found.dtype == torch.float32
    assert torch.equal(found, non_max_suppression(rows.half().float())[0])


@pytest.mark.parametrize(("conf", "iou"), [(1.5, 0.5), (-0.1, 0.5), (0.5, 2), (float("nan"), 0.5)])
def test_thresholds_out_of_range_are_named(conf: float, iou: float) -> None:
    with pytest.raises(ConfigError, match="-thres"):
        non_max_suppression(random_boxes(1), conf, iou)


def test_torchvision_can_be_imported_after_its_library_was_loaded() -> None:
    nms._nms_kernel()
    import torchvision

    box = torch.tensor([[0.0, 0, 1, 1]])
    assert torchvision.ops.nms(box, torch.ones(1), 0.5).tolist() == [0]


def _plain_nms(rows: list[list[float]], conf: float, iou: float) -> list[tuple[float, ...]]:
    """Compute NMS in plain Python: class by class, box by box."""
    found: list[tuple[float, ...]] = []
    for cls in range(len(rows[0]) - 5):
        kept: list[tuple[float, ...]] = []
        for x, y, w, h, obj, *scores in sorted(
            rows, key=lambda row: -float(np.float32(row[4]) * np.float32(row[5 + cls]))
        ):
            score = float(np.float32(obj) * np.float32(scores[cls]))
            box = (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
            if obj > conf and score > conf and all(_overlap(box, other) <= iou for other in kept):
                kept.append((*box, score, cls))
        found += kept
    return sorted(found, key=lambda box: -box[4])


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def test_nms_equals_plain_python() -> None:
    drawn = torch.rand(3, 150, 10, generator=torch.Generator().manual_seed(5))
    drawn[..., :4] *= torch.tensor([100, 100, 60, 60])
    ours = non_max_suppression(drawn, 0.1, 0.5, multi_label=True, max_det=1000)
    for image, rows in zip(drawn.tolist(), ours, strict=True):
        expected = _plain_nms(image, 0.1, 0.5)
        assert 100 < len(rows) == len(expected)
        np.testing.assert_allclose(rows.numpy(), expected, atol=1e-4)
