"""What the charts read from a study: its search's trials, their values, the epochs in the order they came. Pure: draws nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

from hpo.events import Asked, Measured
from hpo.results import StoredStudy
from hpo.space import Value
from hpo.trial import Direction, Measurement, State, Trial

NOTHING = "no trial has been measured yet"
STATES = (State.COMPLETE, State.PRUNED, State.PAUSED, State.RUNNING, State.FAILED)


def searched(study: StoredStudy) -> list[Trial]:
    """The trials of the search that have at least one measurement; those of the finals are left out."""
    return [trial for trial in study.trials if trial.measurements and not trial.in_finals]


def replicated(study: StoredStudy) -> list[Trial]:
    """The trials of the finals."""
    return list({trial.number: trial for trial in (*study.trials, *study.study.finals) if trial.in_finals}.values())


def best_of(trial: Trial, direction: Direction) -> Measurement:
    """The trial's best epoch; it has been measured."""
    found = trial.best(direction)
    assert found is not None
    return found


def best_first(trials: Sequence[Trial], direction: Direction) -> list[Trial]:
    """The trials in order of their values, the best first; those that failed come last."""
    return sorted(trials, key=lambda t: (t.state is State.FAILED, direction.loss(best_of(t, direction).value), t.number))


def best_so_far(study: StoredStudy) -> list[float | None]:
    """After each epoch of the search, in the order in which they were trained: the best value of all trials that did not fail.

    Epochs of failed trials count, their values do not: None as long as there is no other.
    """
    direction = study.spec.objective.direction
    came = sorted(
        (
            (at, measured.value, trial.state is State.FAILED)
            for trial in searched(study)
            for at, measured in zip(trial.arrived, trial.measurements, strict=True)
        ),
        key=itemgetter(0),
    )
    best: float | None = None
    found = []
    for _, value, failed in came:
        if not failed and (best is None or direction.loss(value) < direction.loss(best)):
            best = value
        found.append(best)
    return found


@dataclass(frozen=True, slots=True)
class FinalsSpan:
    """The finals begin after `begin` epochs of the search and train `epochs` more."""

    begin: int
    epochs: int


def finals_span(study: StoredStudy) -> FinalsSpan | None:
    """Where the finals begin and what they take; None where there are none."""
    again: set[int] = set()
    begin = before = epochs = 0
    for record in study.records:
        match record.event:
            case Asked(trial=number, replicates=replicates) if replicates is not None:
                begin = begin if again else before
                again.add(number)
            case Measured(trial=number):
                epochs += number in again
                before += number not in again
    return FinalsSpan(begin, epochs) if again else None


def trained_with(metric: str) -> str | None:
    """The name of the training data's metric for one of the validation data: `train_loss` for `val_loss`; None for other names."""
    return "train_" + metric.removeprefix("val_") if metric.startswith("val_") else None


def as_text(value: Value) -> str:
    """A parameter's value in few characters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
