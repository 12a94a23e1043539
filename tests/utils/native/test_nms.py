"""NMS by the compiled kernel keeps the boxes that torchvision keeps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.ops import nms

from utils.native.library import library
from utils.native.nms import can_keep, keep_boxes
from utils.ops.nms import non_max_suppression

pytestmark = pytest.mark.skipif(library() is None, reason="no compiler")


def boxes_of(kind: str, number: int, random: torch.Generator) -> Tensor:
    """Return boxes (n, 4) float64 in four groups that are far from each other."""
    corner = torch.rand(number, 2, generator=random) * (40 if kind == "crowded" else 400)
    size = torch.rand(number, 2, generator=random) * 60
    if kind == "whole":  # equal IoUs, and boxes without an area
        corner, size = corner.round(), (size / 20).round()
    groups = torch.randint(0, 4, (number, 1), generator=random)
    return torch.cat((corner, corner + size), 1).double() + 3e6 * groups


@pytest.mark.parametrize("kind", ["crowded", "spread", "whole"])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.5, 0.6, 1.0])
def test_the_same_boxes_as_torchvision(kind: str, threshold: float) -> None:
    random = torch.Generator().manual_seed(0)
    for number in (0, 1, 7, 63, 64, 65, 700):
        boxes = boxes_of(kind, number, random)
        scores = torch.arange(number, 0, -1).double()
        expected = nms(boxes, scores, threshold)
        assert torch.equal(keep_boxes(boxes, threshold, number), expected)
        assert torch.equal(keep_boxes(boxes, threshold, 10), expected[:10])
        assert torch.equal(keep_boxes(boxes, threshold, 10**12), expected)


def test_boxes_with_gaps_in_memory() -> None:
    boxes = boxes_of("crowded", 200, torch.Generator().manual_seed(1))
    wide = torch.cat((boxes, boxes), 1)[:, :4]
    assert torch.equal(keep_boxes(wide, 0.5, 300), keep_boxes(boxes, 0.5, 300))


def test_detections_are_those_without_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = torch.rand(2, 3000, 9, generator=torch.Generator().manual_seed(2)) * torch.tensor(
        [320, 320, 80, 80, 1, 1, 1, 1, 1]
    )
    assert can_keep(decoded)
    with_kernel = non_max_suppression(decoded, 0.001, 0.6, multi_label=True)
    monkeypatch.setattr("utils.ops.nms.can_keep", lambda boxes: False)
    without = non_max_suppression(decoded, 0.001, 0.6, multi_label=True)
    assert all(torch.equal(one, other) for one, other in zip(with_kernel, without, strict=True))
    assert min(map(len, with_kernel)) == 300
