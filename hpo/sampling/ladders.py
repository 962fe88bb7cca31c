"""The `ladders` sampler for our studies: trials in, parameters, ladders and promotions out. The method itself is in `ladder_choice`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import is_not

import numpy as np

from hpo.sampling.cube import Cube
from hpo.sampling.ladder_choice import Ladder, Ladders
from hpo.sampling.ladder_history import Entry, History
from hpo.sampling.ladder_model import Tuning
from hpo.space import Params, SearchSpace
from hpo.trial import Direction, State, Trial


class LaddersSampler:
    """Three ladders: random points, TPE and a Gaussian process over all rungs, each with its own competition.

    A function of the space, the seed, the number asked for and the trials as they stand; what is kept in between only saves time.
    `rungs` are the epochs below `max_epochs` at which trials wait, in ascending order; there may be none.
    """

    remembers = False

    def __init__(
        self,
        space: SearchSpace,
        direction: Direction,
        seed: int,
        rungs: tuple[int, ...],
        max_epochs: int,
        *,
        tuning: Tuning | None = None,
    ) -> None:
        self._cube, self._direction, self._seed, self._tuning = Cube(space), direction, seed, tuning
        self._rungs = (*(rung for rung in rungs if rung < max_epochs), max_epochs)
        self._forget()

    def suggest(self, number: int, trials: Sequence[Trial]) -> Params:
        """Parameters for trial `number`, given those before it."""
        self._bring_up_to_date(trials)
        return self._cube.params(self._ladders.point(number, self._random))

    def prepare(self, trials: Sequence[Trial]) -> None:
        """Take in the trials as they stand, and fit the model again if that is due."""
        self._bring_up_to_date(trials)
        self._ladders.prepare()

    def ladder(self, number: int, trials: Sequence[Trial]) -> str:
        """The ladder in which trial `number` competes when `suggest` makes its parameters: random, tpe or gp."""
        self._bring_up_to_date(trials)
        return self._ladders.ladder(number).value

    def choose(self, paused: Sequence[int], trials: Sequence[Trial], turn: int) -> int:
        """The one of `paused`, which wait at one rung of one ladder, that goes on; `turn` counts the promotions so far."""
        self._bring_up_to_date(trials)
        numbers = sorted(paused)
        return numbers[self._ladders.promoted(np.array(numbers, dtype=np.int64), turn)]

    def history(self, trials: Sequence[Trial]) -> History:
        """What its models are fitted to: the values of `trials` at the rungs, the last of which is `max_epochs`."""
        self._bring_up_to_date(trials)
        return self._history

    def _forget(self) -> None:
        self._history = History(self._cube.size, len(self._rungs))
        self._ladders = Ladders(self._cube, self._history, self._seed, self._tuning)
        self._trials: list[Trial] = []
        self._open: dict[int, int] = {}  # trials that may still change -> measurements taken
        self._paused: set[int] = set()
        self._random = 0

    def _bring_up_to_date(self, trials: Sequence[Trial]) -> None:
        if self._is_another(trials):
            self._forget()
        for trial in trials[len(self._trials) :]:
            self._trials.append(trial)
            self._open[self._history.append(self._cube.coordinates(trial.params))] = 0
            self._random += trial.ladder not in (Ladder.TPE, Ladder.GP)
        for row, taken in list(self._open.items()):
            trial = self._trials[row]
            if len(trial.measurements) != taken or trial.state is not State.PAUSED or row not in self._paused:
                self._take(row, trial)

    def _is_another(self, trials: Sequence[Trial]) -> bool:
        """Whether this is not the history that was seen last, grown."""
        if len(trials) < len(self._trials) or any(map(is_not, self._trials, trials)):
            return True
        return any(len(self._trials[row].measurements) < taken for row, taken in self._open.items())

    def _take(self, row: int, trial: Trial) -> None:
        """The entries of what the trial measured since it was looked at, and of its end."""
        history, taken = self._history, self._open[row]
        for k, epoch in enumerate(self._rungs):
            if taken < epoch <= len(trial.measurements):
                history.enter(row, Entry(k, -self._direction.loss(trial.measurements[epoch - 1].value), trial.arrived[epoch - 1]))
        if trial.arrived:
            history.latest = max(history.latest, trial.arrived[-1])
        self._open[row] = len(trial.measurements)
        history.set_running(row, trial.state is State.RUNNING)
        (self._paused.add if trial.state is State.PAUSED else self._paused.discard)(row)
        if trial.state.finished:
            self._take_end(row, trial)
            del self._open[row]

    def _take_end(self, row: int, trial: Trial) -> None:
        """A failure is the worst entry at the next rung; one that ended by itself keeps its best value at those it did not come to."""
        later = [k for k, epoch in enumerate(self._rungs) if epoch > len(trial.measurements)]
        order = trial.ended_at if trial.ended_at is not None else (trial.arrived[-1] if trial.arrived else 0)
        best = trial.best(self._direction)
        if trial.state is State.FAILED and later:
            self._history.enter(row, Entry(later[0], math.nan, order))
        elif trial.state is State.COMPLETE and best is not None:
            for k in later:
                self._history.enter(row, Entry(k, -self._direction.loss(best.value), order))
