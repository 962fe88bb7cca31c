"""Makes every decision of a study again from its journal, and finds the first that comes out differently. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from hpo.events import (
    Asked,
    Audited,
    Chosen,
    Created,
    Ended,
    Event,
    Finished,
    Measured,
    Nominated,
    Paused,
    Promoted,
    Resumed,
    Retried,
    Tested,
    Unsealed,
)
from hpo.journal_format import Record
from hpo.rules import Rules, Sampler
from hpo.sections import STOPPERS
from hpo.space import Value
from hpo.study import Study
from hpo.trial import Course, Measurement, name_of

DECIDED = (
    "asha",
    "max_epochs",
    *(name for name in STOPPERS if name != "none"),
)  # ends that follow from the history; all others came from outside


Due = Finished | Paused | Audited | None


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first decision that came out differently: at journal line `seq`, about `trial` (None: the whole study)."""

    seq: int
    trial: int | None
    journaled: str
    recomputed: str


@dataclass(frozen=True, slots=True)
class Replayed:
    """How many suggestions, promotions, measurements (each judged: does it go on?), ends and pauses were made again, up to `divergence`."""

    suggestions: int
    promotions: int
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
        self._due: Due = None  # what the measurement before demands
        self._suggestions = self._promotions = self._measurements = self._ends = 0

    def result(self, divergence: Divergence | None) -> Replayed:
        return Replayed(self._suggestions, self._promotions, self._measurements, self._ends, divergence)

    def differs(self, record: Record) -> Divergence | None:
        """How `record` differs from what is decided here and now, if it does."""
        event, due = record.event, self._due
        self._due = None
        if due is not None or isinstance(event, Paused | Audited) or (isinstance(event, Finished) and event.rule in DECIDED):
            self._ends += 1
            return None if _same(event, due) else Divergence(record.seq, _trial(event), _words(event), _words(due) if due else "it goes on")
        match event:
            case Asked() | Promoted() | Nominated() | Chosen():
                now = self._decided(event)
                if now != event:
                    return Divergence(record.seq, _trial(event), _words(event), _words(now))
            case Measured(trial, epoch, value, metrics, seconds):
                self._measurements += 1
                self._due = self.study.consequence(trial, Measurement(epoch, value, metrics, seconds))
            case Ended(best=best):
                mine_best = self.study.model()
                number = None if mine_best is None else mine_best.number
                if best != number:
                    return Divergence(record.seq, best, f"trial {best} is the best", f"trial {number} is the best")
            case Created() | Retried() | Finished() | Resumed() | Unsealed() | Tested():
                pass
        return None

    def _decided(self, event: Asked | Promoted | Nominated | Chosen) -> Event | None:
        """What the study decides here, where the journal has `event`."""
        study = self.study
        match event:
            case Asked(trial, replicates=None):
                self._suggestions += 1
                return study.promotion() or study.asked(trial)
            case Asked():
                self._suggestions += 1
                return study.asked_of_finals()
            case Promoted():
                self._promotions += 1
                return study.promotion() or study.last_promotion()
            case Nominated(reason, defaults=defaults):
                return study.nomination(reason, defaults)
            case Chosen():
                return study.choice()
            case _:
                assert_never(event)


def _same(event: Event, due: Due) -> bool:
    """Whether a trial ended or waits as it is due; not in the same words, which another version of hpo may have chosen otherwise."""
    if isinstance(event, Finished) and isinstance(due, Finished):
        return replace(event, reason="") == replace(due, reason="")
    return event == due


def _trial(event: Event) -> int | None:
    match event:
        case Asked(trial) | Measured(trial) | Paused(trial) | Promoted(trial) | Audited(trial) | Retried(trial) | Finished(trial):
            return trial
        case _:
            return None


def _words(event: Event | None) -> str:
    match event:
        case None:
            words = "nothing of the kind"
        case Asked(trial, params, seed, ladder, replicates) if replicates is not None:
            words = f"{name_of(trial)} trains {name_of(replicates)} again, with seed {seed}"
        case Nominated(trials=trials, epochs=epochs):
            words = f"trials {', '.join(map(str, trials))} go into the finals, with {epochs} epochs"
        case Chosen(winner, champion, detail):
            words = f"{name_of(winner)} won, its run {name_of(champion)} is the model: {dict(detail)}"
        case Asked(trial, params, seed, ladder):
            words = f"trial {trial} asked for with {dict(params)}, seed {seed}" + (f", ladder {ladder}" if ladder else "")
        case Measured(trial, epoch):
            words = f"{name_of(trial)} trained epoch {epoch}"
        case Paused(trial, epoch, detail):
            words = f"trial {trial} waits at epoch {epoch}{_ranked(detail)}"
        case Promoted(trial, epoch, course):
            words = f"trial {trial} goes on from epoch {epoch}" + (" to its end" if course is Course.FINISH else "")
        case Audited(trial, epoch, detail):
            words = f"trial {trial} is audited from epoch {epoch}{_ranked(detail)}"
        case Finished(trial, state, rule, reason):
            words = f"{name_of(trial)} {state} by {rule}: {reason}"
        case _:
            words = type(event).__name__.lower()
    return words


def _ranked(detail: Mapping[str, Value]) -> str:
    return f" with {detail['value']}, rank {detail['rank']} of {detail['arrivals']}" if detail else ""
