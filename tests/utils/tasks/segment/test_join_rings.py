"""Objects of several parts and with holes as one ring."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from utils.tasks.segment.polygons import join_rings, polygon_text, ring_fractions
from utils.tasks.segment.rasterize import MaskFormat

RING = [np.array(((2, 2), (2, 30), (30, 30), (30, 2)), float), np.array(((9, 9), (9, 20), (20, 20), (20, 9)))]


def filled(points: np.ndarray, shape_hw: tuple[int, int]) -> np.ndarray:
    return MaskFormat(1, False).draw([points], shape_hw)[0][0].astype(bool)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def random_mask(rng: np.random.Generator, parts: int, holes: int) -> np.ndarray:
    """Return a mask of up to `parts` blobs, each in a quarter of the image, with holes and islands."""
    mask = np.zeros(rng.integers(200, 400, 2), np.uint8)
    quarter = np.array(mask.shape[::-1]) / 2
    for part in range(parts):
        centre = (quarter * (0.5 + part % 2, 0.5 + part // 2) + rng.uniform(-20, 20, 2)).astype(int).tolist()
        axes = (quarter * rng.uniform(0.3, 0.5, 2)).astype(int).tolist()
        cv2.ellipse(mask, centre, axes, rng.uniform(0, 180), 0, 360, 1, -1)
        for _ in range(holes):
            inner = (centre + rng.uniform(-25, 25, 2)).astype(int).tolist()
            cv2.circle(mask, inner, int(rng.integers(1, 20)), 0, -1)
            cv2.circle(mask, inner, int(rng.integers(1, 6)), 1, -1)
    return mask.astype(bool)


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
@pytest.mark.parametrize("holes", [0, 1, 4])
def test_a_ring_gives_the_mask_back_except_for_bridges(parts: int, holes: int) -> None:
    rng = np.random.default_rng(10 * parts + holes)
    for _ in range(20):
        mask = random_mask(rng, parts, holes)
        again = filled(join_rings(mask), mask.shape)

        assert not (mask & ~again).any()
        assert iou(mask, again) > 0.97


def test_a_part_with_holes_is_given_back_exactly() -> None:
    """The bridges are inside it."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = np.zeros((200, 240), np.uint8)
        cv2.circle(mask, (120, 100), 90, 1, -1)
        for centre in rng.integers(60, 140, (5, 2)).tolist():
            cv2.circle(mask, centre, int(rng.integers(1, 25)), 0, -1)
        mask *= cv2.connectedComponents(mask)[1] == 1

        assert (filled(join_rings(mask), mask.shape) == mask.astype(bool)).all()


def test_bridges_are_as_short_as_the_gaps() -> None:
    mask = np.zeros((100, 400), bool)
    for number in range(10):  # corners face edges, not corners
        mask[10 + number % 2 * 20 :, 40 * number : 40 * number + 30][:60] = True

    extra = filled(join_rings(mask), mask.shape) & ~mask

    assert extra.sum() == 9 * 10


def test_rings_have_at_least_three_points_or_none() -> None:
    pixel, line = np.zeros((8, 9), bool), np.zeros((8, 9), bool)
    pixel[3, 5], line[2, 1:7] = True, True

    assert join_rings(np.zeros((8, 9))).shape == join_rings([]).shape == (0, 2)
    assert join_rings(pixel).tolist() == [[5, 3]] * 3
    assert len(join_rings(line)) == 3
    for mask in (pixel, line, pixel | line, np.eye(9, dtype=bool), np.ones((8, 9), bool)):
        assert (filled(join_rings(mask), mask.shape) == mask).all()


def test_polygons_are_joined_without_a_mask() -> None:
    far = np.array(((40.5, 2.25), (60.5, 2.25), (50.5, 30.25)))
    ring = join_rings([far])
    assert (ring == far).all()

    joined = join_rings([*RING, far])
    points = {tuple(point) for point in joined.tolist()}
    assert points >= {tuple(point) for ring in (*RING, far) for point in ring.tolist()}  # as exact as given
    expected = filled(RING[0], (50, 70)) | filled(far, (50, 70))
    expected[10:20, 10:20] = False
    again = filled(joined, (50, 70))
    assert not (expected & ~again).any()
    assert (again & ~expected).sum() <= 12  # the bridge


def test_many_parts_are_joined_in_reasonable_time() -> None:
    """A noisy mask of some thousand rings; without limits its points would need gigabytes."""
    noise = np.random.default_rng(0).standard_normal((900, 900)).astype(np.float32)
    mask = cv2.GaussianBlur(noise, (0, 0), 2) > 0.15
    ring = join_rings(mask)

    assert not (mask & ~filled(ring, mask.shape)).any()


@pytest.mark.parametrize("shape_hw", [(300, 299), (233, 1999), (1, 1), (480, 641)])
def test_fractions_are_read_back_as_the_same_pixels(shape_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        mask = np.zeros(shape_hw, bool)
        top, left = rng.integers(0, shape_hw)
        mask[top : top + rng.integers(1, 200), left : left + rng.integers(1, 200)] = True
        fractions = ring_fractions(join_rings(mask), shape_hw)
        words = polygon_text(fractions).split()
        read = np.array(words, np.float32).reshape(-1, 2)
        rows, columns = np.nonzero(mask)

        assert (filled(read * np.array(shape_hw[::-1], np.float32), shape_hw) == mask).all()
        assert all(0 <= float(word) <= 1 for word in words)
        low, high = fractions.min(0) * shape_hw[::-1], fractions.max(0) * shape_hw[::-1]
        assert low.tolist() == pytest.approx([columns.min(), rows.min()], abs=0.03)
        assert high.tolist() == pytest.approx([columns.max() + 1, rows.max() + 1], abs=0.03)


def test_text_is_clipped_and_rounded_up() -> None:
    assert polygon_text(np.array(((-0.5, 0.25), (1, 1 / 3)))) == "0.000000 0.250001 1.000000 0.333334"
    assert ring_fractions(np.zeros((0, 2)), (5, 5)).shape == (0, 2)
