"""A Gaussian process over points and rungs: fit and posterior. Pure: arrays in, arrays out; no history, no random draws.

Covariance of point x at rung k and x' at rung k': (s2 Matern52(r) + t2 Matern52(q)) exp(-lambda |k - k'|), plus noise on the diagonal;
r^2 = sum_j (x_j - x'_j)^2 / l_j^2 over the columns of `hpo.sampling.cube.Cube.features` (so 1 / l^2 for a choice that differs), and
q = |x - x'| / h with a short h. The second term is what a point has that its surroundings don't show: without it the model holds a
neighbourhood that was tried once for known, and comes back to it. Sources: Rasmussen & Williams 2006, "Gaussian Processes for Machine
Learning", equations 2.25, 2.26, 4.17, 5.8 and 5.9; the product over rungs is that of Swersky et al. 2013, "Multi-Task Bayesian
Optimization", with one parameter.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.linalg.blas import dtrsm
from scipy.optimize import minimize

Array = NDArray[np.float64]
Owner = NDArray[np.int64]

_ROOT5 = math.sqrt(5.0)
_NUGGET = 1e-6
_MOST_JITTER = 1e-2


@dataclass(frozen=True, slots=True)
class Prior:
    """Normal priors of the hyperparameters' logarithms, as (mean, standard deviation), and bounds."""

    length: tuple[float, float] = (0.8, 0.8)
    variance: tuple[float, float] = (0.0, 0.7)
    noise: tuple[float, float] = (math.log(0.05), 1.2)
    decay: tuple[float, float] = (math.log(0.15), 0.8)
    local: tuple[float, float] = (math.log(0.1), 1.0)
    reach: tuple[float, float] = (math.log(0.08), 0.4)
    """Of h / sqrt(axes)."""

    def moments(self, axes: int) -> tuple[Array, Array]:
        """Means and deviations of theta = [log l_1 .. log l_axes, log t2, log h, log s2, log noise, log lambda]."""
        reach = (self.reach[0] + 0.5 * math.log(max(axes, 1)), self.reach[1])
        pairs = np.array([self.length] * axes + [self.local, reach, self.variance, self.noise, self.decay])
        return pairs[:, 0], pairs[:, 1]

    @staticmethod
    def bounds(axes: int) -> list[tuple[float, float]]:
        return [(-3.0, 3.0)] * axes + [(-8.0, 1.0), (-4.0, 0.5), (-3.0, 3.0), (-8.0, 1.0), (-5.0, 1.5)]


@dataclass(frozen=True, slots=True)
class Sites:
    """Points `x` [n, c] as rows of features, each at a `rung` [n]; `owner` [c] is the axis of a column."""

    x: Array
    rung: Array
    owner: Owner

    def at(self, x: Array, rung: int) -> Sites:
        """Other points, all at one rung."""
        return Sites(x, np.full(len(x), float(rung)), self.owner)


class NotPositive(ArithmeticError):
    """A covariance that has no Cholesky factor, whatever jitter is allowed."""


def cholesky(covariance: Array) -> Array:
    """The lower Cholesky factor, of the matrix plus the least jitter (up to 1e-2) that makes it exist; NotPositive if none does."""
    jitter = 0.0
    while jitter <= _MOST_JITTER:
        tried = covariance.copy(order="F")
        if jitter:
            tried[np.diag_indices_from(tried)] += jitter
        factor, failed = lapack.dpotrf(tried, lower=1, clean=1, overwrite_a=1)
        if failed == 0 and np.isfinite(factor[-1, -1]):
            lower: Array = factor
            return lower
        jitter = jitter * 10 if jitter else _NUGGET
    raise NotPositive(f"no Cholesky factor with jitter {_MOST_JITTER:g}")


def squared_distances(a: Array, b: Array) -> Array:
    """Of the rows of `a` [m, c] from those of `b` [n, c]; never below 0."""
    apart: Array = a @ (-2.0 * b.T)
    apart += np.einsum("ij,ij->i", a, a)[:, None]
    apart += np.einsum("ij,ij->i", b, b)
    return np.maximum(apart, 0.0, out=apart)


def covariance(a: Sites, b: Sites, theta: Array) -> Array:
    """Between the sites `a` [m] and `b` [n], without noise."""
    scale = np.exp(-theta[a.owner])
    span = int(max(a.rung.max(initial=0), b.rung.max(initial=0))) + 1
    rungs = np.exp(-math.exp(theta[-1]) * np.arange(span))
    result = math.exp(theta[-3]) * _matern(np.sqrt(5.0 * squared_distances(a.x * scale, b.x * scale)))
    result += math.exp(theta[-5]) * _matern(np.sqrt(squared_distances(a.x, b.x)) * (_ROOT5 * math.exp(-theta[-4])))
    result *= rungs[np.abs(a.rung[:, None] - b.rung[None, :]).astype(np.int64)]
    return result


def _matern(s: Array) -> Array:
    """The Matern correlation of smoothness 5/2 at distance s / sqrt(5)."""
    result = np.exp(-s)
    result *= 1.0 + s * (1.0 + s / 3.0)
    return result


def loss_and_gradient(theta: Array, sites: Sites, z: Array, prior: Prior) -> tuple[float, Array]:
    """Minus the log posterior of `theta` given the values `z` [n] at `sites` [n], up to a constant, and its gradient."""
    x, k, owner = sites.x, sites.rung, sites.owner
    n, axes = len(z), len(theta) - 5
    mean, deviation = prior.moments(axes)
    scaled = x * np.exp(-theta[owner])
    s = np.sqrt(5.0 * squared_distances(scaled, scaled))
    apart = np.abs(k[:, None] - k[None, :])
    decay, noise = math.exp(theta[-1]), math.exp(theta[-2])
    q = np.sqrt(squared_distances(x, x)) * (_ROOT5 * math.exp(-theta[-4]))
    shared, near = np.exp(theta[-3] - decay * apart - s), np.exp(theta[-5] - decay * apart - q)
    wide, local = shared * (1.0 + s * (1.0 + s / 3.0)), near * (1.0 + q * (1.0 + q / 3.0))
    signal = wide + local
    full = signal.copy()
    full[np.diag_indices(n)] += noise + _NUGGET
    try:
        lower = cholesky(full)
    except NotPositive:
        return math.inf, np.zeros_like(theta)
    alpha = lapack.dpotrs(lower, z, lower=1)[0]
    inverse = lapack.dpotri(lower, lower=1)[0]
    inverse = inverse + np.tril(inverse, -1).T
    off = (theta - mean) / deviation
    loss = 0.5 * float(z @ alpha) + float(np.log(np.diagonal(lower)).sum()) + 0.5 * float(off @ off)
    weight = 0.5 * (inverse - np.outer(alpha, alpha))  # d loss / d covariance
    # d covariance / d log l_j = shared 5/3 (1 + s) (x_j - x'_j)^2 / l_j^2; sums of squared differences through one product
    pull = weight * shared * (5.0 / 3.0 * (1.0 + s))
    columns = 2.0 * (np.einsum("ic,i->c", scaled * scaled, pull.sum(1)) - np.einsum("ic,ic->c", scaled, pull @ scaled))
    gradient = off / deviation
    gradient[:axes] += np.bincount(owner, weights=columns, minlength=axes)
    gradient[-5] += float((weight * local).sum())
    gradient[-4] += float((weight * near * (1.0 + q) * q * q).sum()) / 3.0
    gradient[-3] += float((weight * wide).sum())
    gradient[-2] += noise * float(np.trace(weight))
    gradient[-1] -= decay * float((weight * signal * apart).sum())
    return loss, gradient


def fit(sites: Sites, z: Array, start: Array | None = None, prior: Prior | None = None, steps: int = 20) -> Array:
    """Theta as in `Prior.moments`, at the largest posterior found in `steps` of L-BFGS-B from `start` (None: from the prior's means).

    Rounded to 3 places: what follows then doesn't depend on the last bits of a machine's linear algebra.
    """
    prior = prior or Prior()
    axes = int(sites.owner.max(initial=-1)) + 1
    bounds = prior.bounds(axes)
    start = prior.moments(axes)[0] if start is None else start
    limits = {"maxiter": steps, "maxfun": 2 * steps}
    with np.errstate(all="ignore"):
        found = minimize(loss_and_gradient, start, (sites, z, prior), "L-BFGS-B", jac=True, bounds=bounds, options=limits)
    theta = found.x if np.isfinite(found.x).all() else start
    low, high = np.array(bounds).T
    return np.round(np.clip(theta, low, high), 3)


class Posterior:
    """What values `z` [n] at `sites` [n] say of others. NotPositive if they have no Cholesky factor."""

    def __init__(self, sites: Sites, z: Array, theta: Array) -> None:
        self._sites, self._z, self._theta = sites, z, theta
        full = covariance(sites, sites, theta)
        full[np.diag_indices(len(z))] += math.exp(theta[-2]) + _NUGGET
        self._lower = cholesky(full)
        self._alpha: Array = lapack.dpotrs(self._lower, z, lower=1)[0]

    def mean(self, x: Array, rung: int) -> Array:
        """Of the points `x` [m, c] at a rung."""
        result: Array = covariance(self._sites.at(x, rung), self._sites, self._theta) @ self._alpha
        return result

    def mean_and_deviation(self, x: Array, rung: int) -> tuple[Array, Array]:
        """Of the noiseless values of the points `x` [m, c] at a rung."""
        across = covariance(self._sites, self._sites.at(x, rung), self._theta)
        solved = dtrsm(1.0, self._lower, across, lower=1)
        variance = math.exp(self._theta[-3]) + math.exp(self._theta[-5]) - np.einsum("ij,ij->j", solved, solved)
        return across.T @ self._alpha, np.sqrt(np.maximum(variance, 1e-12))

    def expecting(self, x: Array, rung: int) -> Posterior:
        """The posterior once the points `x` [m, c] have reported at `rung` what is expected of them: same mean, less deviation."""
        new = self._sites.at(x, rung)
        both = Sites(np.concatenate([self._sites.x, x]), np.concatenate([self._sites.rung, new.rung]), new.owner)
        return Posterior(both, np.concatenate([self._z, self.mean(x, rung)]), self._theta)
