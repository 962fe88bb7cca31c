"""What a search has seen, as arrays: a row for each trial, a column for each rung. Pure: no trials, no random draws, no models."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import rankdata

from hpo.sampling.gp import squared_distances

Array = NDArray[np.float64]
Whole = NDArray[np.int64]
Flags = NDArray[np.bool_]

_OTHER = 0.1  # weight of a neighbour that differs: what is as likely as one in eleven to show the same again is not worth a trial
HUGE = 1e300  # sums and differences of two such values are still finite


@dataclass(frozen=True, slots=True)
class Entry:
    """A trial's value at a rung (higher is better; NaN: a failure, the worst there is), the `order`-th thing that the study saw."""

    rung: int
    value: float
    order: int


class History:
    """Grows row by row; what a row holds is never taken back.

    `gain` [n, rungs] holds values, higher being better, NaN where there is none; `seen` says where there is one or a failure;
    `order` tells when it came.
    """

    def __init__(self, axes: int, rungs: int) -> None:
        self.rungs = rungs
        self.count = 0
        self.with_value = 0
        """Rows with at least one entry."""
        self.latest = 0
        """The largest order of all that happened: entries of smaller order are all known."""
        self._points = np.empty((64, axes))
        self._gain = np.full((64, rungs), np.nan)
        self._seen = np.zeros((64, rungs), dtype=bool)
        self._order = np.zeros((64, rungs), dtype=np.int64)
        self._running = np.zeros(64, dtype=bool)

    def append(self, point: list[float]) -> int:
        """A new running trial at that point of the cube; its row."""
        if self.count == len(self._points):
            for name in ("_points", "_gain", "_seen", "_order", "_running"):
                old = getattr(self, name)
                setattr(self, name, np.concatenate([old, np.full_like(old, np.nan if old.dtype == np.float64 else 0)]))
        self._points[self.count] = point
        self._running[self.count] = True
        self.count += 1
        return self.count - 1

    def enter(self, row: int, entry: Entry) -> None:
        """The trial of that row has come to a rung, or failed on its way there."""
        if not self._seen[row].any():
            self.with_value += 1
        self._gain[row, entry.rung] = min(max(entry.value, -HUGE), HUGE) if np.isfinite(entry.value) else np.nan
        self._seen[row, entry.rung] = True
        self._order[row, entry.rung] = entry.order

    def set_running(self, row: int, running: bool) -> None:
        self._running[row] = running

    @property
    def points(self) -> Array:
        return self._points[: self.count]

    @property
    def gain(self) -> Array:
        return self._gain[: self.count]

    @property
    def seen(self) -> Flags:
        return self._seen[: self.count]

    @property
    def order(self) -> Whole:
        return self._order[: self.count]

    @property
    def running(self) -> Flags:
        return self._running[: self.count]

    @property
    def awaited(self) -> Whole:
        """The rows of running trials without an entry."""
        return np.flatnonzero(self._running[: self.count] & ~self.seen.any(axis=1))

    def ranked(self) -> Whole:
        """The rows with entries, best first: by the highest rung and the value there, a failure last at its rung, earlier ones first."""
        rows = np.flatnonzero(self.seen.any(axis=1))
        top = _highest(self.seen[rows])
        gain = self.gain[rows, top]
        return rows[np.lexsort((rows, -np.nan_to_num(gain, nan=-np.inf), -top))]


@dataclass(frozen=True, slots=True)
class Observations:
    """Entries as a model takes them: `row` and `rung` [n], standardised value `z` [n], and whether it is its trial's `last` rung [n]."""

    row: Whole
    rung: Whole
    z: Array
    last: Flags

    def __len__(self) -> int:
        return len(self.row)


def observations(history: History, up_to: int | None = None) -> Observations:
    """The history's entries, those of order at most `up_to` if given, made comparable over rungs and standardised."""
    seen = history.seen if up_to is None else history.seen & (history.order <= up_to)
    row, rung = np.nonzero(seen)
    gain = np.where(seen, history.gain, np.nan)
    return Observations(row, rung, standardised(comparable(gain)[row, rung]), rung == _highest(seen)[row])


def target_rung(history: History) -> int:
    """The highest rung with at least three values; the lowest if there is none."""
    enough = np.flatnonzero(np.isfinite(history.gain).sum(axis=0) >= 3)
    return int(enough[-1]) if len(enough) else 0


def grain(x: Array, gain: Array) -> float:
    """The squared distance within which points `x` [n, c] often measured exactly the same `gain` [n, rungs] as their nearest; 0 if none.

    Where a metric or the trained model doesn't tell such points apart, trying one more of them is time lost.
    """
    if len(x) < 2:
        return 0.0
    apart = squared_distances(x, x)
    np.fill_diagonal(apart, np.inf)
    nearest = np.argmin(apart, axis=1)
    both = np.isfinite(gain) & np.isfinite(gain[nearest])
    same = both.any(axis=1) & ((gain == gain[nearest]) | ~both).all(axis=1)
    distance = apart[np.arange(len(x)), nearest]
    order = np.argsort(distance, kind="stable")
    score = np.cumsum(np.where(same[order], 1.0, -_OTHER))
    best = int(np.argmax(score))
    return float(distance[order[best]]) if score[best] > 1 else 0.0


def _highest(seen: Flags) -> Whole:
    highest: Whole = seen.shape[1] - 1 - np.argmax(seen[:, ::-1], axis=1)
    return highest


def comparable(gain: Array) -> Array:
    """Values [n, rungs] as they would be at the top: each rung's plus the median gains from there to the next, rung by rung.

    Those that were let go on are better than the others; taken from trials that have both values, the gain is free of that.
    """
    steps = np.zeros(gain.shape[1])
    for k in range(gain.shape[1] - 1):
        both = gain[:, k + 1] - gain[:, k]
        both = both[np.isfinite(both)]
        steps[k] = np.median(both) if len(both) else 0.0
    ahead = np.cumsum(steps[::-1])[::-1]
    result: Array = np.clip(gain + np.clip(ahead, -HUGE, HUGE), -HUGE, HUGE)
    return result


def standardised(values: Array) -> Array:
    """Values with mean 0 and deviation 1: half by rank, half by distance from the median, so that neither outliers nor ties rule.

    NaN becomes the smallest value.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.zeros(len(values))
    y = np.where(np.isfinite(values), values, finite.min())
    by_rank = ndtri((rankdata(y) - 0.5) / len(y))
    with np.errstate(over="ignore", invalid="ignore"):
        middle, high = np.quantile(y, [0.5, 0.95])
        scale = high - middle if high > middle else y.max() - middle
        apart = np.clip((y - middle) / scale, -1.0, 4.0) if scale > 0 else np.where(y < middle, -1.0, 0.0)
    return _unit(by_rank + _unit(np.nan_to_num(apart)))


def _unit(values: Array) -> Array:
    deviation = values.std()
    centred: Array = values - values.mean()
    return centred / deviation if deviation > 1e-12 else np.zeros(len(values))
