"""Genetic searches: mutations of the best candidates so far, or generations of a population.

The population search uses tournament selection, crossover and mutation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from studies.evolve.trials import Result
from utils.base.seeds import generator
from utils.tasks.task import Task
from utils.train.genes import GENES, Gene
from utils.train.hyp import Hyp

DIGITS = 5  # of rounded values, after the decimal point
# Values of the original.
PARENTS = 5  # the best candidates, of which one is chosen
MIN_PARENT_WEIGHT = 1e-6  # added to the weight of a parent, its fitness minus that of the worst of them
MUTATION_PROBABILITY = 0.8  # of a gene
SIGMA = 0.2  # of a mutation, before the gain of its gene
FACTOR = (0.3, 3.0)  # smallest and largest factor of a mutation
# Our addition: no factor changes a gene that is 0, so some of them are set to a small value.
LEAVE_ZERO_PROBABILITY = 0.1  # that a gene of 0 becomes positive
MAX_FIRST_VALUE = 0.1  # of such a gene, as a fraction of the upper bound
SHIFT = 0.1  # largest change of a gene by mutation


def bounds_around(start: Hyp, genes: Mapping[str, Gene] = GENES) -> dict[str, tuple[float, float]]:
    """Return the bounds of the genes in a --hyp file, widened to the values of the file."""
    return {
        key: (min(gene.low, start[key]), max(gene.high, start[key]))
        for key, gene in genes.items()
        if key in start
    }


def round_and_clip(value: float, bounds: tuple[float, float]) -> float:
    """Round a value as in files, and clip it to its bounds."""
    low, high = bounds
    return min(max(round(float(value), DIGITS), low), high)


def round_and_clip_all(hyp: Mapping[str, float], bounds: Mapping[str, tuple[float, float]]) -> Hyp:
    """Round and clip all genes; other keys are left unchanged."""
    return {key: round_and_clip(value, bounds[key]) if key in bounds else value for key, value in hyp.items()}


class Genetic:
    """Genetic search, one candidate at a time; the first is the unchanged --hyp file.

    Args:
        start: hyperparameters of the --hyp file.
        seed: of the random numbers; each candidate has its own stream.
        task: of the models; detection by default.
    """

    name = "genetic"

    def __init__(self, start: Hyp, seed: int, task: Task | None = None) -> None:
        self.start = start
        self.seed = seed
        self.task = task or Task()
        self.genes = self.task.genes()
        self.bounds = bounds_around(start, self.genes)
        self.mutable = [key for key in self.bounds if self.genes[key].gain > 0]

    def count(self, generations: int) -> int:
        """Return the number of candidates in `generations`."""
        return generations

    def needed(self, index: int, jobs: int) -> int:
        """Return the number of results that candidate `index` is made from, counted from the first one.

        With several jobs at a time, the newest jobs - 1 results are never used, even if they are complete,
        so that candidates do not depend on the speed of the trainings.
        """
        return max(index - jobs + 1, 0)

    def fitness(self, result: Result) -> float:
        """Return the fitness by which candidates are ranked."""
        return 0.0 if result.failure else self.task.fitness(result.metrics)

    def propose(self, index: int, results: Sequence[Result]) -> Hyp:
        """Return a candidate made from earlier results."""
        if index == 0:
            return dict(self.start)
        draw = generator(self.seed, index)
        parent = self.choose_parent(results, draw)
        while True:
            child = self.mutate(parent, draw)
            if child != parent:
                return child

    def choose_parent(self, results: Sequence[Result], draw: np.random.Generator) -> Hyp:
        """Choose one of the best so far, weighted by fitness; failed candidates are never chosen."""
        best = sorted((r for r in results if not r.failure), key=lambda r: (-self.fitness(r), r.index))
        best = best[:PARENTS]
        if not best:
            return self.start
        fitness = np.array([self.fitness(result) for result in best])
        weights = fitness - fitness.min() + MIN_PARENT_WEIGHT
        return best[int(draw.choice(len(best), p=weights / weights.sum()))].hyp

    def mutate(self, parent: Hyp, draw: np.random.Generator) -> Hyp:
        """Multiply some values by random factors; a value of 0 may become positive."""
        mutates = draw.random(len(self.mutable)) < MUTATION_PROBABILITY
        steps = draw.standard_normal(len(self.mutable)) * draw.random() * SIGMA
        leaves_zero = draw.random(len(self.mutable)) < LEAVE_ZERO_PROBABILITY
        first = draw.random(len(self.mutable)) * MAX_FIRST_VALUE
        child = dict(parent)
        for number, key in enumerate(self.mutable):
            gene, value = self.genes[key], parent[key]
            if value == 0 and leaves_zero[number]:
                value = first[number] * gene.high
            elif mutates[number]:
                value *= min(max(1 + gene.gain * steps[number], FACTOR[0]), FACTOR[1])
            child[key] = round_and_clip(value, self.bounds[key])
        return child


class Population:
    """Population search in generations; only augmentation is searched, all else is taken from --hyp.

    Args:
        start: hyperparameters of the --hyp file.
        members: hyperparameters of the first individuals; the rest of the first generation is random.
        size: individuals in a generation.
        generations: of the whole search; selection gets stricter and mutation rarer from one to the next.
        seed: of the random numbers; each individual has its own stream.
        task: of the models; detection by default.
    """

    name = "population"

    def __init__(
        self,
        start: Hyp,
        members: Sequence[Hyp],
        size: int,
        generations: int,
        seed: int,
        task: Task | None = None,
    ) -> None:
        self.start = start
        self.members = members
        self.size = size
        self.generations = generations
        self.seed = seed
        self.task = task or Task()
        genes = self.task.genes()
        bounds = bounds_around(start, genes)
        self.bounds = {key: limits for key, limits in bounds.items() if genes[key].augmentation}

    def count(self, generations: int) -> int:
        """Return the number of candidates in `generations`."""
        return generations * self.size

    def needed(self, index: int, jobs: int) -> int:
        """Return the number of results that candidate `index` is made from: all earlier generations."""
        return index // self.size * self.size

    def fitness(self, result: Result) -> float:
        """Return mAP50 or top-1, by which candidates are ranked."""
        return 0.0 if result.failure else next(iter(self.task.scores(result.metrics).values()))

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
