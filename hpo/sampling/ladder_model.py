"""What the ladders' models know at a moment: hyperparameters, posterior, and how far equal values reach. Pure: a history in, models out.

What is kept from one moment to the next is a function of the seed and the history, so that a fresh object knows the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from hpo.sampling.cube import Cube
from hpo.sampling.gp import Posterior, Prior, Sites, fit, squared_distances
from hpo.sampling.ladder_history import History, Observations, grain, observations, target_rung

Array = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Tuning:
    """The method's numbers."""

    blind: int = 12
    """So many trials must have a value before a model is asked."""
    random_share: float = 0.4
    tpe_share: float = 0.35
    """Of the trials that are not random."""
    sobol: int = 64
    tpe_candidates: int = 24
    fit_first: int = 8
    fit_growth: float = 1.4
    fit_most: int = 120
    most: int = 250
    """Observations that a posterior takes."""
    uniform: int = 150
    local: int = 150
    anchors: int = 5
    narrow: float = 0.02
    wide: float = 0.25
    """The least and the largest width of the steps around an anchor."""
    by_model: float = 0.75
    """The share of promotions that the model chooses."""
    most_paused: int = 256
    prior: Prior = field(default_factory=Prior)


class Purpose(IntEnum):
    """What a random draw is for: no two share a generator."""

    LADDER = 0
    UNIFORM = 1
    TPE = 2
    GP = 3
    FIT = 4
    SUBSET = 5
    PROMOTION = 6


def generator(seed: int, purpose: Purpose, number: int) -> np.random.Generator:
    """The generator of the `number`-th draw for that purpose."""
    return np.random.Generator(np.random.PCG64([seed % 2**64, int(purpose), number]))


@dataclass(frozen=True, slots=True)
class Knowledge:
    """The posterior, the few points [few, axes] where its mean is highest, and the rung that it is asked about."""

    posterior: Posterior
    anchors: Array
    rung: int


class Model:
    """The Gaussian process over a history that the caller brings up to date."""

    def __init__(self, cube: Cube, history: History, seed: int, tuning: Tuning) -> None:
        self._cube, self._history, self._seed, self._tuning = cube, history, seed, tuning
        self._fits: list[Array] = []
        self._needed = tuning.fit_first  # entries for the next fit
        self._kept: tuple[tuple[int, int, int], Knowledge] | None = None

    def knowledge(self) -> Knowledge:
        """What is known as the history stands. NotPositive if the covariance has no Cholesky factor."""
        history = self._history
        key = (history.count, int(np.count_nonzero(history.seen)), history.latest)
        if self._kept is None or self._kept[0] != key:
            found = observations(history)
            sites, z = self._sites(found, self._subset(found))
            posterior, rung = Posterior(sites, z, self.refit()), target_rung(history)
            self._kept = key, Knowledge(posterior, self._anchors(posterior, found, rung), rung)
        return self._kept[1]

    def reach(self) -> float:
        """The squared distance within which the best trials measured what their nearest did; 0 if there is none."""
        rows = self._history.ranked()[: self._tuning.most]
        return grain(self.features(rows), self._history.gain[rows])

    def fresh(self, points: Array) -> Flags:
        """Which of the points [m, axes] are not so near to a good one that was tried that they would show its values again."""
        reach = self.reach()
        if reach <= 0.0:
            return np.ones(len(points), dtype=bool)
        tried = np.concatenate([self._history.ranked()[: self._tuning.most], self._history.awaited])
        fresh: Flags = squared_distances(self._cube.features(points), self.features(tried)).min(axis=1) > reach
        return fresh

    def repeats(self, rows: Whole) -> Flags:
        """Which of the trials of `rows`, which wait at one rung, have a twin that went on: one nearby with the same value there."""
        history, reach = self._history, self.reach()
        if reach <= 0.0:
            return np.zeros(len(rows), dtype=bool)
        top = history.rungs - 1 - int(np.argmax(history.seen[rows[0], ::-1]))
        ahead = history.seen[:, top] & (history.seen[:, top + 1 :].any(axis=1) | history.running)
        ahead[rows] = False
        others = np.flatnonzero(ahead)
        near = squared_distances(self.features(rows), self.features(others)) <= 2.0 * reach
        twins: Flags = (near & (history.gain[rows, top][:, None] == history.gain[others, top])).any(axis=1)
        return twins

    def features(self, rows: Whole) -> Array:
        """The points of the trials of `rows`, as the kernel takes them."""
        return self._cube.features(self._history.points[rows])

    def _sites(self, found: Observations, chosen: Whole) -> tuple[Sites, Array]:
        sites = Sites(self.features(found.row[chosen]), found.rung[chosen].astype(float), self._cube.owner)
        return sites, found.z[chosen]

    def _anchors(self, posterior: Posterior, found: Observations, rung: int) -> Array:
        rows = np.unique(found.row[self._subset(found)])
        order = np.argsort(-posterior.mean(self.features(rows), rung), kind="stable")
        points, first = np.unique(self._history.points[rows[order]], axis=0, return_index=True)
        anchors: Array = points[np.argsort(first)][: self._tuning.anchors]
        return anchors

    def _subset(self, found: Observations) -> Whole:
        """The observations that the posterior takes: most of them those that say most about the good, the others at random."""
        n, most = len(found), self._tuning.most
        if n <= most:
            return np.arange(n)
        rng = generator(self._seed, Purpose.SUBSET, n)
        rank = 2.0 * (found.rung > 0) + found.last + ndtr(found.z) + rng.random(n)
        order = np.argsort(-rank, kind="stable")
        first = int(0.7 * most)
        return np.concatenate([order[:first], rng.choice(order[first:], most - first, replace=False)])

    def refit(self) -> Array:
        """The hyperparameters of the latest fit: the i-th is made of the first m_i entries that the study saw, m_i growing by 1.4.

        An entry takes part once something was seen after it, since no other of the same order can appear then. So it is all the
        same when, and how often, this is called: what was fitted once stays.
        """
        history, tuning = self._history, self._tuning
        if np.count_nonzero(history.seen) >= self._needed:
            order = history.order[history.seen]
            order = np.sort(order[order < history.latest])
            while self._needed <= len(order):
                self._fits.append(self._fit(len(self._fits), int(order[self._needed - 1])))
                self._needed = math.ceil(self._needed * tuning.fit_growth)
        return self._fits[-1] if self._fits else tuning.prior.moments(self._cube.size)[0]

    def _fit(self, i: int, up_to: int) -> Array:
        found, tuning = observations(self._history, up_to), self._tuning
        chosen = np.arange(len(found))
        if len(found) > tuning.fit_most:
            rank = (found.rung > 0) + generator(self._seed, Purpose.FIT, i).random(len(found))
            chosen = np.sort(np.argsort(-rank, kind="stable")[: tuning.fit_most])
        sites, z = self._sites(found, chosen)
        return fit(sites, z, self._fits[-1] if self._fits else None, tuning.prior)
