"""Bounds of hyperparameters in a search."""

from __future__ import annotations

import pytest

from studies.evolve.genetic import DIGITS, GENES, bounds_around, round_and_clip
from utils.train.hyp import check_hyp


@pytest.mark.parametrize("end", ["low", "high"])
def test_all_values_within_bounds_are_valid_for_training(end: str) -> None:
    hyp = {key: getattr(gene, end) for key, gene in GENES.items()}

    assert check_hyp(hyp, "bounds") == hyp


def test_every_hyperparameter_is_a_gene() -> None:
    assert set(check_hyp({"anchors": 3}, "test")) == set(GENES)


def test_bounds_are_widened_to_the_start_values() -> None:
    bounds = bounds_around(check_hyp({"box": 0.5, "cls": 0.1}, "test"))

    assert bounds["box"] == (0.02, 0.5) and bounds["cls"] == (0.1, 4)
    assert "anchors" not in bounds, "keys that the file lacks are not searched"
    assert round_and_clip(0.123456789, (0, 1)) == round(0.123456789, DIGITS)
    assert round_and_clip(-1, (0.2, 1)) == 0.2 and round_and_clip(3, (0.2, 1)) == 1
