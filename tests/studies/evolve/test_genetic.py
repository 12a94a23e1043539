"""What the classic search proposes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from studies.evolve.genetic import GENES, Genetic
from studies.evolve.records import Result
from utils.train.hyp import Hyp, check_hyp

START = check_hyp({"anchors": 3}, "test")


def gave(index: int, hyp: Hyp, fitness: float, failure: str = "") -> Result:
    return Result(index, hyp, {"metrics/mAP_0.5": fitness, "metrics/mAP_0.5:0.95": fitness}, 1.0, failure)


def some(fitness: list[float]) -> list[Result]:
    """Results that can be told apart by their lr0."""
    return [gave(i, START | {"lr0": 0.01 + i / 1000}, value) for i, value in enumerate(fitness)]


def test_the_first_candidate_is_the_file_as_it_is() -> None:
    assert Genetic(START, 0).propose(0, []) == START


def test_a_candidate_depends_on_seed_number_and_results_alone() -> None:
    results = some([0.1, 0.3, 0.2])
    child = Genetic(START, 5).propose(3, results)

    assert child == Genetic(START, 5).propose(3, results)
    assert child != Genetic(START, 6).propose(3, results) != Genetic(START, 5).propose(4, results)


def test_candidates_stay_within_bounds_and_move() -> None:
    search, hyp = Genetic(START, 0), START
    for index in range(1, 300):
        child = search.propose(index, [gave(0, hyp, 0.5)])
        assert child != hyp and list(child) == list(START)
        for key, gene in GENES.items():
            assert gene.low <= child[key] <= gene.high
            if gene.gain == 0:
                assert child[key] == START[key]
        check_hyp(child, "child")
        hyp = child


def test_the_better_a_parent_the_more_children() -> None:
    search, results = Genetic(START, 0), some([0.1, 0.2, 0.9, 0.3, 0.25, 0.05, 0.15])
    draw = np.random.default_rng(0)
    children = Counter(search.choose_parent(results, draw)["lr0"] for _ in range(2000))
    share = {index: children[result.hyp["lr0"]] / 2000 for index, result in enumerate(results)}

    assert share[5] == share[0] == 0, "two are not among the five best"
    weights = {1: 0.05, 2: 0.75, 3: 0.15, 4: 0.10}  # fitness - that of the fifth
    for index, weight in weights.items():
        assert share[index] == pytest.approx(weight / sum(weights.values()), abs=0.04)


def test_what_failed_has_no_children() -> None:
    failed = [gave(0, START | {"lr0": 0.09}, 0.9, "diverged"), *some([0.0])[:0]]
    draw = np.random.default_rng(0)

    assert Genetic(START, 0).choose_parent(failed, draw) == START
    fine = gave(1, START | {"lr0": 0.02}, 0.0)
    assert Genetic(START, 0).choose_parent([*failed, fine], draw) == fine.hyp


def test_a_gene_at_zero_leaves_it_now_and_then_by_a_small_step() -> None:
    """Known problem 55: multiplication alone would keep it there for ever."""
    search = Genetic(START, 0)
    off = [key for key in search.moving if START[key] == 0]
    children = [search.propose(index, [gave(0, START, 0.5)]) for index in range(1, 400)]

    assert off == ["degrees", "shear", "flipud", "mixup", "copy_paste"]
    for key in off:
        values = [child[key] for child in children if child[key] > 0]
        assert 0.05 < len(values) / len(children) < 0.15 and max(values) <= 0.1 * GENES[key].high


def test_several_at_a_time_look_back_over_those_under_way() -> None:
    search = Genetic(START, 0)

    assert [search.needed(index, 1) for index in range(4)] == [0, 1, 2, 3]
    assert [search.needed(index, 3) for index in range(6)] == [0, 0, 0, 1, 2, 3]
