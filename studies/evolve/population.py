"""Population search: generations of many candidates, with tournament selection, crossover and mutation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from studies.evolve.genetic import GENES, bounds_around, round_and_clip, round_and_clip_all
from studies.evolve.trials import Result
from utils.base.seeds import generator
from utils.train.hyp import Hyp

SHIFT = 0.1  # largest change of a gene by mutation


class Population:
    """Population search in generations; only augmentation is searched, all else is taken from --hyp.

    Args:
        start: hyperparameters of the --hyp file.
        members: hyperparameters of the first individuals; the rest of the first generation is random.
        size: individuals in a generation.
        generations: of the whole search; selection gets stricter and mutation rarer from one to the next.
        seed: of the random numbers; each individual has its own stream.
    """

    name = "population"

    def __init__(self, start: Hyp, members: Sequence[Hyp], size: int, generations: int, seed: int) -> None:
        self.start = start
        self.members = members
        self.size = size
        self.generations = generations
        self.seed = seed
        self.bounds = {key: limits for key, limits in bounds_around(start).items() if GENES[key].augmentation}

    def count(self, generations: int) -> int:
        """Return the number of candidates in `generations`."""
        return generations * self.size

    def needed(self, index: int, jobs: int) -> int:
        """Return the number of results that candidate `index` is made from: all earlier generations."""
        return index // self.size * self.size

    def fitness(self, result: Result) -> float:
        """Return mAP50, by which candidates are ranked."""
        return 0.0 if result.failure else result.map50

    def propose(self, index: int, results: Sequence[Result]) -> Hyp:
        """Return a candidate made from the previous generation."""
        generation, number = divmod(index, self.size)
        draw = generator(self.seed, index)
        if generation == 0:
            return self._first(number, draw)
        before = results[(generation - 1) * self.size : generation * self.size]
        ranked = sorted(before, key=lambda result: (-self.fitness(result), result.index))
        if number < min(self.elite(generation), self.size - 1):
            return ranked[number].hyp
        mother, father = (self._winner(ranked, generation, draw).hyp for _ in range(2))
        child = dict(mother)
        keys = list(self.bounds)
        if draw.random() < self.crossover(generation):
            point = int(draw.integers(1, len(keys)))
            child |= {key: father[key] for key in keys[point:]}
        for key in keys:
            if draw.random() < self.mutation(generation):
                child[key] = round_and_clip(child[key] + draw.uniform(-SHIFT, SHIFT), self.bounds[key])
        return child

    def _first(self, number: int, draw: np.random.Generator) -> Hyp:
        if number < len(self.members):
            given = {key: self.members[number][key] for key in self.bounds}
        else:
            given = {key: draw.uniform(*limits) for key, limits in self.bounds.items()}
        return round_and_clip_all(self.start | given, self.bounds)

    def _winner(self, ranked: Sequence[Result], generation: int, draw: np.random.Generator) -> Result:
        """Return the best of some randomly drawn candidates."""
        size = min(self.tournament(generation), len(ranked))
        return ranked[min(draw.choice(len(ranked), size, replace=False))]

    def elite(self, generation: int) -> int:
        """Return the number of best candidates that are kept unchanged."""
        return 2 + int(3 * generation / self.generations)

    def tournament(self, generation: int) -> int:
        """Return the number of candidates that compete to become a parent."""
        return max(2, int(min(10, self.size) - generation / (self.generations / 10)))

    def crossover(self, generation: int) -> float:
        """Return the probability that a child takes its later genes from a second parent."""
        return min(max(1 - generation / self.generations, 0.5), 1)

    def mutation(self, generation: int) -> float:
        """Return the probability that a gene is mutated."""
        return min(max(0.5 - generation / self.generations, 0.01), 0.5)
