"""Runs trials on a virtual clock over given learning curves: no processes, no waiting, the same every time.

For trying a search before a machine is spent on it, and for proving what survives the death of a driver.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import islice
from pathlib import Path
from typing import Protocol

from hpo.engine.assignment import Assignment, Failure, Report
from hpo.events import Asked, Created, Event, Measured, Promoted
from hpo.finals import SHARE
from hpo.journal import FILE_NAME, Journal
from hpo.journal_format import Record
from hpo.space import Params
from hpo.spec import Spec
from hpo.specified import rules_of, sampler_of
from hpo.stopping import watched
from hpo.study import Study
from hpo.study_with_finals import remember_nothing
from hpo.trial import Decision, Measurement, State

Curve = Callable[[Assignment, int], Measurement]
"""What an assignment's epoch (from 1) measures, and how many virtual seconds it takes. A pure function."""

Values = Callable[[Params, int], Sequence[float]]
"""The objective's metric after each epoch of a trial with these parameters and this seed, in the objective's own direction."""

EpochSeconds = float | Callable[[Params], float]
"""How many virtual seconds an epoch takes: of every trial, or of one with these parameters."""


class Trials(Protocol):
    """What gives out trials and takes their reports: a session, or a study of which nothing is kept."""

    @property
    def study(self) -> Study: ...

    def next(self) -> Assignment | None: ...

    def take(self, number: int, report: Report) -> Decision: ...


@dataclass
class VirtualClock:
    """The virtual seconds of a study by its records: a trial is asked for, or goes on, when the event before it happened."""

    now: float = 0.0
    reached: dict[int, float] = field(default_factory=dict)  # trial -> when its latest epoch ended

    def note(self, event: Event) -> None:
        """Bring the clock on by one event."""
        match event:
            case Asked(trial) | Promoted(trial):
                self.reached[trial] = self.now
            case Measured(trial, seconds=seconds):
                self.now = self.reached[trial] = self.reached[trial] + seconds

    @classmethod
    def after(cls, records: Iterable[Record]) -> VirtualClock:
        """The clock as it stood at the last of `records`."""
        clock = cls()
        for record in records:
            clock.note(record.event)
        return clock


def run(
    trials: Trials,
    curve: Curve,
    slots: int,
    records: Iterable[Record] = (),
    *,
    clock: VirtualClock | None = None,
    time_limit_s: float = math.inf,
) -> str:
    """Run the trials, `slots` at a time; says why the search ended (budget or time). `records` are those it goes on from."""
    clock = clock or VirtualClock.after(records)
    due: list[tuple[float, int, Assignment, Measurement]] = []
    known = (*trials.study.trials, *trials.study.finals)
    cut_off = {trial.number for trial in known if trial.state is State.RUNNING}  # they go on where the records end

    def train(assignment: Assignment) -> None:
        measurement = curve(assignment, trials.study.trial(assignment.number).epoch + 1)
        heappush(due, (clock.reached[assignment.number] + measurement.seconds, assignment.number, assignment, measurement))

    def fill() -> None:
        while len(due) < slots and (assignment := trials.next()) is not None:
            if assignment.number not in cut_off:
                clock.reached[assignment.number] = clock.now
            cut_off.discard(assignment.number)
            train(assignment)

    fill()
    while due and (trials.study.nominated is not None or not trials.study.is_spent):
        if due[0][0] > time_limit_s:
            return "time"
        clock.now, number, assignment, measurement = heappop(due)
        clock.reached[number] = clock.now
        if trials.take(number, _report(measurement)) is Decision.CONTINUE:
            train(assignment)
        fill()
    return "budget"


def _report(measurement: Measurement) -> Report:
    """What a worker would make of it: no trial survives a value that is not finite."""
    if math.isfinite(measurement.value):
        return Report((measurement,))
    return Report((), failure=Failure("metric", f"the objective was {measurement.value} at epoch {measurement.epoch}"))


class Unkept:
    """A study of which nothing is kept but its trials and, perhaps, its journal: no checkpoints. It knows its trials' curves."""

    def __init__(self, study: Study, metric: str, values: Values, epoch_seconds: EpochSeconds | None) -> None:
        self.study, self.clock = study, VirtualClock()
        self._metric, self._values, self._epoch_seconds = metric, values, epoch_seconds
        self._known: dict[int, list[float]] = {}
        self._ends: dict[int, list[float]] = {}  # of each trial's epochs

    def next(self) -> Assignment | None:
        while (trial := self.study.next()) is not None and trial.epoch == len(self._known.get(trial.number, [None])):
            self._complete(trial.number)  # it waited at the rung where its curve ended
        if trial is None:
            return None
        rules = self.study.rules
        return Assignment(trial.number, trial.seed, "", trial.params, Path(), self._metric, rules.direction, rules.max_epochs)

    def curve(self, assignment: Assignment, epoch: int) -> Measurement:
        """What an epoch measures, each curve asked for once; none where a curve has no value at all."""
        number, params, cost = assignment.number, assignment.arguments, self._epoch_seconds
        if number not in self._known:
            self._known[number] = _numbers(self._values(params, assignment.seed), params, assignment.max_epochs)
            self._ends[number] = []
        found = self._known[number]
        value = found[epoch - 1] if epoch <= len(found) else math.nan
        seconds = float(cost(params) if callable(cost) else 1.0 if cost is None else cost)
        if not 0 <= seconds < math.inf:
            raise ValueError(f"epoch_seconds: found {seconds}; a finite number that is not negative is needed")
        return Measurement(epoch, value, {self._metric: value}, seconds)

    def take(self, number: int, report: Report) -> Decision:
        if report.failure:
            self.study.fail(number, report.failure.rule, report.failure.reason)
            return Decision.STOP
        self._ends[number].append(self.clock.now)
        decision = self.study.report(number, report.measurements)
        if decision is Decision.CONTINUE and self.study.trial(number).epoch == len(self._known[number]):
            self._complete(number)
            return Decision.STOP
        return decision

    def _complete(self, number: int) -> None:
        self.study.complete(number, "trainer", f"the trainer ended after {self.study.trial(number).epoch} epochs")

    def stamp(self) -> None:
        """Give every measurement the virtual second at which its epoch ended."""
        for trial in (*self.study.trials, *self.study.finals):
            ends = self._ends.get(trial.number, [])
            trial.measurements[:] = [replace(m, at=at) for m, at in zip(trial.measurements, ends, strict=True)]


def _numbers(values: Iterable[float], params: Params, most: int) -> list[float]:
    """A curve as numbers, `most` at most. Raises TypeError where it is none."""
    try:
        return list(map(float, islice(values, most)))
    except (TypeError, ValueError) as error:
        words = f"curve: found {type(values).__name__} for {dict(params)} ({error}); a sequence of numbers, one an epoch, is needed"
        raise TypeError(words) from error


def uncurved(spec: Spec) -> list[str]:
    """The metrics that the spec's stopper watches and a simulated trial does not have: all but the objective."""
    return sorted(watched(spec.stopper).keys() - {spec.objective.metric})


def simulate(
    spec: Spec,
    curve: Values,
    workers: int = 4,
    seed: int = 0,
    epoch_seconds: EpochSeconds | None = None,
    *,
    folder: Path | None = None,
) -> Study:
    """The study that `spec` describes, run to its end on a virtual clock over `curve`; `seed` takes the place of the spec's.

    `curve(params, seed)` gives a trial's metric after each epoch, one value an epoch. A trial ends early with its values;
    one that is not finite fails it. An epoch takes `epoch_seconds` virtual seconds (None: 1), and `budget.time` counts them.
    The finals are part of it: there a configuration has the curve of another seed. Each measurement's `at` is the virtual second
    at which its epoch ended. Nothing is written, unless a `folder` is given, which then holds the journal of the study, as those
    in the study home do.

    Raises ValueError where `workers`, `seed` or `epoch_seconds` are no such numbers, where the stopper watches another metric
    than the objective, or where the spec's `start` leaves a parameter open
    (that of a trainer given by `trainer_override`, whose defaults are not known here), and TypeError where `curve` gives no numbers.
    """
    if not workers >= 1:
        raise ValueError(f"workers: found {workers}; at least 1 is needed")
    if seed < 0:
        raise ValueError(f"seed: found {seed}; at least 0 is needed")
    if missing := uncurved(spec):
        only = f"of a simulated trial only {spec.objective.metric} is known; use a stopper that watches it, or none"
        raise ValueError(f"stopper {spec.stopper.name}: it watches {' and '.join(missing)}; {only}")
    if spec.sampler.name != "sweep":
        _check_start(spec)
    spec = replace(spec, seed=seed)
    if folder is None:
        return _simulated(spec, curve, workers, epoch_seconds, remember_nothing)
    with Journal.create(folder / FILE_NAME) as journal:
        journal.append([Created(folder.name, spec.to_dict(), {})])
        return _simulated(spec, curve, workers, epoch_seconds, journal.append)


def _check_start(spec: Spec) -> None:
    for i, point in enumerate(spec.start):
        if missing := [name for name in spec.space if name not in point]:
            raise ValueError(f"start[{i}]: has no {', '.join(missing)}, and the trainer's defaults are not known here; give all values")


def _simulated(
    spec: Spec, curve: Values, workers: int, epoch_seconds: EpochSeconds | None, record: Callable[[Sequence[Event]], None]
) -> Study:
    study = Study(rules_of(spec), sampler_of(spec), record)
    trials = Unkept(study, spec.objective.metric, curve, epoch_seconds)
    limit = math.inf if spec.budget.time_s is None else spec.budget.time_s
    share = 1 / (1 + SHARE) if spec.finals else 1.0
    reason = run(trials, trials.curve, workers, clock=trials.clock, time_limit_s=limit * share)
    study.discard(reason)
    if study.nominate(reason, None):
        in_finals = run(trials, trials.curve, workers, clock=trials.clock, time_limit_s=limit)
        study.discard(in_finals)
        study.choose()
        reason = in_finals if in_finals == "time" else reason
    study.end(reason)
    trials.stamp()
    return study
