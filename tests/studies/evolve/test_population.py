"""Candidates of the population search."""

from __future__ import annotations

import pytest

from studies.evolve.genetic import GENES, Population
from studies.evolve.trials import Result
from utils.train.hyp import Hyp, check_hyp

START = check_hyp({"lr0": 0.02}, "test")
SIZE = 12


def generation(search: Population, before: list[Result], number: int) -> list[Hyp]:
    return [search.propose(number * SIZE + index, before) for index in range(SIZE)]


def rated(hyps: list[Hyp], first: int = 0) -> list[Result]:
    """Return results whose mAP50 falls with the translation of images, while mAP50-95 rises."""
    return [
        Result(
            first + i,
            hyp,
            {"metrics/mAP_0.5": 1 - hyp["translate"], "metrics/mAP_0.5:0.95": hyp["translate"]},
        )
        for i, hyp in enumerate(hyps)
    ]


def test_the_first_generation_is_given_or_random() -> None:
    members = [check_hyp({"lr0": 0.5, "scale": value, "hsv_h": 0.9}, "test") for value in (0.1, 0.2)]
    search = Population(START, members, SIZE, 10, 0)
    hyps = generation(search, [], 0)

    assert [hyp["scale"] for hyp in hyps[:2]] == [0.1, 0.2] and hyps[0]["hsv_h"] == 0.1, "within its bounds"
    assert len({hyp["scale"] for hyp in hyps}) == SIZE
    assert {hyp["lr0"] for hyp in hyps} == {0.02}, "only augmentation is searched"
    for hyp in hyps:
        assert all(gene.low <= hyp[key] <= gene.high for key, gene in GENES.items() if gene.augmentation)


def test_the_best_by_map50_are_kept_and_the_rest_descends_from_tournament_winners() -> None:
    search = Population(START, [], SIZE, 10, 0)
    first = rated(generation(search, [], 0))
    second = generation(search, first, 1)
    best = sorted(first, key=lambda result: -result.metrics["metrics/mAP_0.5"])

    assert second[:2] == [best[0].hyp, best[1].hyp]
    assert second == generation(Population(START, [], SIZE, 10, 0), first, 1)
    mean = sum(hyp["translate"] for hyp in second) / SIZE
    assert mean < sum(result.hyp["translate"] for result in first) / SIZE
    values = {key: {result.hyp[key] for result in first} for key in search.bounds}
    kept = [hyp[key] in values[key] for hyp in second[2:] for key in search.bounds]
    assert 0.4 < sum(kept) / len(kept) < 0.85, "about six genes in ten are inherited unchanged"


@pytest.mark.parametrize(
    ("number", "elite", "tournament", "crossover", "mutation"),
    [(0, 2, 10, 1, 0.5), (30, 2, 7, 0.7, 0.2), (50, 3, 5, 0.5, 0.01), (99, 4, 2, 0.5, 0.01)],
)
def test_selection_gets_stricter_with_the_generations(
    number: int, elite: int, tournament: int, crossover: float, mutation: float
) -> None:
    search = Population(START, [], 50, 100, 0)

    assert (search.elite(number), search.tournament(number)) == (elite, tournament)
    assert search.crossover(number) == pytest.approx(crossover)
    assert search.mutation(number) == pytest.approx(mutation)


def test_a_generation_waits_for_the_one_before() -> None:
    search = Population(START, [], SIZE, 10, 0)

    assert [search.needed(index, 4) for index in (0, SIZE - 1, SIZE, 2 * SIZE + 3)] == [0, 0, SIZE, 2 * SIZE]
    assert search.count(10) == 10 * SIZE
