"""Why a trial was asked for, went on and ended, from the journal alone. Reads, decides nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from hpo import objects, places
from hpo.events import Asked, Audited, Event, Finished, Measured, Paused, Promoted, Resumed, Retried
from hpo.history import History
from hpo.home import HomeError
from hpo.objects import ObjectPath
from hpo.places import Place
from hpo.results import StoredStudy
from hpo.space import Params
from hpo.specified import rules_of
from hpo.trial import Course, State, Trial, key_of, name_of
from hpo.trial_files import trial_folder
from hpo.trust import doubted, of_storage

STOPPED_AT_A_RUNG = {"asha": "stopped", "paused": "waited"}  # what its last rung came to, by the rule that ended the trial


@dataclass(frozen=True, slots=True)
class Rung:
    """How a trial compared with those that had arrived at `epoch` before it.

    The best `quota` go on, down to `cutoff`; None: so many had diverged that any value went on, or under promotion they are too
    few for one to go on. `outcome` says in words what came of it: went on, stopped, waits, waited, promoted (after it had
    waited) or audited.
    """

    epoch: int
    value: float
    rank: int
    arrivals: int
    quota: int
    cutoff: float | None
    went_on: bool
    outcome: str = "went on"


@dataclass(frozen=True, slots=True)
class Attempt:
    """A worker's work on a trial, after `epoch` epochs; `why` says what ended the attempt before."""

    number: int
    lease: int
    after_epoch: int
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known about one trial; `sentence` says why it ended or where it waits, `known` what the sampler knew when it was asked for.

    `ladder` is the one that chose it and that it competes in (empty: there is one for all); `course` says whether it competes, was
    trained to its end for a finished model, or was audited.
    """

    study: str
    trial: int
    state: State
    sentence: str
    rule: str
    params: Params
    seed: int
    sampler: str
    ladder: str
    course: Course
    known: str
    epochs: int
    best_value: float | None
    best_epoch: int | None
    asked_at: datetime
    ended_at: datetime | None
    rungs: list[Rung] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    logs: list[Place] = field(default_factory=list)


def numbered(study: StoredStudy, key: str) -> int:
    """The number of the trial that people write as `key` (`17`, or `final-3` of the finals); HomeError if there is none."""
    found = next((t.number for t in (*study.trials, *study.study.finals) if key_of(t.number) == key), None)
    if found is None:
        last, finals = len(study.trials) - 1, len(study.study.finals)
        has = f"; it has 0 to {last}" if last >= 0 else ": it has none yet"
        raise HomeError(f"study {study.name} has no trial {key}{has}" + (f" and final-0 to final-{finals - 1}" if finals else ""))
    return found


def explain(study: StoredStudy, number: int) -> Explanation:
    """All about trial `number`, one of the search's or of the finals'."""
    story = _Story(study, number)
    trial = study.study.trial(number)
    best = trial.best(study.spec.objective.direction)
    return Explanation(
        study=study.name,
        trial=number,
        state=trial.state,
        sentence=study.waits(trial) or _sentence(story.end, trial.state, trial.epoch, study.state),
        rule=story.end.rule if story.end else "",
        params=trial.params,
        seed=trial.seed,
        sampler=study.spec.sampler.name if trial.replicates is None else f"the finals: {name_of(trial.replicates)} again",
        ladder=trial.ladder,
        course=trial.course,
        known=story.known,
        epochs=trial.epoch,
        best_value=best.value if best else None,
        best_epoch=best.epoch if best else None,
        asked_at=story.asked_at,
        ended_at=story.ended_at,
        rungs=story.rungs,
        attempts=story.attempts,
        logs=_logs(study, number),
    )


def _logs(study: StoredStudy, number: int) -> list[Place]:
    """A trial's logs, those in an object store fetched to the study's folder; what cannot be fetched is named where it is."""
    here, there = trial_folder(study.folder, number), trial_folder(study.root, number)
    found: set[Place] = set(here.glob("*.log"))
    if doubted(of_storage(study.root)):  # only a stranger's journal names it
        found.add(there)
    elif isinstance(there, ObjectPath):
        try:
            with objects.briefly():
                found.update(_fetched(there, here))
        except OSError:
            found.add(there)
    else:
        found.update(there.glob("*.log"))
    return sorted(found, key=str)


def _fetched(there: ObjectPath, here: Path) -> list[Path]:
    logs = [name for name in places.names(there) if name.endswith(".log")]
    for name in logs:
        content = objects.read(there / name)
        here.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(content)
    return [here / name for name in logs]


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
        self._study = History(rules_of(study.spec))
        for record in study.records:
            self._fold(record.event, record.at, record.lease)
            self._study.apply(record.event)

    def _fold(self, event: Event, at: datetime, lease: int) -> None:
        match event:
            case Asked(trial) if trial == self._number:
                self.asked_at = at
                self.known = _counted(self._study.trials)
                self.attempts.append(Attempt(1, lease, 0, ""))
            case Measured(trial, epoch, value) if trial == self._number:
                self._judge(epoch, value)
            case Paused(trial) if trial == self._number:
                self._turn("waits", went_on=False)
            case Audited(trial) if trial == self._number:
                self._turn("audited", went_on=False)
            case Promoted(trial, epoch, course) if trial == self._number:
                self._turn("promoted", went_on=True)
                attempt = self._study.trial(trial).attempts + 1
                why = "promoted" if course is Course.COMPETES else "the best that waited, trained to its end to have a finished model"
                self.attempts.append(Attempt(attempt, lease, epoch, why))
            case Retried(trial, attempt, reason) if trial == self._number:
                self.attempts.append(Attempt(attempt, lease, self._study.trial(trial).epoch, reason))
            case Finished(trial) if trial == self._number:
                self.end, self.ended_at = event, at
                if event.rule in STOPPED_AT_A_RUNG:
                    self._turn(STOPPED_AT_A_RUNG[event.rule], went_on=False)
            case Resumed() if self.attempts and self._study.trial(self._number).state is State.RUNNING:
                trial_so_far = self._study.trial(self._number)
                self.attempts.append(Attempt(trial_so_far.attempts, lease, trial_so_far.epoch, "the study's process was gone"))
            case _:
                pass

    def _turn(self, outcome: str, *, went_on: bool) -> None:
        self.rungs[-1:] = [replace(rung, went_on=went_on, outcome=outcome) for rung in self.rungs[-1:]]

    def _judge(self, epoch: int, value: float) -> None:
        direction, trial = self._study.rules.direction, self._study.trial(self._number)
        verdict = self._study.verdict(trial.number, epoch, direction.loss(value)) if trial.course is Course.COMPETES else None
        if verdict is not None:
            rules = self._study.rules
            quota = verdict.arrivals // (rules.reduction_factor or 1) if rules.promotes else verdict.quota
            cutoff = direction.loss(verdict.cutoff) if quota and math.isfinite(verdict.cutoff) else None
            self.rungs.append(Rung(epoch, value, verdict.rank, verdict.arrivals, quota, cutoff, went_on=True))


def _counted(trials: list[Trial]) -> str:
    paused = sum(trial.state is State.PAUSED for trial in trials)
    finished = sum(trial.state.finished for trial in trials)
    running = f"{finished} finished and {len(trials) - finished - paused} running trials"
    return running + (f", {paused} waiting" if paused else "")


def _sentence(end: Finished | None, state: State, epochs: int, study_state: str) -> str:
    if end is None:
        return f"{state} after {epochs} epochs" if study_state == "running" else f"not ended: cut off after {epochs} epochs, to be resumed"
    if end.rule != "asha":
        return f"{state} after {epochs} epochs: {end.reason}"
    rung, value, cutoff, arrivals = (end.detail[name] for name in ("rung", "value", "cutoff", "arrivals"))
    return f"stopped at epoch {rung}: {value:.6g} against a cutoff of {cutoff:.6g} among {arrivals} trials"
