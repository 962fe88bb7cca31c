"""The best value that a search had found by each epoch, and medians over searches that are repeats of each other. Pure."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

from hpo.trial import Direction, State, Trial

CURVE_POINTS = 200


@dataclass(frozen=True, slots=True)
class Trajectory:
    """`values[i]` is the best value from `epochs[i]` on, in the objective's own direction; epochs are those of all trials of the search."""

    epochs: tuple[int, ...]
    values: tuple[float, ...]
    direction: Direction

    def at(self, epochs: float) -> float | None:
        """The best value by then; None while there was none."""
        known = bisect_right(self.epochs, epochs)
        return self.values[known - 1] if known else None

    def reached(self, value: float) -> int | None:
        """The epoch from which on the best value is at least as good as `value`; None if it never was."""
        loss = self.direction.loss
        return next((epoch for epoch, best in zip(self.epochs, self.values, strict=True) if loss(best) <= loss(value)), None)


@dataclass(frozen=True, slots=True)
class Middle:
    """The median of repeats and an interval for it, `low` to `high` in value; `of` is how many repeats there are."""

    median: float
    low: float
    high: float
    of: int


@dataclass(frozen=True, slots=True)
class Band:
    """Median and interval of several searches at each of `epochs`."""

    epochs: tuple[float, ...]
    middles: tuple[Middle, ...]


def trajectory(trials: Iterable[Trial], direction: Direction) -> Trajectory:
    """The best value by each epoch of a search. A trial that failed chose nothing, and trials of the finals come after the search."""
    measured = sorted(
        (at, m.value)
        for trial in trials
        if not trial.in_finals and trial.state is not State.FAILED
        for at, m in zip(trial.arrived, trial.measurements, strict=True)
    )
    epochs: list[int] = []
    values: list[float] = []
    for at, value in measured:
        if math.isfinite(value) and (not values or direction.loss(value) < direction.loss(values[-1])):
            epochs.append(at)
            values.append(value)
    return Trajectory(tuple(epochs), tuple(values), direction)


def middle(values: Sequence[float]) -> Middle | None:
    """Median and interval of what repeats came to; None of none. Infinity stands for a repeat that never came to it.

    From six repeats on the interval is the narrowest between two order statistics that holds the median of all repeats there
    could be with at least 95 %; with fewer none does, and it is the lowest to the highest value.
    Source: Conover 1999, "Practical nonparametric statistics", 3.2 (confidence interval for a quantile).
    """
    if not values:
        return None
    ordered, count = sorted(values), len(values)
    cut = 0
    while 2 * (cut + 1) < count and 1 - 2 * sum(math.comb(count, i) for i in range(cut + 2)) / 2**count >= 0.95:
        cut += 1
    finite = count % 2 or not math.isinf(ordered[count // 2])
    return Middle(median(ordered) if finite else math.inf, ordered[cut], ordered[-1 - cut], count)


def band(found: Sequence[Trajectory], until: int) -> Band:
    """Median and interval of searches over the epochs up to `until`, from where on all that found anything have a value."""
    found = [one for one in found if one.epochs and one.epochs[0] <= until]
    if not found:
        return Band((), ())
    first = max(one.epochs[0] for one in found)
    steps = {first + (until - first) * i / CURVE_POINTS for i in range(CURVE_POINTS + 1)}
    changes = {epoch for one in found for epoch in one.epochs if first <= epoch <= until}
    epochs = sorted(steps | {float(epoch) for epoch in changes})
    middles = [middle([value for one in found if (value := one.at(epoch)) is not None]) for epoch in epochs]
    return Band(tuple(epochs), tuple(m for m in middles if m is not None))
