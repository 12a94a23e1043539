import re

import numpy as np
import pytest

from utils.data.labels import parse_labels

BOX = "1 0.5 0.5 0.2 0.2"
POLYGON = "2 0.1 0.1 0.5 0.1 0.5 0.7"


def test_boxes_and_blank_lines() -> None:
    labels = parse_labels(f"\n0 0.25 0.5 0.1 1\r\n\n  {BOX}  \n")
    np.testing.assert_allclose(labels.rows, [[0, 0.25, 0.5, 0.1, 1], [1, 0.5, 0.5, 0.2, 0.2]])
    assert labels.lines.tolist() == [2, 4]
    assert labels.polygons == labels.errors == []


def test_an_empty_file_has_no_labels_and_no_errors() -> None:
    labels = parse_labels(" \n\n")
    assert labels.rows.shape == (0, 5)
    assert labels.errors == []


def test_a_polygon_is_bounded_by_a_box() -> None:
    labels = parse_labels(POLYGON)
    np.testing.assert_allclose(labels.rows, [[2, 0.3, 0.4, 0.4, 0.6]], atol=1e-6)
    np.testing.assert_allclose(labels.polygons[0], [[0.1, 0.1], [0.5, 0.1], [0.5, 0.7]])


def test_boxes_beside_polygons_stay_boxes() -> None:
    labels = parse_labels(f"{BOX}\n{POLYGON}")
    np.testing.assert_allclose(labels.rows[0], [1, 0.5, 0.5, 0.2, 0.2])
    assert [len(points) for points in labels.polygons] == [0, 3]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0 0.5 0.5 0.2", "4 values"),
        ("0 0.5 0.5 0.2 0.2 0.9", "6 values"),
        (
            "0,0.5,0.5,0.2,0.2",
            "1 values; a box has 5, .*; they are separated by spaces",
        ),
        ("0 0,5 0,5 0,2 0,2", "'0,5' is not a number; write a point for the comma"),
        ("0 0.1 0.1 0.5 0.1 0.5 0.7 0.3", "8 values"),
        ("cat 0.5 0.5 0.2 0.2", "'cat' is not a number"),
        ("0 0.5 nan 0.2 0.2", "'nan' is not a number"),
        ("0 0.5 1e999 0.2 0.2", "'1e999' is not a number"),
        ("0.7 0.5 0.5 0.2 0.2", "class 0.7 is not an integer"),
        ("-1 0.5 0.5 0.2 0.2", "class -1 is not an integer"),
        ("0 0.5 -0.5 0.2 0.2", "-0.5 is not in 0-1"),
        ("0 0.5 0.5 1.2 0.2", "1.2 is not in 0-1"),
        ("0 0.1 0.1 0.5 0.1 0.5 1.7", "1.7 is not in 0-1"),
        ("0 1.0011 0.5 0.2 0.2", "1.0011 is not in 0-1"),
        ("0 0.5 0.5 0 0.2", "the box has no width"),
        ("0 0.5 0.5 0.2 0.0", "the box has no height"),
        ("0 0.5 0.5 1e-40 0.2", "the box has no width"),
        ("0 0.5 0.5 -3e-7 0.2", "the box has no width"),
        ("0 0.5 0.5 0.5 0.5 0.5 0.5", "the polygon has no width"),
        ("0 0.2 0.5 0.4 0.5 0.7 0.5", "the polygon has no height"),
        ("0 0.2 0.2 0.4 0.4 0.7 0.7", "the points of the polygon are on one line"),
        ("0 1 1 1 1 0.99 0.99", "the points of the polygon are on one line"),
    ],
)
def test_a_bad_line_is_reported_and_the_others_are_used(line: str, reason: str) -> None:
    labels = parse_labels(f"{BOX}\n{line}\n{POLYGON}")
    assert labels.rows[:, 0].tolist() == [1, 2]
    assert labels.lines.tolist() == [1, 3]
    (error,) = labels.errors
    assert re.match(f"line 2: {reason}", error)


def test_what_the_original_accepts_is_accepted() -> None:
    beyond_the_border = "0 0.95 0.5 0.2 0.2"
    class_with_a_decimal_point = "1.0 0.5 0.5 0.1 1"
    labels = parse_labels(f"{beyond_the_border}\n{class_with_a_decimal_point}")
    assert len(labels.rows) == 2


@pytest.mark.parametrize(
    ("line", "row"),
    [
        ("0 0.5 0.5 1.0000001 0.2", [0, 0.5, 0.5, 1, 0.2]),
        ("0 -3e-7 0.5 0.2 1.0004", [0, 0, 0.5, 0.2, 1]),
        ("0 -0.001 0.1 0.5 0.1 0.5 1.001", [0, 0.25, 0.55, 0.5, 0.9]),
    ],
)
def test_coordinates_slightly_outside_the_image_are_clipped(line: str, row: list[float]) -> None:
    labels = parse_labels(f"{BOX}\n{line}")
    np.testing.assert_allclose(labels.rows[1], row, atol=1e-7)
    assert labels.rows[1, 1:].max() <= 1 and labels.errors == []
    (clipped,) = labels.clipped
    assert clipped.startswith("line 2: ") and clipped.removeprefix("line 2: ") in line


def test_a_polygon_that_crosses_itself_is_no_line() -> None:
    bow = "0 0.2 0.2 0.4 0.4 0.2 0.4 0.4 0.2"
    assert parse_labels(bow).errors == []


def test_duplicate_rows_are_removed_and_the_rest_is_sorted() -> None:
    labels = parse_labels(f"{POLYGON}\n{BOX}\n{POLYGON}")
    assert labels.rows[:, 0].tolist() == [1, 2]
    assert labels.lines.tolist() == [2, 1]
    assert [len(points) for points in labels.polygons] == [0, 3]
    assert "duplicate" in labels.notes[0]
