"""Makes every decision of a study again from its journal, and finds the first that comes out differently. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from hpo.events import Asked, Audited, Created, Ended, Event, Finished, Measured, Paused, Promoted, Resumed, Retried
from hpo.journal_format import Record
from hpo.rules import Rules, Sampler
from hpo.sections import STOPPERS
from hpo.space import Value
from hpo.study import Study
from hpo.trial import Course, Measurement

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
            case Asked(trial, params):
                self._suggestions += 1
                now = self.study.promotion() or self.study.asked(trial)
                if now != replace(event, params=dict(params)):
                    return Divergence(record.seq, trial, _words(event), _words(now))
            case Promoted(trial):
                self._promotions += 1
                chosen = self.study.promotion() or self.study.last_promotion()
                if chosen != event:
                    return Divergence(record.seq, trial, _words(event), _words(chosen))
            case Measured(trial, epoch, value, metrics, seconds):
                self._measurements += 1
                self._due = self.study.consequence(trial, Measurement(epoch, value, metrics, seconds))
            case Ended(best=best):
                mine_best = self.study.best()
                number = None if mine_best is None else mine_best.number
                if best != number:
                    return Divergence(record.seq, best, f"trial {best} is the best", f"trial {number} is the best")
            case Created() | Retried() | Finished() | Resumed():
                pass
        return None


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
        case Asked(trial, params, seed, ladder):
            words = f"trial {trial} asked for with {dict(params)}, seed {seed}" + (f", ladder {ladder}" if ladder else "")
        case Measured(trial, epoch):
            words = f"trial {trial} trained epoch {epoch}"
        case Paused(trial, epoch, detail):
            words = f"trial {trial} waits at epoch {epoch}{_ranked(detail)}"
        case Promoted(trial, epoch, course):
            words = f"trial {trial} goes on from epoch {epoch}" + (" to its end" if course is Course.FINISH else "")
        case Audited(trial, epoch, detail):
            words = f"trial {trial} is audited from epoch {epoch}{_ranked(detail)}"
        case Finished(trial, state, rule, reason):
            words = f"trial {trial} {state} by {rule}: {reason}"
        case _:
            words = type(event).__name__.lower()
    return words


def _ranked(detail: Mapping[str, Value]) -> str:
    return f" with {detail['value']}, rank {detail['rank']} of {detail['arrivals']}" if detail else ""
