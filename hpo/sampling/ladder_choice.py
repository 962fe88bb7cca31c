"""The choices of the three ladders: which ladder, which point, which of those that wait. Pure: a history of arrays in, points out.

Every choice is a function of the seed, the trial's number (or the promotion's) and the history as it stands.
"""

from __future__ import annotations

import math
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from hpo.sampling.cube import Cube
from hpo.sampling.gp import NotPositive
from hpo.sampling.ladder_history import History
from hpo.sampling.ladder_model import Model, Purpose, Tuning, generator
from hpo.sampling.parzen import Parzen, good_count

Array = NDArray[np.float64]
Whole = NDArray[np.int64]

_NEVER = 1e6  # taken from what is chosen only if all are such


class Ladder(StrEnum):
    """Where a trial's point came from; it competes with the others of its ladder."""

    RANDOM = "random"
    TPE = "tpe"
    GP = "gp"


class Ladders:
    """The method over one history, which the caller brings up to date before each call."""

    def __init__(self, cube: Cube, history: History, seed: int, tuning: Tuning | None = None) -> None:
        self._cube, self._history, self._seed, self._tuning = cube, history, seed, tuning or Tuning()
        self._model = Model(cube, history, seed, self._tuning)
        self._sobol: Array | None = None

    def ladder(self, number: int) -> Ladder:
        """The ladder of trial `number`."""
        first, second = self._rng(Purpose.LADDER, number).random(2)
        if self._history.with_value < self._tuning.blind or first < self._tuning.random_share:
            return Ladder.RANDOM
        return Ladder.TPE if second < self._tuning.tpe_share else Ladder.GP

    def point(self, number: int, random_trials: int) -> Array:
        """The point [axes] of trial `number`; `random_trials` are already in the random ladder."""
        if self._cube.size == 0:
            return np.empty(0)
        match self.ladder(number):
            case Ladder.RANDOM:
                found = self._spread(number, random_trials)
            case Ladder.TPE:
                found = self._by_tpe(number)
            case Ladder.GP:
                found = self._by_gp(number)
        inside: Array = self._cube.snapped(np.round(found[None, :], 12))[0]
        return inside

    def prepare(self) -> None:
        """Fit the model if that is due: all else that a choice needs depends on the very latest that was seen."""
        if self._cube.size:
            self._model.refit()

    def promoted(self, rows: Whole, turn: int) -> int:
        """Which of the trials of `rows`, which wait at one rung, goes on: its place in `rows`."""
        history, rng = self._history, self._rng(Purpose.PROMOTION, turn)
        if len(rows) == 1 or self._cube.size == 0:
            return 0
        top = history.rungs - 1 - np.argmax(history.seen[rows, ::-1], axis=1)
        gain = np.nan_to_num(history.gain[rows, top], nan=-np.inf)
        repeats = self._model.repeats(rows)
        best = int(np.lexsort((np.arange(len(rows)), -gain, repeats))[0])
        if rng.random() >= self._tuning.by_model or history.with_value < self._tuning.blind:
            return best
        few = self._few(gain, rng)
        try:
            known = self._model.knowledge()
        except NotPositive:
            return best
        mean = known.posterior.mean(self._model.features(rows[few]), known.rung)
        return int(few[np.argmax(mean - _NEVER * repeats[few])])

    def _few(self, gain: Array, rng: np.random.Generator) -> Whole:
        """Places of the most that a promotion looks at: half the best, half at random."""
        most = self._tuning.most_paused
        if len(gain) <= most:
            return np.arange(len(gain))
        order = np.argsort(-gain, kind="stable")
        return np.concatenate([order[: most // 2], rng.choice(order[most // 2 :], most - most // 2, replace=False)])

    def _rng(self, purpose: Purpose, number: int) -> np.random.Generator:
        return generator(self._seed, purpose, number)

    def _spread(self, number: int, index: int) -> Array:
        """A point that looks at nothing: of a scrambled Sobol sequence, later uniform."""
        if index >= self._tuning.sobol:
            return self._rng(Purpose.UNIFORM, number).random(self._cube.size)
        if self._sobol is None:
            self._sobol = qmc.Sobol(self._cube.size, scramble=True, rng=self._seed % 2**64).random(self._tuning.sobol)
        drawn: Array = self._sobol[index]
        return drawn

    def _by_tpe(self, number: int) -> Array:
        """The candidate of the good density with the largest ratio of good to bad."""
        history, choices, rng = self._history, self._cube.choices, self._rng(Purpose.TPE, number)
        ranked = history.ranked()
        goods = good_count(len(ranked), self._cube.size)
        good = Parzen.of(history.points[ranked[:goods]], choices)
        bad = Parzen.of(history.points[np.concatenate([ranked[goods:], history.awaited])], choices)
        drawn = self._cube.snapped(good.draw(rng, self._tuning.tpe_candidates))
        ratio = good.log_density(drawn) - bad.log_density(drawn)
        chosen: Array = drawn[np.argmax(ratio - _NEVER * ~self._model.fresh(drawn))]
        return chosen

    def _by_gp(self, number: int) -> Array:
        """The candidate with the largest draw from its posterior (Thompson sampling, independent for each); by TPE if there is none."""
        rng = self._rng(Purpose.GP, number)
        try:
            known = self._model.knowledge()
            posterior, awaited = known.posterior, self._history.awaited
            if len(awaited):
                posterior = posterior.expecting(self._model.features(awaited), known.rung)
        except NotPositive:
            return self._by_tpe(number)
        drawn = self._cube.snapped(self._candidates(known.anchors, rng))
        mean, deviation = posterior.mean_and_deviation(self._cube.features(drawn), known.rung)
        draw = mean + deviation * rng.standard_normal(len(mean))
        chosen: Array = drawn[np.argmax(draw - _NEVER * ~self._model.fresh(drawn))]
        return chosen

    def _candidates(self, anchors: Array, rng: np.random.Generator) -> Array:
        tuning, axes = self._tuning, self._cube.size
        anywhere = rng.random((tuning.uniform, axes))
        centre = anchors[rng.integers(0, len(anchors), tuning.local)]
        width = np.exp(rng.uniform(math.log(tuning.narrow), math.log(tuning.wide), (tuning.local, 1)))
        moves = rng.random((tuning.local, axes)) < rng.choice([0.3, 0.6, 1.0], (tuning.local, 1))
        near, any_choice = centre + width * rng.standard_normal((tuning.local, axes)), rng.random((tuning.local, axes))
        elsewhere = np.where(self._cube.choices > 0, any_choice, near)
        return np.concatenate([anywhere, np.where(moves, elsewhere, centre)])
