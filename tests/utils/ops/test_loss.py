"""Loss: the values and gradients of the original, and properties for any maps and targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.known import arrays, golden
from utils.base.errors import ConfigError
from utils.ops.loss import DetectionLoss, Duplicates, binary_loss, smooth_labels

GOLDEN = arrays("05_loss")
SCALARS = golden("05_loss")
CASES = SCALARS["cases"]
BASE = CASES["A/base"]


def make_loss(case: dict[str, Any], duplicates: Duplicates | None = None, **hyp: float) -> DetectionLoss:
    """Make the loss of the original: the last match of a cell counts, unless matches are sorted by IoU."""
    return DetectionLoss(
        torch.tensor(case["anchors_grid_units"]),
        case["stride"],
        case["nc"],
        SCALARS["hyp_scratch_low"] | case["hyp_overrides"] | hyp,
        case["autobalance"],
        duplicates=duplicates or ("max" if case["sort_obj_iou"] else "last"),
        iou_ratio=case["gr"],
    )


def golden_maps(case: dict[str, Any]) -> list[Tensor]:
    stored = (GOLDEN[f"{case['p']}/p{level}"] for level in range(len(case["stride"])))
    return [torch.from_numpy(level).clone().requires_grad_() for level in stored]


def golden_targets(case: dict[str, Any]) -> Tensor:
    return torch.from_numpy(GOLDEN[case["targets"]])


def gradients(maps: list[Tensor]) -> list[Tensor]:
    assert all(level.grad is not None for level in maps)
    return [level.grad for level in maps if level.grad is not None]


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_equal_the_original(name: str) -> None:
    case = CASES[name]
    loss, targets = make_loss(case), golden_targets(case)
    for step in case["steps"]:
        maps = golden_maps(case)
        total, items = loss(maps, targets)
        total.backward()
        expected = [step[key] for key in ("loss", "lbox", "lobj", "lcls")]
        np.testing.assert_allclose([total.item(), *items.tolist()], expected, rtol=1e-5)
        grads = gradients(maps)
        np.testing.assert_allclose([g.norm().item() for g in grads], step["grad_norms"], rtol=1e-4)
        np.testing.assert_allclose([g.abs().sum().item() for g in grads], step["grad_abs_sum"], rtol=1e-4)
        np.testing.assert_allclose(loss.balance, step["balance_after"][: len(maps)], rtol=1e-6)


def test_every_gradient_of_the_base_case_equals_the_original() -> None:
    maps = golden_maps(BASE)
    make_loss(BASE)(maps, golden_targets(BASE))[0].backward()
    for level, grad in enumerate(gradients(maps)):
        np.testing.assert_allclose(grad.numpy(), GOLDEN[f"A/base/grad{level}"], atol=1e-5)


def test_a_small_example() -> None:
    numbers = 2 * np.sin(0.37 * np.arange(2 * 3 * 8 * (64 + 16 + 4)))
    maps, start = [], 0
    for n in (8, 4, 2):
        size = 2 * 3 * n * n * 8
        maps.append(torch.tensor(numbers[start : start + size].reshape(2, 3, n, n, 8)).float())
        start += size
    targets = torch.tensor(
        [
            [0, 0, 0.5, 0.5, 0.3, 0.4],
            [0, 2, 0.21, 0.33, 0.1, 0.2],
            [1, 1, 0.77, 0.8, 0.5, 0.35],
            [1, 0, 0.05, 0.95, 0.08, 0.09],
        ]
    )
    total, items = make_loss(BASE, cls=0.01875)(maps, targets)
    assert [total.item(), *items.tolist()] == pytest.approx(
        [10.158507, 0.0972763, 4.9513211, 0.0306564], rel=1e-4
    )
    total, items = make_loss(BASE, cls=0.01875, label_smoothing=0.1, fl_gamma=1.5)(maps, targets)
    assert [total.item(), *items.tolist()] == pytest.approx(
        [4.876718, 0.0972763, 2.3320267, 0.0090562], rel=1e-4
    )
    total, items = make_loss(BASE, cls=0.01875)(maps, torch.zeros(0, 6))
    assert [total.item(), *items.tolist()] == pytest.approx([9.960093, 0, 4.9800467, 0], rel=1e-4)


def test_focal_loss_and_label_smoothing_equal_the_original() -> None:
    logits, expected = torch.from_numpy(GOLDEN["focal/pred"]), torch.from_numpy(GOLDEN["focal/true"])
    known = SCALARS["focal"]
    assert binary_loss(logits, expected).item() == pytest.approx(known["bce"], rel=1e-5)
    assert binary_loss(logits, expected, gamma=1.5).item() == pytest.approx(
        known["focal_g1_5_a0_25"], rel=1e-5
    )
    for epsilon, positive, negative in SCALARS["smooth_bce"]:
        assert smooth_labels(epsilon) == pytest.approx((positive, negative))


def test_objects_in_one_cell_have_the_greatest_iou_as_target_in_any_order() -> None:
    """In the original the order of writing decides, which is random on a GPU."""
    case = CASES["A/edges"]
    loss, targets, maps = make_loss(case, "max"), golden_targets(case), golden_maps(case)
    forward, backward = (loss(maps, t)[1][1].item() for t in (targets, targets.flip(0)))
    assert forward == pytest.approx(backward, rel=1e-6)
    last, last_backward = (make_loss(case)(maps, t)[1][1].item() for t in (targets, targets.flip(0)))
    assert last != pytest.approx(last_backward, rel=1e-4)


def test_autocast_changes_only_the_precision_of_the_maps() -> None:
    maps, targets = golden_maps(BASE), golden_targets(BASE)
    plain = make_loss(BASE)([level.detach().bfloat16().float() for level in maps], targets)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, items = make_loss(BASE)([level.bfloat16() for level in maps], targets)
    assert total.dtype == items.dtype == torch.float32
    torch.testing.assert_close((total, items), plain)
    total.backward()
    assert all(torch.isfinite(grad).all() for grad in gradients(maps))


def test_maps_may_have_any_memory_format() -> None:
    """Maps of a channels_last model have a smaller stride for anchors than for rows and columns."""
    maps, targets = golden_maps(BASE), golden_targets(BASE)
    strided = [level.permute(0, 2, 3, 1, 4).contiguous().permute(0, 3, 1, 2, 4) for level in maps]
    torch.testing.assert_close(make_loss(BASE)(strided, targets), make_loss(BASE)(maps, targets))


def test_images_without_objects_have_an_objectness_loss_only() -> None:
    maps = golden_maps(BASE)
    total, items = make_loss(BASE)(maps, torch.zeros(0, 6))
    total.backward()
    assert items[0] == items[2] == 0
    for grad in gradients(maps):
        assert (grad[..., 4] > 0).all()
        assert (grad[..., [0, 1, 2, 3, 5, 6, 7]] == 0).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_extreme_logits_give_finite_gradients(gamma: float) -> None:
    maps = [(level.detach() * 100).requires_grad_() for level in golden_maps(BASE)]
    total, _ = make_loss(BASE, fl_gamma=gamma)(maps, golden_targets(BASE))
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(grad).all() for grad in gradients(maps))


def test_autobalance_continues_from_its_state_dict() -> None:
    case = CASES["A/autobalance_2_steps"]
    first, second = make_loss(case), make_loss(case)
    first(golden_maps(case), golden_targets(case))
    second.load_state_dict(first.state_dict())
    assert second.balance == first.balance != make_loss(case).balance


def test_a_missing_gain_is_named() -> None:
    with pytest.raises(ConfigError, match="obj"):
        DetectionLoss(torch.ones(3, 3, 2), [8, 16, 32], 3, {"box": 0.05, "cls": 0.5})
