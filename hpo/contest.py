"""Studies of the same task side by side: arms, what each search came to at equal epochs, what that says. Reads, never writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hpo.results import StoredStudy
from hpo.sampling import points_in_all
from hpo.sections import Objective
from hpo.significance import Significance, significance, without_claims
from hpo.tournament import Tournament
from hpo.trajectories import Middle, Trajectory, middle, trajectory
from hpo.trial import Direction, Trial

SHARES = (0.25, 0.5, 1.0)
OVER = ("budget", "time")


@dataclass(frozen=True, slots=True)
class Run:
    """One search. `value` is its best at the contest's epochs, `replicated` the mean of its winner's fresh runs in the finals.

    `epochs`, `trials` and `device_s` (the sum of what its epochs took) are the search's, `finals_epochs` and `finals_s` the finals';
    `points` is how many its sampler has in all, None where there is no end of them.
    """

    study: str
    seed: int
    state: str
    path: Trajectory
    value: float | None
    replicated: float | None
    epochs: int
    finals_epochs: int
    trials: int
    device_s: float
    finals_s: float
    points: int | None


@dataclass(frozen=True, slots=True)
class Reached:
    """When runs came to the value that they are measured by: the median epoch, infinite if fewer than half did, and how many did."""

    median: float
    count: int
    of: int


@dataclass(frozen=True, slots=True)
class ArmRow:
    """An arm, a run for each round (None: there is none). `best` has an entry for each of SHARES; `visited` is a share of all points."""

    label: str
    runs: tuple[Run | None, ...]
    best: tuple[Middle | None, ...]
    reached: Reached | None
    replicated: Middle | None
    epochs: Middle | None
    finals_epochs: Middle | None
    trials: Middle | None
    device_s: Middle | None
    visited: float | None
    points: int | None

    @property
    def present(self) -> list[Run]:
        return [run for run in self.runs if run is not None]


@dataclass(frozen=True, slots=True)
class Contest:
    """Arms at `epochs` each. `on_values` compares the final validation values, `on_replicated` the finals' means (None: not all have some).

    The latter decides where it is known, and then nothing is claimed of the former: there is one family of claims. `remarks` are
    what a reader must know.
    """

    name: str
    metric: str
    direction: Direction
    epochs: int
    rounds: int
    arms: tuple[ArmRow, ...]
    on_values: Significance
    on_replicated: Significance | None
    remarks: tuple[str, ...]

    @property
    def deciding(self) -> Significance:
        return self.on_replicated or self.on_values


def of_tournament(plan: Tournament, studies: Sequence[StoredStudy]) -> Contest:
    """The tournament's contest; `studies` are those of its entries, in their order."""
    runs = {(entry.arm, entry.repeat): run_of(study, plan.epochs) for entry, study in zip(plan.entries, studies, strict=True)}
    arms = {arm.label: [runs[arm, repeat] for repeat in range(1, plan.repeats + 1)] for arm in plan.arms}
    remarks = [f"every search may take {plan.epochs:,} epochs ({plan.reason}), its finals beside", *plan.notes]
    return contest(plan.name, studies[0].spec.objective, plan.epochs, arms, remarks)


def searched(study: StoredStudy) -> int:
    """The epochs of its search, finals left out."""
    return sum(len(trial.measurements) for trial in study.study.trials)


def points_of(study: StoredStudy) -> int | None:
    """How many points its sampler has; None where there is no end of them."""
    return points_in_all(study.spec.sampler, study.spec.space, study.spec.start)


def run_of(study: StoredStudy, epochs: int) -> Run:
    """What the study's search came to at `epochs`."""
    search, finals, judged = study.study.trials, study.study.finals, study.study.judged
    path = trajectory(search, study.spec.objective.direction)
    return Run(
        study=study.name,
        seed=study.spec.seed,
        state=study.state,
        path=path,
        value=path.at(epochs),
        replicated=judged.winner.mean if judged else None,
        epochs=searched(study),
        finals_epochs=sum(len(trial.measurements) for trial in finals),
        trials=len(search),
        device_s=_seconds(search),
        finals_s=_seconds(finals),
        points=points_of(study),
    )


def _seconds(trials: Sequence[Trial]) -> float:
    return math.fsum(m.seconds for trial in trials for m in trial.measurements)


def contest(name: str, objective: Objective, epochs: int, arms: Mapping[str, Sequence[Run | None]], remarks: Sequence[str]) -> Contest:
    """The contest of arms, the first of which is what others are measured by; all have as many rounds."""
    reference = next(iter(arms.values()))
    found = [run for runs in arms.values() for run in runs if run is not None]
    on_values = _compared(arms, objective, lambda run: run.value)
    replicated = _all_replicated(found)
    return Contest(
        name=name,
        metric=objective.metric,
        direction=objective.direction,
        epochs=epochs,
        rounds=len(reference),
        arms=tuple(_row(label, runs, reference, epochs) for label, runs in arms.items()),
        on_values=without_claims(on_values) if replicated else on_values,
        on_replicated=_compared(arms, objective, lambda run: run.replicated) if replicated else None,
        remarks=(*remarks, *_shortcomings(found)),
    )


def _compared(arms: Mapping[str, Sequence[Run | None]], objective: Objective, value: Callable[[Run], float | None]) -> Significance:
    def loss(run: Run | None) -> float | None:
        found = None if run is None else value(run)
        return None if found is None else objective.direction.loss(found)

    return significance({label: [loss(run) for run in runs] for label, runs in arms.items()})


def _all_replicated(found: Sequence[Run]) -> bool:
    known = [run.replicated is not None for run in found if run.value is not None]
    return bool(known) and all(known)


def _shortcomings(found: Sequence[Run]) -> list[str]:
    unfinished = [run.study for run in found if run.state not in OVER]
    nothing = [run.study for run in found if run.value is None]
    remarks = [f"not over, counted as they stand: {', '.join(unfinished)}"] if unfinished else []
    return remarks + ([f"without any value, left out of the tests: {', '.join(nothing)}"] if nothing else [])


def _row(label: str, runs: Sequence[Run | None], reference: Sequence[Run | None], epochs: int) -> ArmRow:
    present = [run for run in runs if run is not None]
    points = next((run.points for run in present), None)
    return ArmRow(
        label=label,
        runs=tuple(runs),
        best=tuple(_middle([run.path.at(share * epochs) for run in present]) for share in SHARES),
        reached=_reached(runs, reference, epochs),
        replicated=_middle([run.replicated for run in present]),
        epochs=_middle([run.epochs for run in present]),
        finals_epochs=_middle([run.finals_epochs for run in present]),
        trials=_middle([run.trials for run in present]),
        device_s=_middle([run.device_s for run in present]),
        visited=None if not points or not present else sum(min(run.trials, points) for run in present) / points / len(present),
        points=points,
    )


def _middle(values: Sequence[float | None]) -> Middle | None:
    return middle([value for value in values if value is not None])


def _reached(runs: Sequence[Run | None], reference: Sequence[Run | None], epochs: int) -> Reached | None:
    """When runs came to the value with which the first arm ended in the same round."""
    whens = [run.path.reached(first.value) for run, first in zip(runs, reference, strict=True) if run and first and first.value is not None]
    came = [math.inf if when is None or when > epochs else float(when) for when in whens]
    found = middle(came)
    return Reached(found.median, sum(map(math.isfinite, came)), len(came)) if found else None
