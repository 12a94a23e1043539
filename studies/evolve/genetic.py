"""The genetic search: hyperparameters with their bounds, and candidates as mutations of the best so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from studies.evolve.records import Result
from utils.base.seeds import generator
from utils.ops.metrics import fitness
from utils.train.hyp import Hyp

DIGITS = 5  # to which values are rounded


@dataclass(frozen=True)
class Gene:
    """A hyperparameter's bounds, and the gain of its steps; 0: the genetic search leaves it alone."""

    low: float
    high: float
    gain: float = 1.0
    augmentation: bool = False  # the population search looks at these alone


# Numerics, section 11.
GENES: dict[str, Gene] = {
    "lr0": Gene(1e-5, 0.1),
    "lrf": Gene(0.01, 1),
    "momentum": Gene(0.6, 0.98, 0.3),
    "weight_decay": Gene(0, 0.001),
    "warmup_epochs": Gene(0, 5),
    "warmup_momentum": Gene(0, 0.95),
    "warmup_bias_lr": Gene(0, 0.2),
    "box": Gene(0.02, 0.2),
    "cls": Gene(0.2, 4),
    "cls_pw": Gene(0.5, 2),
    "obj": Gene(0.2, 4),
    "obj_pw": Gene(0.5, 2),
    "iou_t": Gene(0.1, 0.7, 0),  # nothing reads it
    "anchor_t": Gene(2, 8),
    "anchors": Gene(2, 10, 2),
    "fl_gamma": Gene(0, 2, 0),
    "hsv_h": Gene(0, 0.1, 1, True),
    "hsv_s": Gene(0, 0.9, 1, True),
    "hsv_v": Gene(0, 0.9, 1, True),
    "degrees": Gene(0, 45, 1, True),
    "translate": Gene(0, 0.9, 1, True),
    "scale": Gene(0, 0.9, 1, True),
    "shear": Gene(0, 10, 1, True),
    "perspective": Gene(0, 0.001, 0, True),
    "flipud": Gene(0, 1, 1, True),
    "fliplr": Gene(0, 1, 0, True),
    "mosaic": Gene(0, 1, 1, True),
    "mixup": Gene(0, 1, 1, True),
    "copy_paste": Gene(0, 1, 1, True),
}


def bounds_around(start: Hyp) -> dict[str, tuple[float, float]]:
    """Bounds of the genes that a --hyp file has; what the file itself holds is never out of bounds."""
    return {
        key: (min(gene.low, start[key]), max(gene.high, start[key]))
        for key, gene in GENES.items()
        if key in start
    }


def settle(value: float, bounds: tuple[float, float]) -> float:
    """A value within its bounds, rounded as files show it."""
    low, high = bounds
    return min(max(round(float(value), DIGITS), low), high)


def settle_all(hyp: Mapping[str, float], bounds: Mapping[str, tuple[float, float]]) -> Hyp:
    """Settle every gene; other keys stay as they are."""
    return {key: settle(value, bounds[key]) if key in bounds else value for key, value in hyp.items()}


# Numerics, section 11.
PARENTS = 5  # of these, the best ones, one is chosen
LEAST_WEIGHT = 1e-6  # of a parent, added to how much it is better than the worst of them
PROBABILITY = 0.8  # that a gene moves
SIGMA = 0.2
FACTOR = (0.3, 3.0)  # smallest and largest
# Our own: a gene at 0 cannot move by a factor. Now and then it leaves 0, by a small part of its range.
LEAVING = 0.1  # probability; one of some ten such genes for each candidate
FIRST_STEP = 0.1  # at most, as a fraction of the highest value


class Genetic:
    """Propose one candidate at a time; the first is the --hyp file as it is.

    Args:
        start: hyperparameters of the --hyp file.
        seed: of the random numbers; candidate i has its own, whoever asks and when.
    """

    name = "genetic"

    def __init__(self, start: Hyp, seed: int) -> None:
        self.start = start
        self.seed = seed
        self.bounds = bounds_around(start)
        self.moving = [key for key in self.bounds if GENES[key].gain > 0]

    def count(self, generations: int) -> int:
        """Candidates in so many generations."""
        return generations

    def needed(self, index: int, jobs: int) -> int:
        """How many results, from the first on, a candidate is made from.

        With several trainings at a time the newest results are not waited for, nor looked at if they happen
        to be there: so what is proposed does not depend on who is faster.
        """
        return max(index - jobs + 1, 0)

    def fitness(self, result: Result) -> float:
        """What candidates are ranked by: 0.1 mAP50 + 0.9 mAP50-95."""
        return 0.0 if result.failure else fitness(result.map50, result.map50_95)

    def propose(self, index: int, results: Sequence[Result]) -> Hyp:
        """Make a candidate from the results before it."""
        if index == 0:
            return dict(self.start)
        draw = generator(self.seed, index)
        parent = self.choose_parent(results, draw)
        while True:
            child = self.mutate(parent, draw)
            if child != parent:
                return child

    def choose_parent(self, results: Sequence[Result], draw: np.random.Generator) -> Hyp:
        """One of the best so far, better ones more often; failed candidates have no children."""
        best = sorted((r for r in results if not r.failure), key=lambda r: (-self.fitness(r), r.index))
        best = best[:PARENTS]
        if not best:
            return self.start
        fitness = np.array([self.fitness(result) for result in best])
        weights = fitness - fitness.min() + LEAST_WEIGHT
        return best[int(draw.choice(len(best), p=weights / weights.sum()))].hyp

    def mutate(self, parent: Hyp, draw: np.random.Generator) -> Hyp:
        """Multiply some values; what is at 0 may leave it."""
        moved = draw.random(len(self.moving)) < PROBABILITY
        steps = draw.standard_normal(len(self.moving)) * draw.random() * SIGMA
        leaving = draw.random(len(self.moving)) < LEAVING
        first = draw.random(len(self.moving)) * FIRST_STEP
        child = dict(parent)
        for number, key in enumerate(self.moving):
            gene, value = GENES[key], parent[key]
            if value == 0 and leaving[number]:
                value = first[number] * gene.high
            elif moved[number]:
                value *= min(max(1 + gene.gain * steps[number], FACTOR[0]), FACTOR[1])
            child[key] = settle(value, self.bounds[key])
        return child
