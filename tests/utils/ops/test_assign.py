"""Assignment: the matches of the original, row by row, and properties of the rule."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.known import arrays, golden
from utils.ops.loss import AnchorMatches, assign_targets

GOLDEN = arrays("05_loss")
CASES = golden("05_loss")["cases"]
ANCHORS = torch.tensor(CASES["A/base"]["anchors_grid_units"])
LEVELS = [("A", "A/base", level) for level in range(3)]
LEVELS += [("A_edges", "A/edges", level) for level in range(3)]
LEVELS += [("D", "D/four_levels", level) for level in range(4)]


def assign_case(name: str) -> list[AnchorMatches]:
    case = CASES[name]
    anchors = torch.tensor(case["anchors_grid_units"])
    sizes = [GOLDEN[f"{case['p']}/p{level}"].shape[2:4] for level in range(len(anchors))]
    return assign_targets(torch.from_numpy(GOLDEN[case["targets"]]), anchors, sizes)


def cells(matches: AnchorMatches) -> np.ndarray:
    """(n, 4) image, anchor, row, column."""
    return torch.stack(matches[:4], 1).numpy()


@pytest.mark.parametrize(("stored", "case", "level"), LEVELS)
def test_matches_equal_the_original_in_its_order(stored: str, case: str, level: int) -> None:
    ours = assign_case(case)[level]
    np.testing.assert_array_equal(cells(ours), GOLDEN[f"{stored}/bt{level}/b_a_gj_gi"])
    np.testing.assert_array_equal(ours.class_index.numpy(), GOLDEN[f"{stored}/bt{level}/tcls"])
    np.testing.assert_allclose(ours.box.numpy(), GOLDEN[f"{stored}/bt{level}/tbox"], atol=1e-5)
    np.testing.assert_array_equal(ours.anchors.numpy(), GOLDEN[f"{stored}/bt{level}/anch"])


@pytest.mark.parametrize("name", CASES)
def test_the_number_of_matches_equals_the_original(name: str) -> None:
    case = CASES[name]
    anchor_t = case["hyp_overrides"].get("anchor_t", 4.0)
    anchors = torch.tensor(case["anchors_grid_units"])
    sizes = [GOLDEN[f"{case['p']}/p{level}"].shape[2:4] for level in range(len(anchors))]
    ours = assign_targets(torch.from_numpy(GOLDEN[case["targets"]]), anchors, sizes, anchor_t)
    assert [len(matches.row) for matches in ours] == case["n_matched"]
    shared = [len(c) - len(np.unique(c, axis=0)) for c in map(cells, ours)]
    assert shared == case["duplicate_cells"]


def test_a_small_example() -> None:
    targets = torch.tensor(
        [
            [0, 0, 0.5, 0.5, 0.3, 0.4],
            [0, 2, 0.21, 0.33, 0.1, 0.2],
            [1, 1, 0.77, 0.8, 0.5, 0.35],
            [1, 0, 0.05, 0.95, 0.08, 0.09],
        ]
    )
    fine, medium, coarse = assign_targets(targets, ANCHORS, [(8, 8), (4, 4), (2, 2)])
    assert cells(fine)[:5].tolist() == [[0, 0, 4, 4], [0, 0, 2, 1], [1, 0, 6, 6], [1, 0, 7, 0], [0, 1, 4, 4]]
    expected = torch.tensor([[0, 0, 1.2, 1.6], [0.08, 0.2, 2.0, 1.4], [0, 0, 1.2, 1.6]])
    torch.testing.assert_close(medium.box[:3], expected, atol=1e-5, rtol=0)
    assert [len(m.row) for m in (fine, medium, coarse)] == [31, 16, 0]


@pytest.fixture
def many_targets() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    targets = torch.rand(500, 6, generator=generator)
    targets[:, :2] = (targets[:, :2] * 3).floor()
    return targets


def test_every_match_is_in_the_range_of_the_decoded_boxes(many_targets: Tensor) -> None:
    """Decoding reaches centres from -0.5 to 1.5 of a cell and sizes up to 4 anchors."""
    for matches in assign_targets(many_targets, ANCHORS, [(24, 40), (12, 20), (6, 10)]):
        assert len(matches.row) > 0
        assert (matches.box[:, :2] >= -0.5).all()
        assert (matches.box[:, :2] <= 1.5).all()
        assert (matches.box[:, 2:] < 4 * matches.anchors).all()
        assert (matches.box[:, 2:] > matches.anchors / 4).all()


def test_no_objects_and_objects_of_size_zero_have_no_matches() -> None:
    point = torch.tensor([[0, 0, 0.5, 0.5, 0, 0]])
    for targets in (torch.zeros(0, 6), point):
        matches = assign_targets(targets, ANCHORS, [(8, 8), (4, 4), (2, 2)])
        assert [len(m.row) for m in matches] == [0, 0, 0]
        assert all(m.box.shape == (0, 4) and m.anchors.shape == (0, 2) for m in matches)


def test_centres_on_the_border_of_the_image_have_a_cell_inside() -> None:
    corners = torch.tensor([[0, 0, x, y, 0.2, 0.2] for x in (0.0, 1.0) for y in (0.0, 1.0)])
    for matches, size in zip(
        assign_targets(corners, ANCHORS, [(8, 8), (4, 4), (2, 2)]), (8, 4, 2), strict=True
    ):
        assert ((matches.row >= 0) & (matches.row < size)).all()
        assert ((matches.column >= 0) & (matches.column < size)).all()
