"""Parzen estimators of where good and bad points lie, and a draw from their ratio: TPE. Pure: arrays and a generator in, a point out.

Source: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization", section 4; with one product kernel for each point
(Falkner et al. 2018, "BOHB", section 3.2) and the uniform prior as one more kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_LEAST_WIDTH = 0.05
_ROOT_TAU = math.sqrt(2 * math.pi)


@dataclass(frozen=True, slots=True)
class Parzen:
    """The density (1 + sum_i prod_j kernel_j(x_j, points_ij)) / (n + 1) over the cube.

    `points` [n, d]; `choices` [d]: how many a categorical axis has, 0 for the others; `widths` [d]: of a numeric axis the normal
    kernel's standard deviation, of a categorical one the share that is spread over all choices.
    """

    points: Array
    choices: NDArray[np.int64]
    widths: Array

    @classmethod
    def of(cls, points: Array, choices: NDArray[np.int64]) -> Parzen:
        """The estimator of `points`, which may be none."""
        n, d = points.shape
        shrink = max(n, 1) ** (-1.0 / (d + 4))
        spread = points.std(axis=0) if n else np.zeros(d)
        widths = np.maximum(_LEAST_WIDTH, np.maximum(spread, _LEAST_WIDTH) * shrink)
        return cls(points, choices, np.where(choices > 0, max(_LEAST_WIDTH, shrink), widths))

    def log_density(self, x: Array) -> Array:
        """Of the points `x` [m, d]."""
        numeric = self.choices == 0
        width = self.widths[numeric]
        a, b = x[:, numeric] / width, self.points[:, numeric] / width
        exponent = a @ b.T
        exponent -= 0.5 * np.einsum("ij,ij->i", a, a)[:, None]
        exponent -= 0.5 * np.einsum("ij,ij->i", b, b)
        exponent -= float(np.log(width * _ROOT_TAU).sum())
        for j in np.flatnonzero(~numeric):
            c, spread = int(self.choices[j]), float(self.widths[j])
            same = (x[:, j] * c).astype(np.int64)[:, None] == (self.points[:, j] * c).astype(np.int64)
            # as a density on the axis: the prior's is 1, each choice owning 1 / c of it
            exponent += np.where(same, math.log((1 - spread) * c + spread), math.log(spread) if spread > 0 else -math.inf)
        total: Array = np.log1p(np.exp(exponent).sum(axis=1)) - math.log(len(self.points) + 1)
        return total

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        """`count` points of the cube, [count, d], not yet at the centres of cells."""
        d = len(self.choices)
        kernel = rng.integers(0, len(self.points) + 1, count)  # the last one is the prior
        uniform, normal, spread = rng.random((count, d)), rng.standard_normal((count, d)), rng.random((count, d))
        if not len(self.points):
            return uniform
        centre = self.points[np.minimum(kernel, len(self.points) - 1)]
        moved = np.clip(centre + self.widths * normal, 0.0, 1.0)
        chosen = np.where(spread < self.widths, uniform, centre)
        drawn: Array = np.where((kernel == len(self.points))[:, None], uniform, np.where(self.choices > 0, chosen, moved))
        return drawn


def good_count(n: int, d: int) -> int:
    """How many of `n` ranked points of dimension `d` count as good: a share of .15 and at least d + 1, but 2 while there are few."""
    return min(2, n) if n <= 2 * (d + 1) else max(d + 1, math.ceil(0.15 * n))
