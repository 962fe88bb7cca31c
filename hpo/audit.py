"""What pruning cost: the few that were trained to their end although they were outside the best stand for all that were. Pure.

A trial is outside where it arrives at a rung and is not among its best 1/eta: there it ends or waits, unless the coin of its
seed and the rung has it audited. So the audited of a rung are a random sample of those outside there, and what became of them
says what would have become of the others.

A stop is false if the trial would have ended better (its best value over all its epochs) than the median of those that
competed and were trained to their end. Rungs that tell nothing make about half of all stops false, perfect ones next to
none. A trial that diverges behind the rung would not have; one that the end of the study cut off tells nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hpo.estimates import Correlation, rank_correlation, share_interval
from hpo.events import Audited, Event, Finished, Paused
from hpo.history import History
from hpo.rules import Rules
from hpo.space import Value
from hpo.trial import Course, State, Trial

OWN_FAULT = ("metric", "error")  # failures that another worker would have met, too
MOST_UNKNOWN = 0.1  # of those outside, for a correlation: at rungs where no audited trial is known to stand for them


@dataclass(frozen=True, slots=True)
class Outside:
    """A trial that was not among the best of a rung when it arrived there, and whether it was audited."""

    trial: int
    epoch: int
    audited: bool


@dataclass(frozen=True, slots=True)
class Stops:
    """How many were `outside`, how many of them are `known` by their audit, and how many of these would have been `false` stops.

    `rate` estimates the share of false ones among all outside, with its 95 % interval from `low` to `high`; None if none is known.
    """

    outside: int
    known: int
    false: int
    rate: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class RungAudit:
    """The stops at the rung after `epoch` epochs, and how the order there agrees with the order at the end."""

    epoch: int
    stops: Stops
    correlation: Correlation | None


@dataclass(frozen=True, slots=True)
class Audit:
    """What is known about a study's stops.

    `reference` is the value that a false stop would have exceeded (None: no trial that competed was trained to its end);
    `cut_off` counts the audited that are not known, yet or for good; `beat_winner` those that ended better than the best of
    all that were not audited. `epochs` is what the audit cost, `share` its part of all epochs.
    """

    chance: float
    reference: float | None
    stops: Stops
    cut_off: int
    beat_winner: int
    epochs: int
    share: float
    rungs: tuple[RungAudit, ...]


def outside(events: Iterable[Event]) -> list[Outside]:
    """All that were not among the best where they arrived at a rung, in the order in which they did.

    Under promotion a trial may go on from there later, and be outside again at the next rung.
    """
    found = []
    for event in events:
        match event:
            case Audited(trial, epoch):
                found.append(Outside(trial, epoch, audited=True))
            case Paused(trial, epoch, detail) if _is_outside(detail):
                found.append(Outside(trial, epoch, audited=False))
            case Finished(trial, rule="asha", detail=detail) if "rung" in detail:
                found.append(Outside(trial, int(detail["rung"]), audited=False))
            case _:
                pass
    return found


def _is_outside(detail: Mapping[str, Value]) -> bool:
    """Whether a trial that waits would have ended under the stopping form. `Study.consequence` wrote the detail."""
    if not detail:
        return False
    rank, quota, value = (float(detail[name]) for name in ("rank", "quota", "value"))
    return rank > quota or not math.isfinite(value)


def audit(rules: Rules, events: Iterable[Event]) -> Audit:
    """What a study's events tell of its stops; the rules are those that it began with."""
    events = list(events)
    history = History(rules)
    for event in events:
        history.apply(event)
    return _Ledger(history, events).audit()


class _Ledger:
    """The stops of a study beside its trials as they are by now."""

    def __init__(self, history: History, events: Sequence[Event]) -> None:
        self._history = history
        self._outside = outside(events)
        self._broken = {e.trial for e in events if isinstance(e, Finished) and e.state is State.FAILED and e.rule in OWN_FAULT}
        self._competed = [t for t in history.trials if t.course is not Course.AUDIT]
        ends = [history.loss(t) for t in self._competed if t.state is State.COMPLETE]
        self._reference = statistics.median(ends) if ends else None

    def audit(self) -> Audit:
        history, trials = self._history, self._history.trials
        audited = [trials[stop.trial] for stop in self._outside if stop.audited]
        winner = min((history.loss(t) for t in self._competed if t.state is not State.FAILED), default=math.inf)
        beaten = sum(self._is_known(t) and self._end(t) < winner for t in audited)
        epochs = sum(trials[stop.trial].epoch - stop.epoch for stop in self._outside if stop.audited)
        rungs = tuple(
            RungAudit(epoch, self._stops([stop for stop in self._outside if stop.epoch == epoch]), self._correlation(epoch))
            for epoch in history.rules.rungs
        )
        return Audit(
            chance=history.rules.audit,
            reference=None if self._reference is None else history.rules.direction.loss(self._reference),
            stops=self._stops(self._outside),
            cut_off=sum(not self._is_known(t) for t in audited),
            beat_winner=beaten,
            epochs=epochs,
            share=epochs / history.epochs if history.epochs else 0.0,
            rungs=rungs,
        )

    def _is_known(self, trial: Trial) -> bool:
        """Whether it is known how good the trial is at its end."""
        return trial.state is State.COMPLETE or trial.number in self._broken

    def _end(self, trial: Trial) -> float:
        """Its loss at its end; infinity where it broke."""
        return math.inf if trial.number in self._broken else self._history.loss(trial)

    def _stops(self, outside: Sequence[Outside]) -> Stops:
        trials = self._history.trials
        ends = [self._end(trials[stop.trial]) for stop in outside if stop.audited and self._is_known(trials[stop.trial])]
        if not ends or self._reference is None:
            return Stops(len(outside), len(ends), 0, None, 0.0, 1.0)
        false = sum(end < self._reference for end in ends)
        return Stops(len(outside), len(ends), false, false / len(ends), *share_interval(false, len(ends), len(outside)))

    def _correlation(self, epoch: int) -> Correlation | None:
        """How the order at a rung agrees with the order at the end, among all that came to the rung.

        Those that were never outside are known by themselves. The others would be a selection: of those that went on in spite
        of it (promoted late) none is taken, and the audited, a random sample, stand for all that were outside where they were.
        None while there are more than a few for whom nobody stands.
        """
        rules, trials = self._history.rules, self._history.trials
        first: dict[int, Outside] = {}  # where each trial was first outside, here or behind
        before: set[int] = set()  # those that were audited from an earlier rung, and do not compete here
        for stop in self._outside:
            if stop.epoch >= epoch:
                first.setdefault(stop.trial, stop)
            elif stop.audited:
                before.add(stop.trial)
        weight = {rung: self._weight(rung) for rung in rules.rungs}
        if sum(not weight[stop.epoch] for stop in first.values()) > MOST_UNKNOWN * len(first):
            return None
        pairs, weights = [], []
        for trial in trials:
            here, skips = first.get(trial.number), epoch not in rules.rungs[rules.bracket(trial.seed) :]
            if trial.epoch < epoch or skips or trial.number in before or not self._is_known(trial) or (here and not here.audited):
                continue
            pairs.append((rules.direction.loss(trial.measurements[epoch - 1].value), self._end(trial)))
            weights.append(weight[here.epoch] if here else 1.0)
        return rank_correlation(pairs, weights)

    def _weight(self, epoch: int) -> float:
        """For how many an audited trial of that rung stands."""
        here = [stop for stop in self._outside if stop.epoch == epoch]
        known = sum(stop.audited and self._is_known(self._history.trials[stop.trial]) for stop in here)
        return len(here) / known if known else 0.0
