"""IoU and its variants: the numbers of the original, and no NaN for boxes of size zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.known import arrays
from utils.ops.boxes import Kind, bbox_iou, box_ioa, box_iou

GOLDEN = arrays("07_boxes")
KINDS: tuple[Kind, ...] = ("iou", "giou", "diou", "ciou")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["xywh", "xyxy"])
def test_pairs_equal_the_original(kind: Kind, form: str) -> None:
    one, two = (torch.from_numpy(GOLDEN[f"{form}{i}"]) for i in (1, 2))
    ours = bbox_iou(one, two, xywh=form == "xywh", kind=kind).numpy()
    expected = GOLDEN[f"{kind}_{form}"]
    np.testing.assert_allclose(ours[:120], expected[:120], rtol=1e-5, atol=1e-5)
    known = np.isfinite(expected[120:])
    np.testing.assert_allclose(ours[120:][known], expected[120:][known], rtol=1e-4, atol=1e-4)


def test_a_small_example() -> None:
    one, two = torch.tensor([5.0, 5, 4, 3]), torch.tensor([6.0, 5.5, 3, 5])
    ours = [bbox_iou(one, two, kind=kind).item() for kind in KINDS]
    assert ours == pytest.approx([0.3846154, 0.2512820, 0.3569911, 0.3515482], abs=1e-6)


def test_the_gradient_of_ciou_equals_the_original() -> None:
    one = torch.from_numpy(GOLDEN["xywh1"][:120]).requires_grad_()
    bbox_iou(one, torch.from_numpy(GOLDEN["xywh2"][:120]), kind="ciou").sum().backward()
    assert one.grad is not None
    np.testing.assert_allclose(one.grad.numpy(), GOLDEN["ciou_grad_box1_first120"], rtol=1e-5, atol=1e-5)


def test_matrices_equal_the_original() -> None:
    one, two = torch.from_numpy(GOLDEN["xyxy1"][:20]), torch.from_numpy(GOLDEN["xyxy2"][:30])
    np.testing.assert_allclose(box_iou(one, two).numpy(), GOLDEN["box_iou_first20x30"], atol=1e-6)
    ioa = box_ioa(GOLDEN["xyxy1"][:15], GOLDEN["xyxy2"][:25])
    np.testing.assert_allclose(ioa, GOLDEN["bbox_ioa_first15x25"], rtol=1e-5, atol=1e-6)


def test_boxes_of_size_zero_have_finite_values_and_gradients() -> None:
    empty = torch.zeros(3, 4, requires_grad=True)
    others = torch.tensor([[0.0, 0, 0, 0], [1, 1, 2, 2], [0, 0, 0, 5]])
    ciou = bbox_iou(empty, others, kind="ciou")
    ciou.sum().backward()
    assert torch.isfinite(ciou).all()
    assert empty.grad is not None
    assert torch.isfinite(empty.grad).all()


def test_sizes_that_underflow_have_finite_gradients() -> None:
    logits = torch.tensor([[0.0, 0, -40, -45], [0, 0, -80, -90]], requires_grad=True)
    sizes = (2 * logits[:, 2:].sigmoid()) ** 2
    ciou = bbox_iou(torch.cat((logits[:, :2], sizes), 1), torch.tensor([[0.1, 0.2, 3.0, 2.0]]), kind="ciou")
    ciou.sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
