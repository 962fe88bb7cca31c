"""Regrets of all searches as one array, and what statistics say of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.curves import Scale, Table
from benchmarks.search_quality.progress import Progress, epochs_to, regret_at

BUDGETS = (5, 10, 20, 30, 50, 100)  # in full trainings
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The regrets at one number of workers: arrays [arm, task, seed, budget], of all values `seen` and of `full` trainings.

    `reached` [arm, task, seed] is after how many full trainings' epochs an arm saw a value as good as the last of `random`
    with the same seed: infinity if never, NaN without that arm.
    """

    arms: tuple[str, ...]
    tasks: tuple[str, ...]
    seen: Array
    full: Array
    reached: Array

    @classmethod
    def of(cls, found: Mapping[tuple[str, int, int], Progress], arms: Sequence[str], tables: Sequence[Table], seeds: int) -> Scores:
        """`found` has the progress of each (arm, number of the task, seed)."""
        shape = (len(arms), len(tables), seeds)
        seen, full, reached = np.empty((*shape, len(BUDGETS))), np.empty((*shape, len(BUDGETS))), np.full(shape, np.nan)
        for a, t, s in np.ndindex(shape):
            table, scale, progress = tables[t], Scale.of(tables[t]), found[arms[a], t, s]
            for b, budget in enumerate(BUDGETS):
                seen[a, t, s, b] = regret_at(progress.seen, scale, budget * table.max_epochs)
                full[a, t, s, b] = regret_at(progress.full, scale, budget * table.max_epochs)
            if "random" in arms and (steps := found["random", t, s].seen):
                reached[a, t, s] = epochs_to(progress.seen, table.direction, steps[-1][1]) / table.max_epochs
        return cls(tuple(arms), tuple(table.task for table in tables), seen, full, reached)

    def only(self, tasks: Sequence[int]) -> Scores:
        """The scores on some of the tasks."""
        kept = list(tasks)
        parts = (part[:, kept] for part in (self.seen, self.full, self.reached))
        return Scores(self.arms, tuple(self.tasks[t] for t in kept), *parts)

    def row(self, arm: str) -> int:
        """The arm's number. Raises ValueError where it was not run."""
        return self.arms.index(arm)


def mean_regrets(regrets: Array) -> Array:
    """[arm, budget]: each task counts the same."""
    found: Array = regrets.mean(axis=(1, 2))
    return found


def mean_ranks(regrets: Array) -> Array:
    """[arm, budget]: ranks by the tasks' mean regrets, 1 the best, equals sharing theirs."""
    by_task = regrets.mean(axis=2)
    found: Array = stats.rankdata(by_task, axis=0).mean(axis=1)
    return found


def worst_ratio(regrets: Array, arm: int, against: int) -> tuple[Array, list[int]]:
    """The largest ratio over tasks of an arm's mean regret to another's, and whose task it is, at each budget."""
    mine, theirs = regrets[arm].mean(axis=1), regrets[against].mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(mine == theirs, 1.0, mine / theirs)
    return ratio.max(axis=0), [int(task) for task in ratio.argmax(axis=0)]


def friedman(regrets: Array, budget: int) -> float:
    """p of Friedman's test that all arms rank alike, tasks as blocks; NaN with fewer than three arms or two tasks.

    Source: Demšar 2006, "Statistical Comparisons of Classifiers over Multiple Data Sets", section 3.2.2.
    """
    by_task = regrets[..., budget].mean(axis=2)
    if by_task.shape[0] < 3 or by_task.shape[1] < 2:
        return float("nan")
    return float(stats.friedmanchisquare(*by_task).pvalue)


def nemenyi(regrets: Array, budget: int) -> Array:
    """[arm, arm]: p of Nemenyi's test that two arms rank alike (Demšar 2006), tasks as blocks."""
    from scikit_posthocs import posthoc_nemenyi_friedman

    found: Array = posthoc_nemenyi_friedman(regrets[..., budget].mean(axis=2).T).to_numpy(dtype=float)
    return found


def wilcoxon_holm(regrets: Array, budget: int, arm: int) -> Array:
    """[arm]: p of Wilcoxon's signed-rank test of one arm against each other, tasks as pairs, corrected by Holm 1979.

    1 where no task tells them apart, NaN for the arm itself.
    """
    by_task = regrets[..., budget].mean(axis=2)
    others = [other for other in range(len(by_task)) if other != arm]
    single = {}
    for other in others:
        difference = by_task[arm] - by_task[other]
        single[other] = float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0
    corrected, largest = np.full(len(by_task), np.nan), 0.0
    for done, other in enumerate(sorted(others, key=lambda o: single[o])):
        largest = max(largest, min(single[other] * (len(others) - done), 1.0))
        corrected[other] = largest
    return corrected
