"""Candidates of the genetic search."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from studies.evolve.genetic import GENES, Genetic
from studies.evolve.trials import Result
from utils.train.hyp import Hyp, check_hyp

START = check_hyp({"anchors": 3}, "test")


def result(index: int, hyp: Hyp, fitness: float, failure: str = "") -> Result:
    return Result(index, hyp, {"metrics/mAP_0.5": fitness, "metrics/mAP_0.5:0.95": fitness}, 1.0, failure)


def results_of(fitness: list[float]) -> list[Result]:
    """Return results that differ in lr0."""
    return [result(i, START | {"lr0": 0.01 + i / 1000}, value) for i, value in enumerate(fitness)]


def test_the_first_candidate_is_the_unchanged_file() -> None:
    assert Genetic(START, 0).propose(0, []) == START


def test_a_candidate_depends_only_on_seed_index_and_results() -> None:
    results = results_of([0.1, 0.3, 0.2])
    child = Genetic(START, 5).propose(3, results)

    assert child == Genetic(START, 5).propose(3, results)
    assert child != Genetic(START, 6).propose(3, results) != Genetic(START, 5).propose(4, results)


def test_candidates_stay_within_bounds_and_differ() -> None:
    search, hyp = Genetic(START, 0), START
    for index in range(1, 300):
        child = search.propose(index, [result(0, hyp, 0.5)])
        assert child != hyp and list(child) == list(START)
        for key, gene in GENES.items():
            assert gene.low <= child[key] <= gene.high
            if gene.gain == 0:
                assert child[key] == START[key]
        check_hyp(child, "child")
        hyp = child


def test_parents_are_chosen_by_fitness() -> None:
    search, results = Genetic(START, 0), results_of([0.1, 0.2, 0.9, 0.3, 0.25, 0.05, 0.15])
    draw = np.random.default_rng(0)
    children = Counter(search.choose_parent(results, draw)["lr0"] for _ in range(2000))
    share = {index: children[parent.hyp["lr0"]] / 2000 for index, parent in enumerate(results)}

    assert share[5] == share[0] == 0, "these two are not among the five best"
    weights = {1: 0.05, 2: 0.75, 3: 0.15, 4: 0.10}  # fitness - that of the fifth
    for index, weight in weights.items():
        assert share[index] == pytest.approx(weight / sum(weights.values()), abs=0.04)


def test_failed_candidates_are_never_parents() -> None:
    failed = [result(0, START | {"lr0": 0.09}, 0.9, "diverged"), *results_of([0.0])[:0]]
    draw = np.random.default_rng(0)

    assert Genetic(START, 0).choose_parent(failed, draw) == START
    fine = result(1, START | {"lr0": 0.02}, 0.0)
    assert Genetic(START, 0).choose_parent([*failed, fine], draw) == fine.hyp


def test_a_gene_of_zero_sometimes_takes_a_small_value() -> None:
    """Multiplication alone would keep it at zero."""
    search = Genetic(START, 0)
    off = [key for key in search.mutable if START[key] == 0]
    children = [search.propose(index, [result(0, START, 0.5)]) for index in range(1, 400)]

    assert off == ["degrees", "shear", "flipud", "mixup", "copy_paste"]
    for key in off:
        values = [child[key] for child in children if child[key] > 0]
        assert 0.05 < len(values) / len(children) < 0.15 and max(values) <= 0.1 * GENES[key].high


def test_parallel_candidates_skip_the_results_of_running_ones() -> None:
    search = Genetic(START, 0)

    assert [search.needed(index, 1) for index in range(4)] == [0, 1, 2, 3]
    assert [search.needed(index, 3) for index in range(6)] == [0, 0, 0, 1, 2, 3]
