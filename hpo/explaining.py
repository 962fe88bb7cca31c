"""Why a trial was asked for, went on and ended, from the journal alone. Reads, decides nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from hpo.events import Asked, Event, Finished, Measured, Resumed, Retried
from hpo.home import HomeError
from hpo.results import StoredStudy
from hpo.session import rules_of
from hpo.space import Params
from hpo.study import NoFurther, Study
from hpo.trial import State
from hpo.trial_files import trial_folder


@dataclass(frozen=True, slots=True)
class Rung:
    """How a trial compared with those that had arrived at `epoch` before it.

    The best `quota` go on, down to `cutoff`; None: so many had diverged that any value went on.
    """

    epoch: int
    value: float
    rank: int
    arrivals: int
    quota: int
    cutoff: float | None
    went_on: bool


@dataclass(frozen=True, slots=True)
class Attempt:
    """A worker's work on a trial, after `epoch` epochs; `why` says what ended the attempt before."""

    number: int
    lease: int
    after_epoch: int
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known about one trial; `sentence` says why it ended, `known` what the sampler knew when it was asked for."""

    study: str
    trial: int
    state: State
    sentence: str
    rule: str
    params: Params
    seed: int
    sampler: str
    known: str
    epochs: int
    best_value: float | None
    best_epoch: int | None
    asked_at: datetime
    ended_at: datetime | None
    rungs: list[Rung] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    logs: list[Path] = field(default_factory=list)


def explain(study: StoredStudy, number: int) -> Explanation:
    """All about trial `number`; HomeError if there is no such trial."""
    if not 0 <= number < len(study.trials):
        last = len(study.trials) - 1
        raise HomeError(f"study {study.name} has no trial {number}" + (f"; it has 0 to {last}" if last >= 0 else ": it has none yet"))
    story = _Story(study, number)
    trial, best = study.trials[number], study.trials[number].best(study.spec.objective.direction)
    return Explanation(
        study=study.name,
        trial=number,
        state=trial.state,
        sentence=_sentence(story.end, trial.state, trial.epoch, study.state),
        rule=story.end.rule if story.end else "",
        params=trial.params,
        seed=trial.seed,
        sampler=study.spec.sampler.name,
        known=story.known,
        epochs=trial.epoch,
        best_value=best.value if best else None,
        best_epoch=best.epoch if best else None,
        asked_at=story.asked_at,
        ended_at=story.ended_at,
        rungs=story.rungs,
        attempts=story.attempts,
        logs=sorted(trial_folder(study.folder, number).glob("*.log")),
    )


class _Story:
    """One trial's part of a journal, beside the study as it stood then."""

    def __init__(self, study: StoredStudy, number: int) -> None:
        self.rungs: list[Rung] = []
        self.attempts: list[Attempt] = []
        self.end: Finished | None = None
        self.known = ""
        self.asked_at = study.records[0].at
        self.ended_at: datetime | None = None
        self._number = number
        self._study = Study(rules_of(study.spec), NoFurther())
        for record in study.records:
            self._fold(record.event, record.at, record.lease)
            self._study.apply(record.event)

    def _fold(self, event: Event, at: datetime, lease: int) -> None:
        match event:
            case Asked(trial) if trial == self._number:
                self.asked_at = at
                finished = sum(other.state.finished for other in self._study.trials)
                self.known = f"{finished} finished and {len(self._study.trials) - finished} running trials"
                self.attempts.append(Attempt(1, lease, 0, ""))
            case Measured(trial, epoch, value) if trial == self._number:
                self._judge(epoch, value)
            case Retried(trial, attempt, reason) if trial == self._number:
                self.attempts.append(Attempt(attempt, lease, self._study.trials[trial].epoch, reason))
            case Finished(trial) if trial == self._number:
                self.end, self.ended_at = event, at
                if event.rule == "asha" and self.rungs:
                    self.rungs[-1] = replace(self.rungs[-1], went_on=False)
            case Resumed() if self.attempts and self.end is None:
                trial_so_far = self._study.trials[self._number]
                self.attempts.append(Attempt(trial_so_far.attempts, lease, trial_so_far.epoch, "the study's process was gone"))
            case _:
                pass

    def _judge(self, epoch: int, value: float) -> None:
        direction = self._study.rules.direction
        verdict = self._study.verdict(epoch, direction.loss(value))
        if verdict is not None:
            cutoff = direction.loss(verdict.cutoff) if math.isfinite(verdict.cutoff) else None
            self.rungs.append(Rung(epoch, value, verdict.rank, verdict.arrivals, verdict.quota, cutoff, went_on=True))


def _sentence(end: Finished | None, state: State, epochs: int, study_state: str) -> str:
    if end is None:
        return f"{state} after {epochs} epochs" if study_state == "running" else f"not ended: cut off after {epochs} epochs, to be resumed"
    if end.rule != "asha":
        return f"{state} after {epochs} epochs: {end.reason}"
    rung, value, cutoff, arrivals = (end.detail[name] for name in ("rung", "value", "cutoff", "arrivals"))
    return f"stopped at epoch {rung}: {value:.6g} against a cutoff of {cutoff:.6g} among {arrivals} trials"
