"""The trials of a search in order, none compared with another at another epoch. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from hpo.rules import Rules
from hpo.trial import State, Trial

FEWEST = 5  # trials that are called the best, at least; else a tenth of all


@dataclass(frozen=True, slots=True)
class Compared:
    """Trials at equal epochs, the best first, with the losses that they are compared by; the first `best` are about a tenth of them.

    At least twice as many are compared at `epoch`. Failed trials and those without a measurement are left out.
    """

    trials: tuple[Trial, ...]
    losses: tuple[float, ...]
    best: int
    epoch: int

    @property
    def top(self) -> tuple[Trial, ...]:
        """The best tenth."""
        return self.trials[: self.best]


def compared(rules: Rules, trials: Iterable[Trial]) -> Compared:
    """The trials of a search in order, none compared with another at another epoch.

    That is the furthest rung which at least twice as many reached as are called the best, so that half of them is chosen there and
    not by their survival. There counts the best value up to that epoch; a trial that ended by itself before is there with
    its own. The others follow, those that came further first: they were stopped, or wait, because they were worse.
    """
    sound = [t for t in trials if not t.in_finals and t.measurements and t.state is not State.FAILED]
    best = min(len(sound), max(FEWEST, math.ceil(len(sound) / 10)))
    levels = sorted({*rules.rungs, rules.max_epochs})
    at = next((e for e in reversed(levels) if sum(_reach(rules, t) >= e for t in sound) >= min(len(sound), 2 * best)), levels[0])

    def place(trial: Trial) -> tuple[int, float, int]:
        level = max((e for e in levels if e <= min(at, _reach(rules, trial))), default=0)
        losses = [rules.direction.loss(m.value) for m in trial.measurements if m.epoch <= (level or at)]
        return -level, min(losses), trial.number

    places = sorted(((place(trial), trial) for trial in sound), key=lambda one: one[0])
    return Compared(tuple(trial for _, trial in places), tuple(loss for (_, loss, _), _ in places), best, at)


def _reach(rules: Rules, trial: Trial) -> int:
    return rules.max_epochs if trial.state is State.COMPLETE else trial.epoch
