"""Samplers that look at no results: grid, random and quasi-random. Pure functions of seed and trial number."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hpo.space import Params, SearchSpace, at, grid
from hpo.trial import Trial, trial_seed


class GridSampler:
    """Every point of the grid once, the last parameter varying fastest; then nothing."""

    remembers = False

    def __init__(self, space: SearchSpace) -> None:
        self._points = list(grid(space))

    def suggest(self, number: int, trials: Sequence[Trial]) -> Params | None:  # noqa: ARG002
        return self._points[number] if number < len(self._points) else None


class RandomSampler:
    """Independent uniform draws, on a log axis where the parameter says so."""

    remembers = False

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space, self._seed = space, seed

    def suggest(self, number: int, trials: Sequence[Trial]) -> Params:  # noqa: ARG002
        draw = random.Random(f"random/{trial_seed(self._seed, number)}")
        return at(self._space, [draw.random() for _ in self._space])


class QuasiRandomSampler:
    """A scrambled Sobol sequence: covers the space more evenly than random draws.

    Source: Owen 1998, "Scrambling Sobol' and Niederreiter-Xing points"; SciPy's implementation.
    """

    remembers = False

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space, self._seed = space, seed

    def suggest(self, number: int, trials: Sequence[Trial]) -> Params:  # noqa: ARG002
        from scipy.stats import qmc

        sequence = qmc.Sobol(len(self._space), scramble=True, rng=self._seed)
        if number > 0:
            sequence.fast_forward(number)
        return at(self._space, [float(u) for u in sequence.random(1)[0]])
