"""Simulated studies with finals, and the truth about what they chose: curves of configurations trained with several seeds each.

A study draws its configurations from a table. Its search sees one recorded seed of each, the runs of its finals others, and the
truth about a configuration is the mean over the seeds that the study saw nothing of. All else is the project's own code.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import hpo
from benchmarks import curves
from benchmarks.curves import Array, Table
from hpo.space import Params
from hpo.spec import Spec, spec_from_dict
from hpo.study import Study

TABLES = curves.OWN / "seeds"
WORKERS = 2
NONE: dict[str, Any] = {"name": "none"}
STOP: dict[str, Any] = {"name": "asha", "rule": "stop", "reduction_factor": 3}


@dataclass(frozen=True, slots=True)
class Setting:
    """A study: its trials or its epochs, how they are pruned, its finals."""

    top: int
    seeds: int
    trials: int | None = None
    epochs: int | None = None
    pruner: Mapping[str, Any] | None = None


class Recorded:
    """The runs of one study: each run of a configuration is one that the table has and that no other run of the study was given."""

    def __init__(self, task: Table, seed: int) -> None:
        self._task, self._seed = task, seed
        self.seen: dict[int, list[int]] = {}  # row -> which of its runs, the search's first

    def curve(self, params: Params, seed: int) -> list[float]:  # noqa: ARG002
        """The values of another run of this row. Raises LookupError where the study has seen them all."""
        row = int(params["row"])
        seen, order = self.seen.setdefault(row, []), self._order(row)
        if len(seen) == len(order):
            raise LookupError(f"configuration {row} of {self._task.task} has {len(order)} runs; the study asks for another one")
        seen.append(order[len(seen)])
        return list(map(float, _runs(self._task, row)[seen[-1]]))

    def unseen(self, row: int) -> list[int]:
        """Which runs of the row the study was not given."""
        return [run for run in range(len(_runs(self._task, row))) if run not in self.seen.get(row, [])]

    def truth(self, row: int) -> tuple[float, int]:
        """The mean of the best values of the runs that the study has not seen, and how many these are."""
        runs = _runs(self._task, row)
        values = [float(np.nanmax(runs[run])) for run in self.unseen(row) if np.isfinite(runs[run]).any()]
        return statistics.fmean(values), len(values)

    def _order(self, row: int) -> list[int]:
        order: list[int] = np.random.default_rng((self._seed, row)).permutation(len(_runs(self._task, row))).tolist()
        return order


def _runs(task: Table, row: int) -> tuple[Array, ...]:
    return task.curves[row], *task.repeats.get(row, ())


@dataclass(frozen=True, slots=True)
class Interval:
    """The winner's: half its width, how far the truth is from its middle, and of how many runs the two means are."""

    half: float
    off: float
    fresh: int
    unseen: int

    @property
    def covers(self) -> bool:
        """Whether the truth as far as it is known, a mean of few runs itself, lies in the interval."""
        return self.off <= self.half

    @property
    def covers_a_mean(self) -> bool:
        """The same of the interval that ought to hold a mean of so many unseen runs in as many cases as the first the truth."""
        return self.off <= self.half * math.sqrt(1 + self.fresh / self.unseen)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one study claimed and what is true, in points of accuracy (percent).

    `best` is the search's best value and `single` the truth of the configuration that has it; `mean` is the replicated value of the
    one that the finals chose and `chosen` its truth. Without finals these are as the search left them. Of `runs` in all
    the winner has `fresh` complete ones, and `out` finalists were given up before they had all of theirs. `saved` is the
    share of the finals' epochs that the racing rule saved.
    """

    best: float
    single: float
    mean: float
    chosen: float
    differs: bool
    fresh: int
    runs: int
    out: int
    share: float
    saved: float
    interval: Interval | None


def spec_of(task: Table, setting: Setting, seed: int) -> Spec:
    """A study over rows of the table, drawn by the seed without replacement; its one parameter is the row."""
    trials = setting.trials or len(task.curves)
    rows = np.random.default_rng(seed).permutation(len(task.curves))[:trials].tolist()
    budget = {"trials": trials, **({"epochs": setting.epochs} if setting.epochs else {})}
    return spec_from_dict(
        {
            "name": "finals",
            "trainer": {"name": "simulated", "settings": {"max_epochs": task.max_epochs}},
            "objective": {"metric": "value", "direction": task.direction.value},
            "space": {"row": {"type": "categorical", "choices": rows}},
            "sampler": {"name": "grid"},
            "pruner": dict(setting.pruner or NONE),
            "budget": budget,
            "finals": {"top": setting.top, "seeds": setting.seeds},
        }
    )


def simulated(task: Table, setting: Setting, seed: int) -> tuple[Study, Recorded]:
    """One study to its end, and the recorded runs that it was given."""
    runs = Recorded(task, seed)
    return hpo.simulate(spec_of(task, setting, seed), runs.curve, workers=WORKERS, seed=seed), runs


def outcome(task: Table, setting: Setting, seed: int) -> Outcome:
    """What one study claimed, beside the truth."""
    study, runs = simulated(task, setting, seed)
    searched = study.best()
    assert searched is not None
    first, judged = int(searched.params["row"]), study.judged
    found = searched.best(task.direction)
    assert found is not None
    best, single = 100 * found.value, 100 * runs.truth(first)[0]
    if judged is None or judged.winner.mean is None or study.nominated is None:
        return Outcome(best, single, best, single, differs=False, fresh=0, runs=0, out=0, share=0.0, saved=0.0, interval=None)
    winner, mean = judged.winner, 100 * judged.winner.mean
    row = int(winner.params["row"])
    truth, unseen = runs.truth(row)
    low, high = winner.low, winner.high
    known = None if low is None or high is None else Interval(50 * (high - low), abs(mean - 100 * truth), len(winner.values), unseen)
    spent = sum(run.epoch for run in study.finals)
    room = study.nominated.epochs // task.max_epochs
    fits = min(setting.top * setting.seeds, max(1, room // setting.seeds) * setting.seeds, room) * task.max_epochs
    return Outcome(
        best=best,
        single=single,
        mean=mean,
        chosen=100 * truth,
        differs=row != first,
        runs=len(study.finals),
        fresh=len(winner.values),
        out=sum(bool(one.out) and len(one.values) < setting.seeds for one in judged.finalists),
        share=spent / study.epochs,
        saved=1 - spent / fits,
        interval=known,
    )


def outcomes(task: Table, setting: Setting, studies: int) -> list[Outcome]:
    """So many studies, by the seeds 0, 1, ..."""
    return [outcome(task, setting, seed) for seed in range(studies)]


def mean_error(values: Iterable[float]) -> tuple[float, float]:
    """Mean and its standard error over studies."""
    found = list(values)
    return statistics.fmean(found), statistics.stdev(found) / math.sqrt(len(found))


def overstated(found: Sequence[Outcome]) -> tuple[float, float]:
    """By how many points the replicated mean is better than the truth, and the standard error."""
    return mean_error(o.mean - o.chosen for o in found)


def overstated_without(found: Sequence[Outcome]) -> tuple[float, float]:
    """The same of the search's best value."""
    return mean_error(o.best - o.single for o in found)


def gained(found: Sequence[Outcome]) -> tuple[float, float]:
    """By how many points the chosen configuration is truly better than the single-run winner, and the standard error."""
    return mean_error(o.chosen - o.single for o in found)
