"""Segmentation loss: the values and gradients of the original, and properties for any masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from tests.known import arrays, golden
from utils.tasks.segment import loss as loss_module
from utils.tasks.segment.loss import SegmentationLoss, _MaskTerm, _TrueMasks, _Wanted

SCALARS = golden("14_segment_loss")
CASES: dict[str, dict[str, Any]] = SCALARS["cases"]
STRIDES = torch.tensor([8.0, 16.0, 32.0])
ANCHORS = torch.tensor(
    [[10, 13, 16, 30, 33, 23], [30, 61, 62, 45, 59, 119], [116, 90, 156, 198, 373, 326]]
).view(3, 3, 2) / STRIDES.view(3, 1, 1)
AS_THE_ORIGINAL: dict[str, Any] = {"empty_masks": "train", "duplicates": "last"}


class Given(NamedTuple):
    """The inputs of a loss."""

    maps: list[Tensor]
    protos: Tensor
    targets: Tensor
    masks: Tensor

    def gradients(self) -> list[Tensor]:
        """Return the gradients of the maps and prototypes; zeros where there are none."""
        return [torch.zeros_like(x) if x.grad is None else x.grad for x in (*self.maps, self.protos)]


def given(name: str) -> Given:
    """Return the inputs of a golden case."""
    stored = {key: torch.from_numpy(v) for key, v in arrays("14_segment_loss").items()}
    maps = [(stored[f"{name}/p{level}_x16"].float() / 16).requires_grad_() for level in range(3)]
    protos = (stored[f"{name}/proto_x16"].float() / 16).requires_grad_()
    return Given(maps, protos, stored[f"{name}/targets"], stored[f"{name}/masks"])


def make_loss(name: str, **options: Any) -> SegmentationLoss:
    case = CASES[name]
    hyp = SCALARS["hyp"] | case["hyp_overrides"]
    return SegmentationLoss(ANCHORS, STRIDES, case["nc"], hyp, overlap=case["overlap"], **options)


def results(loss: SegmentationLoss, x: Given, **options: Any) -> tuple[list[float], list[Tensor]]:
    """Return the loss and its items, and the gradients."""
    total, items = loss((x.maps, x.protos), x.targets, x.masks, **options)
    total.backward()
    return [total.item(), *items.tolist()], x.gradients()


@pytest.mark.parametrize("name", CASES)
def test_losses_and_gradients_equal_the_original(name: str) -> None:
    case, x = CASES[name], given(name)
    values, grads = results(make_loss(name, **AS_THE_ORIGINAL), x)
    expected = [case[key] for key in ("loss", "lbox", "lseg", "lobj", "lcls")]
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    norms = [g.norm().item() for g in grads]
    np.testing.assert_allclose(norms, [*case["grad_norms"], case["proto_grad_norm"]], rtol=1e-4)
    coefficients = [g[..., 5 + case["nc"] :].norm().item() for g in grads[:3]]
    np.testing.assert_allclose(coefficients, case["mask_coefficient_grad_norms"], rtol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_matches_and_their_masks_equal_the_original(name: str) -> None:
    case, x, stored = CASES[name], given(name), arrays("14_segment_loss")
    matches = make_loss(name).assign(x.maps, x.targets)
    assert [len(found.row) for found in matches] == case["matches_per_level"]
    truth = _TrueMasks(x.targets, x.masks, x.protos, case["overlap"])
    for level, found in enumerate(matches):
        target = found.target_index
        number = truth.number[target] if case["overlap"] else target
        columns = (found.image_index, found.anchor_index, found.row, found.column, number)
        rows = np.concatenate((torch.stack(columns, 1), x.targets[target, 2:6]), 1)
        expected = (f"{name}/b_a_gj_gi{level}", f"{name}/tidx{level}", f"{name}/xywhn{level}")
        places, numbers, boxes = (stored[key] for key in expected)
        np.testing.assert_allclose(
            in_order(rows), in_order(np.concatenate((places, numbers[:, None], boxes), 1)), rtol=0, atol=1e-6
        )


def in_order(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows.T)]


@pytest.mark.parametrize("overlap", [False, True])
def test_losses_of_real_valued_outputs_equal_the_original(overlap: bool) -> None:
    known, stored = golden("13_segment")[f"loss_overlap{overlap:d}"], arrays("13_segment")
    maps, protos = [torch.from_numpy(stored[f"loss/p{i}"]).clone() for i in range(3)], stored["loss/proto"]
    x = Given(
        [level.requires_grad_() for level in maps],
        torch.from_numpy(protos).clone().requires_grad_(),
        torch.from_numpy(stored["loss/targets"]),
        torch.from_numpy(stored[f"loss/masks_overlap{overlap:d}"]),
    )
    loss = SegmentationLoss(ANCHORS, STRIDES, 3, SCALARS["hyp"], overlap=overlap, **AS_THE_ORIGINAL)
    values, grads = results(loss, x)
    expected = [known[key] for key in ("loss", "lbox", "lseg", "lobj", "lcls")]
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    norms = [g.norm().item() for g in grads]
    np.testing.assert_allclose(norms, [*known["grad_norms"], known["proto_grad_norm"]], rtol=1e-4)


def golden_term() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return coefficients (5, 32), prototypes, masks (5, h, w), boxes xyxy, areas of the golden instances."""
    stored = {key: torch.from_numpy(v) for key, v in arrays("14_segment_loss").items()}
    coefficients, protos = (stored[f"mask_term/{key}_x16"].float() / 16 for key in ("coef", "proto"))
    return coefficients, protos, stored["mask_term/gt"], stored["mask_term/xyxy"], stored["mask_term/area"]


def true_masks(masks: Tensor, protos: Tensor) -> _TrueMasks:
    return _TrueMasks(torch.zeros(len(masks), 6), masks, protos[None], overlap=False)


def test_the_mask_loss_of_each_object_equals_the_original() -> None:
    coefficients, protos, masks, boxes, area = golden_term()
    weight = 1 / (area * masks[0].numel())
    truth = true_masks(masks, protos)
    each = [
        _MaskTerm.apply(coefficients[[k]], protos, _Wanted(torch.tensor([k]), boxes[[k]], weight[[k]]), truth)
        for k in range(5)
    ]
    known = SCALARS["mask_term"]
    np.testing.assert_allclose([term.item() for term in each], known["each"], rtol=1e-5, atol=1e-7)
    together = _MaskTerm.apply(coefficients, protos, _Wanted(torch.arange(5), boxes, weight / 5), truth)
    assert together.item() == pytest.approx(known["together"], rel=1e-5)


def plain_term(coefficients: Tensor, protos: Tensor, masks: Tensor, boxes: Tensor, weight: Tensor) -> Tensor:
    """Compute the weighted cross entropy of all pixels inside the boxes, with whole masks."""
    logits = torch.einsum("km,mhw->khw", coefficients, protos)
    row, column = torch.arange(protos.shape[1])[:, None], torch.arange(protos.shape[2])
    x1, y1, x2, y2 = (edge[:, None, None] for edge in boxes.T)
    inside = (column >= x1) & (column < x2) & (row >= y1) & (row < y2)
    entropy = functional.binary_cross_entropy_with_logits(logits, masks.to(logits), reduction="none")
    return (entropy * inside * weight[:, None, None]).sum()


def random_term(count: int) -> tuple[Tensor, Tensor, Tensor, _Wanted]:
    """Make coefficients and prototypes in float64, masks, and boxes that may reach out of the masks."""
    g = torch.Generator().manual_seed(count)
    coefficients = torch.randn(count, 4, generator=g, dtype=torch.float64).requires_grad_()
    protos = torch.randn(4, 7, 9, generator=g, dtype=torch.float64).requires_grad_()
    masks = torch.randint(2, (count, 7, 9), generator=g)
    corners = torch.rand(count, 2, generator=g) * 8 - 1.5
    boxes = torch.cat((corners, corners + torch.rand(count, 2, generator=g) * 5), 1)
    return coefficients, protos, masks, _Wanted(torch.arange(count), boxes, torch.rand(count, generator=g))


@pytest.mark.parametrize("count", [1, 6])
def test_the_gradient_of_the_mask_term_is_that_of_its_differences(count: int) -> None:
    coefficients, protos, masks, wanted = random_term(count)
    truth = true_masks(masks, protos)
    assert torch.autograd.gradcheck(lambda c, p: _MaskTerm.apply(c, p, wanted, truth), (coefficients, protos))


@pytest.mark.parametrize("count", [1, 6, 150])
def test_the_mask_term_and_its_gradient_are_those_of_the_plain_formula(count: int) -> None:
    coefficients, protos, masks, wanted = random_term(count)
    ours = 3 * _MaskTerm.apply(coefficients, protos, wanted, true_masks(masks, protos))
    plain = 3 * plain_term(coefficients, protos, masks, wanted.boxes, wanted.weight)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    found, expected = (torch.autograd.grad(term, (coefficients, protos)) for term in (ours, plain))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["overlap", "single", "image_without"])
@pytest.mark.parametrize("block", [1, 3, 10_000])
def test_the_loss_does_not_depend_on_the_size_of_blocks(
    name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = results(make_loss(name), given(name))
    monkeypatch.setattr(loss_module, "BLOCK", block)
    torch.testing.assert_close(results(make_loss(name), given(name)), expected, rtol=1e-5, atol=1e-7)


def without_pixels(name: str, target: int) -> Given:
    """Return a golden case with all pixels of one target set to 0."""
    x = given(name)
    masks = x.masks.clone()
    if CASES[name]["overlap"]:
        image = int(x.targets[target, 0])
        number = target - int((x.targets[:, 0] < image).sum()) + 1
        masks[image][masks[image] == number] = 0
    else:
        masks[target] = 0
    return x._replace(masks=masks)


@pytest.mark.parametrize(("name", "target"), [("overlap", 4), ("single", 4), ("single", 0)])
def test_objects_without_pixels_have_no_mask_loss(name: str, target: int) -> None:
    x, loss = without_pixels(name, target), make_loss(name)
    rest = torch.arange(len(x.targets)) != target  # 4 is the last of its image: no other number changes
    fewer = given(name)._replace(targets=x.targets[rest], masks=x.masks if loss.overlap else x.masks[rest])
    values, grads = results(loss, x)
    expected, expected_grads = results(loss, fewer)
    assert values[2] == pytest.approx(expected[2], rel=1e-6)
    first = 5 + CASES[name]["nc"]
    for grad, other in zip(grads[:3], expected_grads[:3], strict=True):
        torch.testing.assert_close(grad[..., first:], other[..., first:], rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(grads[3], expected_grads[3], rtol=1e-5, atol=1e-8)
    # As boxes they are trained as before.
    with_pixels = results(loss, given(name))[0]
    assert [values[i] for i in (1, 3, 4)] == [with_pixels[i] for i in (1, 3, 4)] and values[1] != expected[1]


def test_objects_without_pixels_can_be_trained_to_have_no_mask() -> None:
    x = without_pixels("overlap", 4)
    skipped, trained = (
        make_loss("overlap", empty_masks=way)((x.maps, x.protos), x.targets, x.masks)[1]
        for way in ("skip", "train")
    )
    assert skipped[1] != trained[1]
    torch.testing.assert_close(skipped[[0, 2, 3]], trained[[0, 2, 3]])


def test_a_batch_of_objects_without_pixels_has_no_mask_loss_and_finite_gradients() -> None:
    x = given("single")
    values, grads = results(make_loss("single"), x._replace(masks=torch.zeros_like(x.masks)))
    assert values[2] == 0 and all(torch.isfinite(g).all() for g in grads)
    assert (grads[3] == 0).all() and all((g[..., 8:] == 0).all() for g in grads[:3])


def halves(name: str) -> list[Given]:
    """Split a batch of two images into two batches."""
    x, parts = given(name), []
    for image in range(2):
        own = x.targets[:, 0] == image
        targets = x.targets[own].clone()
        targets[:, 0] = 0
        maps = [level.detach()[[image]].requires_grad_() for level in x.maps]
        masks = x.masks[[image]] if CASES[name]["overlap"] else x.masks[own]
        parts.append(Given(maps, x.protos.detach()[[image]].requires_grad_(), targets, masks))
    return parts


@pytest.mark.parametrize("name", ["overlap", "single", "smooth_focal", "empty"])
def test_the_losses_of_several_processes_add_up_to_that_of_the_batch(name: str) -> None:
    loss, parts = make_loss(name), halves(name)
    counts = [[*(len(found.row) for found in loss.assign(x.maps, x.targets)), 1] for x in parts]

    def sum_counts(own: Sequence[int]) -> list[int]:
        assert list(own) in counts
        return [sum(each) for each in zip(*counts, strict=True)]

    (whole, grads), shares = (
        results(loss, given(name)),
        [results(loss, x, sum_counts=sum_counts) for x in parts],
    )
    np.testing.assert_allclose(np.sum([values for values, _ in shares], 0), whole, rtol=1e-5)
    for expected, *found in zip(grads, *(each for _, each in shares), strict=True):
        torch.testing.assert_close(torch.cat(found), expected, rtol=1e-4, atol=1e-7)


def test_autocast_changes_only_the_precision_of_the_outputs() -> None:
    x = given("overlap")
    maps, protos = [level.detach().bfloat16() for level in x.maps], x.protos.detach().bfloat16()
    plain = make_loss("overlap")(([level.float() for level in maps], protos.float()), x.targets, x.masks)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = make_loss("overlap")((maps, protos), x.targets, x.masks)
    assert mixed[0].dtype == mixed[1].dtype == torch.float32
    torch.testing.assert_close(mixed, plain)


def test_the_number_of_coefficients_is_that_of_the_prototypes() -> None:
    x = given("overlap")
    case = CASES["overlap"]
    few = [level[..., : 5 + case["nc"] + 8].detach().requires_grad_() for level in x.maps]
    values, grads = results(make_loss("overlap"), x._replace(maps=few, protos=x.protos[:, :8].detach()))
    assert values[2] > 0 and grads[0].shape[-1] == 5 + case["nc"] + 8
