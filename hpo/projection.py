"""What MLflow must show of a study: folds the journal's records into runs. Pure: no clock, no network, no mlflow.

All of it follows from the journal alone (a point's timestamp is its line's), so sending it again changes nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any, assert_never

from hpo.events import (
    Asked,
    Audited,
    Chosen,
    Created,
    Ended,
    Finished,
    Measured,
    Nominated,
    OfTrial,
    Paused,
    Promoted,
    Resumed,
    Retried,
    Tested,
    Unsealed,
)
from hpo.journal_format import Record
from hpo.mlflow_note import Outcome, note
from hpo.mlflow_runs import COLOUR_OF, COLOUR_OF_FINALS, COLOUR_TAG, NOTE_TAG, STATUS_AFTER, STATUS_OF, STUDY, Point, Run, Status
from hpo.mlflow_words import safe_name, sections, text
from hpo.trial import Course, Direction, key_of, name_of


class Projection:
    """A study's runs by key, the parent first, as its records so far have made them."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.spec: Mapping[str, Any] = {}
        self.study_id = ""
        self.storage: str | None = None  # the study's own folder in it, where its checkpoints are not with the journal
        self.seq = 0
        self.ended: Ended | None = None
        self.chosen: Chosen | None = None
        self._tested: dict[int, Tested] = {}
        self.direction = Direction.MAXIMIZE
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
        """The runs of the trials, those of the finals among them; the parent is left out."""
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
            case Asked() | Measured() | Paused() | Promoted() | Audited() | Retried() | Finished():
                self._apply_to_trial(event, at_ms)
            case Created():
                self._open_study(record, event, at_ms)
            case Resumed():
                self._go_on(record, event, at_ms)
            case Nominated(trials=trials, seeds=seeds):
                self.runs[STUDY].tags["hpo.finals"] = text(f"trials {', '.join(map(str, trials))}, {seeds} seeds each")
            case Chosen():
                self._choose(event, at_ms)
            case Unsealed(trial, forced):
                self.runs[STUDY].tags["hpo.test_split"] = f"opened for {name_of(trial)}" + (", by force, again" if forced else "")
            case Tested():
                self._test(event, at_ms)
            case Ended(reason, best):
                self.ended = event
                self.interrupt(at_ms, conclude=True)
                self._end_study(reason, best, at_ms)
            case _:
                assert_never(event)

    def _apply_to_trial(self, event: OfTrial, at_ms: int) -> None:
        match event:
            case Asked():
                self._open_trial(event, at_ms)
            case Measured(trial):
                self._measure(self._running(trial, at_ms), event, at_ms)
            case Paused(trial):
                run = self._running(trial, at_ms)
                run.stand("paused")
                self._tell(run, at_ms)
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
                run.offer(COLOUR_TAG, COLOUR_OF[state] if run.of_search else COLOUR_OF_FINALS)
                run.tags |= {"hpo.rule": rule, "hpo.reason": text(reason)}
                run.tags |= {f"hpo.detail.{name}": text(value) for name, value in detail.items()}
                self._conclude(run, at_ms)
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
        self.metric, self.direction = event.spec["objective"]["metric"], Direction(event.spec["objective"]["direction"])
        self.study_id = study_id(record, event)
        self.storage = event.storage
        tags = {f"hpo.version.{name}": version for name, version in event.versions.items()} | {"hpo.state": "running"}
        tags |= {"mlflow.source.name": text(event.spec["trainer"]["name"]), "mlflow.source.type": "LOCAL"}
        if event.git_commit:
            tags["mlflow.source.git.commit"] = event.git_commit
        if event.owner:
            tags |= {"mlflow.user": text(event.owner), "hpo.owner": text(event.owner)}
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
        tags |= {"hpo.replicates": key_of(event.replicates)} if event.replicates is not None else {}
        name = f"{self.runs[STUDY].name}-{key_of(event.trial):0>4}"
        self.runs[key_of(event.trial)] = Run(key_of(event.trial), name, at_ms, params, tags, arguments)

    def _choose(self, event: Chosen, at_ms: int) -> None:
        """What the choice rests on, with the study's run and the champion's: numbers as metrics, the rest as tags."""
        self.chosen = event
        for run in (self.runs[STUDY], self.runs[key_of(event.champion)]):
            run.tags["hpo.winner"] = key_of(event.winner)
            for name, value in event.detail.items():
                if isinstance(value, float) and math.isfinite(value):
                    run.points.append(Point(safe_name(f"final_{name}"), value, 0, at_ms))
                else:
                    run.tags[f"hpo.final.{name}"] = text(value)

    def _test(self, event: Tested, at_ms: int) -> None:
        self._tested[event.trial] = event
        for run in (self.runs[STUDY], self.runs[key_of(event.trial)]):
            run.tags |= {"hpo.test_split": text(f"no scores: {event.note}")} if event.note else {}
            for name, estimate in event.scores.items():
                for suffix, value in zip(("", "_low", "_high"), estimate, strict=False):
                    run.points.append(Point(safe_name(f"{name}{suffix}"), value, 0, at_ms))

    def _running(self, trial: int, at_ms: int) -> Run:
        run = self.runs[key_of(trial)]
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
        if run.best is None or self.direction.loss(event.value) < self.direction.loss(run.best.value):
            run.best = event

    def _conclude(self, run: Run, at_ms: int) -> None:
        """Final values, at its end."""
        self._tell(run, at_ms)
        run.tell("seconds", run.seconds, run.epochs, at_ms)
        if run.last:
            run.tell(safe_name(f"last_{self.metric}"), run.last.value, run.last.epoch, at_ms)

    def _tell(self, run: Run, at_ms: int) -> None:
        """How far it came, so that trials can be sorted by it; one that waits may do so to the study's end."""
        run.tell("epochs", run.epochs, run.epochs, at_ms)
        if run.best:
            run.tell(safe_name(f"best_{self.metric}"), run.best.value, run.best.epoch, at_ms)

    def _end_study(self, reason: str, best: int | None, at_ms: int) -> None:
        parent, trials = self.runs[STUDY], [run for run in self.trials if run.of_search]
        finals = [run for run in self.trials if not run.of_search]
        parent.turn(STATUS_AFTER.get(reason, Status.FINISHED), reason, at_ms)
        totals = {state.value: sum(run.state == state.value for run in trials) for state in STATUS_OF}
        totals |= {"trials": len(trials), "total_epochs": sum(run.epochs for run in trials)}  # `epochs` is a trial's: one scale each
        totals |= {"finals": len(finals), "finals_epochs": sum(run.epochs for run in finals)} if finals else {}
        parent.points += [Point(name, total, 0, at_ms) for name, total in totals.items()]
        model = self.runs[key_of(best)] if best is not None else None
        if model and model.best:
            parent.tags["hpo.best_trial"] = model.key
            parent.points.append(Point(safe_name(f"best_{self.metric}"), model.best.value, 0, at_ms))
        chosen = self.chosen if self.chosen and self.chosen.champion == best else None  # else of finals before the search went on
        tested = self._tested.get(best) if best is not None else None
        parent.offer(NOTE_TAG, text(note(Outcome(reason, self.metric, trials, finals, model, chosen, tested))))


def study_id(record: Record, event: Created) -> str:
    """What tells a study from all others, by the first line of its journal and what that says."""
    return hashlib.blake2b(f"{event.study} {record.at.isoformat()}".encode(), digest_size=8).hexdigest()


def milliseconds(record: Record) -> int:
    """When a record was written, as MLflow counts time."""
    return round(record.at.timestamp() * 1000)
