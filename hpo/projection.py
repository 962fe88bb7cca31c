"""What MLflow must show of a study: folds the journal's records into runs. Pure: no clock, no network, no mlflow.

All of it follows from the journal alone (a point's timestamp is its line's), so sending it again changes nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, assert_never

from hpo.events import Asked, Audited, Created, Ended, Finished, Measured, Paused, Promoted, Resumed, Retried
from hpo.journal_format import Record
from hpo.mlflow_words import safe_name, sections, text
from hpo.space import Params
from hpo.trial import Course, Direction, State

STUDY = "study"  # the key of the parent run; a trial's is its number
CHAMPION_TAG = "hpo.champion"  # "name/version", of the parent and of the trials that were; or why the parent has none


class Status(StrEnum):
    """A run's status in MLflow's words; a pruned or interrupted trial is KILLED."""

    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    KILLED = "KILLED"
    FAILED = "FAILED"


STATUS_OF = {State.COMPLETE: Status.FINISHED, State.PRUNED: Status.KILLED, State.FAILED: Status.FAILED}
STATUS_AFTER = {"interrupted": Status.KILLED, "error": Status.FAILED}


class Point(NamedTuple):
    """One value of one metric; `at_ms` since the epoch belongs to its identity in MLflow."""

    name: str
    value: float
    step: int
    at_ms: int


@dataclass(slots=True)
class Run:
    """One run as it must be; params, tags and points are what was not sent yet, `shown` and `shown_ms` the end that was.

    `creates` counts how often it was asked for: more than once, and a late answer to the first may make it twice.
    `refusals` counts how often the store would not take the next of it.
    """

    key: str
    name: str
    started_ms: int
    params: dict[str, str]
    tags: dict[str, str]
    arguments: Params = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    status: Status = Status.RUNNING
    ended_ms: int = 0
    run_id: str = ""
    state: str = "running"
    shown: Status = Status.RUNNING
    shown_ms: int = 0
    creates: int = 0
    refusals: int = 0
    best: Measured | None = None
    last: Measured | None = None
    seconds: float = 0.0
    attempt: int = 1

    def again(self, attempt: int, course: Course | None = None) -> None:
        """It was given out once more, to go on as before or on another course."""
        self.attempt, self.tags["hpo.attempt"] = attempt, str(attempt)
        self.tags |= {"hpo.course": course.value} if course else {}

    def turn(self, status: Status, state: str, at_ms: int) -> None:
        """Give it another status from `at_ms` on."""
        self.status, self.ended_ms = status, at_ms
        self.stand(state)

    def stand(self, state: str) -> None:
        """Say how it stands."""
        self.state = self.tags["hpo.state"] = state

    @property
    def is_trusted(self) -> bool:
        """Whether a run that is seen closed like this can lack nothing: its status is sent last, and nothing follows."""
        return self.state in STATUS_OF and self.key != STUDY

    @property
    def end_is_shown(self) -> bool:
        """Whether its status, and when it ended, were sent. A run that was opened again may end with the status it had."""
        return self.status is self.shown and (self.status is Status.RUNNING or self.ended_ms == self.shown_ms)

    @property
    def behind(self) -> int:
        """How much of it was not sent yet; 0 when the store has it all."""
        return len(self.params) + len(self.tags) + len(self.points) + (not self.run_id) + (not self.end_is_shown)


class Projection:
    """A study's runs by key, the parent first, as its records so far have made them."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.spec: Mapping[str, Any] = {}
        self.study_id = ""
        self.seq = 0
        self.ended: Ended | None = None
        self._direction = Direction.MAXIMIZE
        self.metric = ""

    @property
    def behind(self) -> int:
        """How much was not sent yet."""
        return sum(run.behind for run in self.runs.values())

    @property
    def uri(self) -> str | None:
        """The address of the MLflow that the spec names."""
        return (self.spec.get("tracking") or {}).get("uri")

    @property
    def experiment(self) -> str:
        """The name of the experiment that holds the runs."""
        return str((self.spec.get("tracking") or {}).get("experiment") or self.runs[STUDY].name)

    @property
    def model(self) -> str:
        """The name that the best trial's model is registered under."""
        return str((self.spec.get("tracking") or {}).get("registered_model") or self.runs[STUDY].name)

    @property
    def trials(self) -> list[Run]:
        """The runs of the trials, the parent left out."""
        return [run for run in self.runs.values() if run.key != STUDY]

    def apply(self, record: Record) -> None:
        """Fold one record; they come in the journal's order."""
        at_ms = milliseconds(record)
        event = record.event
        self.seq = record.seq
        if self.ended is not None and not isinstance(event, Ended):  # the study goes on
            self.ended = None
            self.runs[STUDY].turn(Status.RUNNING, "running", at_ms)
        match event:
            case Created():
                self._open_study(record, event, at_ms)
            case Asked():
                self._open_trial(event, at_ms)
            case Measured(trial):
                self._measure(self._running(trial, at_ms), event, at_ms)
            case Paused(trial):
                self._running(trial, at_ms).stand("paused")
            case Promoted(trial, course=course):
                run = self._running(trial, at_ms)
                run.stand("running")
                run.again(run.attempt + 1, course)
            case Audited(trial):
                self._running(trial, at_ms).tags["hpo.course"] = Course.AUDIT.value
            case Retried(trial, attempt):
                self._running(trial, at_ms).again(attempt)
            case Finished(trial, state, rule, reason, detail):
                run = self._running(trial, at_ms)
                run.turn(STATUS_OF[state], state.value, at_ms)
                run.tags |= {"hpo.rule": rule, "hpo.reason": text(reason)}
                run.tags |= {f"hpo.detail.{name}": text(value) for name, value in detail.items()}
                self._conclude(run, at_ms)
            case Resumed():
                self._go_on(record, event, at_ms)
            case Ended(reason, best):
                self.ended = event
                self.interrupt(at_ms, conclude=True)
                self._end_study(reason, best, at_ms)
            case _:
                assert_never(event)

    def interrupt(self, at_ms: int, *, conclude: bool = False) -> None:
        """Nothing more comes: trials that still run are shown as interrupted, with final values if that is in the journal."""
        for run in self.runs.values():
            if run.status is Status.RUNNING:
                run.turn(Status.KILLED, "interrupted", at_ms)
                if conclude and run.key != STUDY:
                    self._conclude(run, at_ms)

    def _open_study(self, record: Record, event: Created, at_ms: int) -> None:
        self.spec = event.spec
        self.metric, self._direction = event.spec["objective"]["metric"], Direction(event.spec["objective"]["direction"])
        self.study_id = hashlib.blake2b(f"{event.study} {record.at.isoformat()}".encode(), digest_size=8).hexdigest()
        tags = {f"hpo.version.{name}": version for name, version in event.versions.items()} | {"hpo.state": "running"}
        if event.git_commit:
            tags["mlflow.source.git.commit"] = event.git_commit
        self.runs[STUDY] = Run(STUDY, event.study, at_ms, dict(sections(event.spec)), tags)

    def _go_on(self, record: Record, event: Resumed, at_ms: int) -> None:
        parent = self.runs[STUDY]
        parent.turn(Status.RUNNING, "running", at_ms)
        parent.tags |= {f"hpo.version.{name}": version for name, version in event.versions.items()} | {"hpo.lease": str(record.lease)}
        changed = {"trials": event.trials, "time_s": event.time_s, "epochs": event.epochs}  # as tags: MLflow lets no parameter change
        parent.tags |= {f"hpo.budget.{name}": text(value) for name, value in changed.items() if value is not None}

    def _open_trial(self, event: Asked, at_ms: int) -> None:
        arguments = {**self.spec["trainer"].get("settings", {}), **event.params}
        params = {safe_name(name): text(value) for name, value in arguments.items()}
        tags = {"hpo.seed": str(event.seed), "hpo.attempt": "1", "hpo.state": "running"}
        tags |= {"hpo.ladder": event.ladder} if event.ladder else {}
        name = f"{self.runs[STUDY].name}-{event.trial:04d}"
        self.runs[str(event.trial)] = Run(str(event.trial), name, at_ms, params, tags, arguments)

    def _running(self, trial: int, at_ms: int) -> Run:
        run = self.runs[str(trial)]
        if run.status is not Status.RUNNING:  # it was interrupted, and goes on
            run.turn(Status.RUNNING, "running", at_ms)
        return run

    def _measure(self, run: Run, event: Measured, at_ms: int) -> None:
        for name, value in event.metrics.items():
            if math.isfinite(value):
                run.points.append(Point(safe_name(name), value, event.epoch, at_ms))
            else:  # MLflow would store infinity as 1.8e308, which no axis survives
                run.tags[safe_name(f"hpo.not_finite.{name}")] = f"{value} at epoch {event.epoch}"
        run.last, run.seconds = event, run.seconds + event.seconds
        if run.best is None or self._direction.loss(event.value) < self._direction.loss(run.best.value):
            run.best = event

    def _conclude(self, run: Run, at_ms: int) -> None:
        epochs = run.last.epoch if run.last else 0
        run.points += [Point("epochs", epochs, epochs, at_ms), Point("seconds", run.seconds, epochs, at_ms)]
        if run.best and run.last:
            run.points.append(Point(safe_name(f"best_{self.metric}"), run.best.value, run.best.epoch, at_ms))
            run.points.append(Point(safe_name(f"last_{self.metric}"), run.last.value, run.last.epoch, at_ms))

    def _end_study(self, reason: str, best: int | None, at_ms: int) -> None:
        parent, trials = self.runs[STUDY], self.trials
        parent.turn(STATUS_AFTER.get(reason, Status.FINISHED), reason, at_ms)
        totals = {state.value: sum(run.state == state.value for run in trials) for state in STATUS_OF}
        totals |= {"trials": len(trials), "epochs": sum(run.last.epoch for run in trials if run.last)}
        parent.points += [Point(name, total, 0, at_ms) for name, total in totals.items()]
        if best is not None and (winner := self.runs[str(best)].best):
            parent.tags["hpo.best_trial"] = str(best)
            parent.points.append(Point(safe_name(f"best_{self.metric}"), winner.value, 0, at_ms))


def milliseconds(record: Record) -> int:
    """When a record was written, as MLflow counts time."""
    return round(record.at.timestamp() * 1000)
