"""Makes every decision of a study again from its journal, and finds the first that comes out differently. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hpo.events import Asked, Created, Ended, Event, Finished, Measured, Resumed, Retried
from hpo.journal_format import Record
from hpo.sections import STOPPERS
from hpo.study import Rules, Sampler, Study
from hpo.trial import Measurement, trial_seed

DECIDED = (
    "asha",
    "max_epochs",
    *(name for name in STOPPERS if name != "none"),
)  # ends that follow from the history; all others came from outside


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first decision that came out differently: at journal line `seq`, about `trial` (None: the whole study)."""

    seq: int
    trial: int | None
    journaled: str
    recomputed: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many suggestions, measurements (each a decision to stop or go on) and ends were made again, up to `divergence`."""

    suggestions: int
    measurements: int
    ends: int
    divergence: Divergence | None


def replay_decisions(rules: Rules, sampler: Sampler, records: Iterable[Record]) -> Replayed:
    """Recompute all that was decided, in the order in which it was."""
    again = _Again(rules, sampler)
    for record in records:
        if found := again.differs(record):
            return again.result(found)
        again.study.apply(record.event)
    return again.result(None)


class _Again:
    def __init__(self, rules: Rules, sampler: Sampler) -> None:
        self.study = Study(rules, sampler)
        self._sampler = sampler
        self._due: Finished | None = None  # the end that the measurement before demands
        self._suggestions = self._measurements = self._ends = 0

    def result(self, divergence: Divergence | None) -> Replayed:
        return Replayed(self._suggestions, self._measurements, self._ends, divergence)

    def differs(self, record: Record) -> Divergence | None:
        """How `record` differs from what is decided here and now, if it does."""
        event, due = record.event, self._due
        self._due = None
        if due is not None or (isinstance(event, Finished) and event.rule in DECIDED):
            self._ends += 1
            return None if _same(event, due) else Divergence(record.seq, _trial(event), _words(event), _words(due))
        match event:
            case Asked(trial, params, seed):
                self._suggestions += 1
                mine = self._sampler.suggest(trial, self.study.trials)
                now = Asked(trial, dict(mine or {}), trial_seed(self.study.rules.seed, trial))
                if (dict(params), seed) != (now.params, now.seed):
                    return Divergence(record.seq, trial, _words(event), _words(now))
            case Measured(trial, epoch, value, metrics, seconds):
                self._measurements += 1
                self._due = self.study.end_after(trial, Measurement(epoch, value, metrics, seconds))
            case Ended(best=best):
                mine_best = self.study.best()
                number = None if mine_best is None else mine_best.number
                if best != number:
                    return Divergence(record.seq, best, f"trial {best} is the best", f"trial {number} is the best")
            case Created() | Retried() | Finished() | Resumed():
                pass
        return None


def _same(event: Event, due: Finished | None) -> bool:
    """Whether a trial ended as it is due; not in the same words, which another version of hpo may have chosen otherwise."""
    return due is not None and isinstance(event, Finished) and replace(event, reason="") == replace(due, reason="")


def _trial(event: Event) -> int | None:
    match event:
        case Asked(trial) | Measured(trial) | Retried(trial) | Finished(trial):
            return trial
        case _:
            return None


def _words(event: Event | None) -> str:
    match event:
        case None:
            return "it goes on"
        case Asked(trial, params, seed):
            return f"trial {trial} asked for with {dict(params)}, seed {seed}"
        case Measured(trial, epoch):
            return f"trial {trial} trained epoch {epoch}"
        case Finished(trial, state, rule, reason):
            return f"trial {trial} {state} by {rule}: {reason}"
        case _:
            return type(event).__name__.lower()
