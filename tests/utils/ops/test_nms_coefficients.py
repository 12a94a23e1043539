"""NMS of a segmentation model: the mask coefficients of the rows that are kept, as in the original."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.known import arrays, golden
from utils.ops.nms import non_max_suppression

CASES: dict[str, dict[str, Any]] = golden("14_segment_nms")


def decoded() -> Tensor:
    """Return the decoded rows (2, 260, 5 + 3 + 32)."""
    stored = arrays("14_segment_nms")
    coefficients = torch.from_numpy(stored["coef_x16"]).float() / 16
    return torch.cat((torch.from_numpy(stored["pred"]), coefficients), 2)


@pytest.mark.parametrize("name", CASES)
def test_rows_and_coefficients_equal_the_original(name: str) -> None:
    stored, given = arrays("14_segment_nms"), decoded()
    labels: Any = ()
    if name == "labels":
        labels = [torch.from_numpy(stored["labels0"]), torch.zeros(0, 5)]
    found = non_max_suppression(given, **CASES[name]["args"], labels=labels, nm=32)
    assert torch.equal(given, decoded())
    assert [len(rows) for rows in found] == CASES[name]["n_out"]
    for image, rows in enumerate(found):
        expected = stored[f"{name}/out{image}"]  # of long lists the first rows are stored
        assert expected.shape[1] == rows.shape[1] == 6 + 32
        np.testing.assert_allclose(rows[: len(expected)].numpy(), expected, rtol=1e-5, atol=1e-4)


def test_labels_that_are_added_have_no_coefficients() -> None:
    label = torch.tensor([[1.0, 50, 50, 20, 20]])
    (rows,) = non_max_suppression(decoded()[:1], 0.3, 0.6, labels=[label], nm=32)
    added = rows[rows[:, 4] == 1]
    assert added[:, :6].tolist() == [[40, 40, 60, 60, 1, 1]] and (added[:, 6:] == 0).all()


def test_coefficients_are_multiplied_by_objectness() -> None:
    row = torch.tensor([[50.0, 50, 20, 20, 0.5, 0.8, 0.1, 2, -4]])[None]
    (found,) = non_max_suppression(row, nm=2)
    assert found[0].tolist() == pytest.approx([40, 40, 60, 60, 0.4, 0, 1, -2])


def test_copies_of_a_box_for_several_classes_share_its_coefficients() -> None:
    row = torch.tensor([[50.0, 50, 20, 20, 0.5, 0.8, 0.7, 2, -4]])[None]
    (found,) = non_max_suppression(row, multi_label=True, nm=2)
    assert found[:, 5].tolist() == [0, 1] and torch.equal(found[0, 6:], found[1, 6:])
