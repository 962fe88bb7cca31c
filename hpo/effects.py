"""How the parameters of a search bear on its results: which range ends too early, which parameter does not matter. Pure: no files.

What makes this hard is the search itself. A sampler that adapts visits again what came out well once, noise included, so that its
trials crowd at edges that nothing speaks for; and it settles all parameters at the same time, so that any of them goes along with
success. So each claim needs two things: where the best trials lie, against a blind draw; and what a response surface says
of the parameter while the others are held (linear and quadratic in each, by least squares on normal scores of the order), within
strata of trials that one ladder asked for one after the other. Measured on simulated studies
of 50 to 200 trials over 2 to 6 parameters on typical curves, pruned and not (`tests/test_findings.py` repeats a part of it):

- Where nothing mattered, an edge was claimed in 0.1 % of 700 studies under random, 1 % of 300 under TPE and 3 % of 460 under ladders;
  for a parameter without effect among others that have one in 0 to 3 %. An optimum inside, 15 % of the range or more away from
  the edge, was taken for one at it in 1 to 5 %. The binomial test alone is wrong in 1, 7 and 36 %. Where a parameter that makes
  up a quarter of the task has its optimum beyond the edge, by a quarter of the range or more, 23 to 40 % were found: it is cautious.
- Of parameters that explain 10 % or more of the differences 0 to 2 % were called idle; of those that explain nothing 53 to 68 %
  under random, 31 to 38 % under TPE and 18 to 21 % under ladders, whose best trials crowd even where nothing matters.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc, chdtrc, fdtrc, kolmogorov, ndtri, stdtr

from hpo.ranking import FEWEST, Compared
from hpo.space import Categorical, Parameter, SearchSpace, Value, point, position
from hpo.trial import Trial

Array = NDArray[np.float64]

UNAWARE = ("grid", "sweep", "random", "qmc")  # samplers that know no results
LISTED = ("grid", "sweep")  # samplers that visit listed points
OUTER = 0.75  # where the outer quarter of a range begins
KNOT = 2 / 3  # where the outer part begins in which results must still improve
FALSE_EDGES = 0.05  # share of studies in which any edge may be claimed without reason
EDGES_FROM = 20  # trials
ENOUGH = 40  # trials, to say that something does not matter
LIKELY = 0.2  # p above which nothing was seen
SMALL = 0.02  # share of the differences between trials that is nothing
FEW_VALUES = 12  # values that are counted one by one
STRATUM = 25  # trials, one after the other, that met about the same sampler
MOST_STRATA = 20  # of a ladder
FREEDOM = 8  # trials more than coefficients, for a response surface


@dataclass(frozen=True, slots=True)
class Lean:
    """An edge at which the optimum lies: `inside` of the best `of` trials are in the outer part, from `start` to the edge.

    A blind draw would put a `share` of them there. `p` is the larger one of the two tests'.
    """

    name: str
    upper: bool
    inside: int
    of: int
    start: float
    share: float
    p: float


@dataclass(frozen=True, slots=True)
class Idle:
    """A parameter without visible effect: it explains a `share` of the differences between `trials`, such as chance does with `p`.

    The best `of` are spread as a blind draw is, or less evenly with probability `spread_p`.
    """

    name: str
    share: float
    p: float
    of: int
    trials: int
    spread_p: float


def leaning(space: SearchSpace, sampler: str, found: Compared) -> list[Lean]:
    """The edges at which the optimum lies, the surest first.

    Both must be seen: more of the best trials in the outer quarter of the range than a blind draw puts there (binomial test), and
    results that still improve in the outer third towards the edge (one-sided t-test of the slope there, the rest of the range having
    a slope of its own). The larger p counts, with Holm's correction over all edges. Ordered parameters of three values or more, and
    20 trials or more.
    """
    if len(found.trials) < EDGES_FROM:
        return []
    view = _View(space, sampler, found)
    edges = [(name, upper) for name in space if view.is_ordered(name) for upper in (False, True)]
    leans = sorted((view.lean(name, upper) for name, upper in edges), key=lambda lean: lean.p)
    return _holm(leans, FALSE_EDGES)


def _holm(leans: Sequence[Lean], level: float) -> list[Lean]:
    kept = []
    for i, lean in enumerate(leans):
        if lean.p * (len(leans) - i) >= level:
            break
        kept.append(lean)
    return kept


def idle(space: SearchSpace, sampler: str, found: Compared) -> list[Idle]:
    """The parameters that do not matter, as far as `found` shows; none for fewer than 40 trials.

    All must be seen: the best fifth is spread over the whole range or all choices as a blind draw is (p > 0.2, Kolmogorov and Smirnov's
    test or chi-square), which an adaptive sampler would not leave so where a parameter matters; and without it the response surface
    explains at most 2 % less (F-test p > 0.2).
    """
    if len(found.trials) < ENOUGH:
        return []
    view = _View(space, sampler, found)
    seen = [view.idle(name) for name in space if view.varies(name)]
    return [one for one in seen if one and one.share < SMALL and one.p > LIKELY and one.spread_p > LIKELY]


class _View:
    """The positions of trials on each parameter's axis, their scores, and what a blind draw would look like."""

    def __init__(self, space: SearchSpace, sampler: str, found: Compared) -> None:
        self._space, self._found, n = space, found, len(found.trials)
        self._x: dict[str, Array] = {}
        self._blind: dict[str, Array] = {}
        for name, parameter in space.items():
            self._x[name], self._blind[name] = _axes(parameter, [t.params[name] for t in found.trials], sampler in LISTED)
        self._scores: Array = ndtri((np.arange(n) + 0.5) / n) if n else np.empty(0)
        self._strata = np.ones((n, 1)) if sampler in UNAWARE else _strata(found.trials)

    def varies(self, name: str) -> bool:
        return len(np.unique(self._blind[name])) > 1

    def is_ordered(self, name: str) -> bool:
        return not isinstance(self._space[name], Categorical) and len(np.unique(self._blind[name])) > 2

    def lean(self, name: str, upper: bool) -> Lean:
        best = self._found.best
        x, blind = self._x[name], self._blind[name]
        if not upper:
            x, blind = 1 - x, 1 - blind
        start = min(OUTER, blind.max())
        inside, share = int((x[:best] >= start - 1e-9).sum()), float((blind >= start - 1e-9).mean())
        values = [float(t.params[name]) for t, here in zip(self._found.trials, x >= start - 1e-9, strict=True) if here]
        crowded = float(bdtrc(inside - 1, best, share)) if inside else 1.0
        p = max(crowded, self._slope(name, x, float(blind[blind <= KNOT + 1e-9].max(initial=0.0))))
        return Lean(name, upper, inside, best, (min if upper else max)(values, default=math.nan), share, p)

    def _slope(self, name: str, x: Array, knot: float) -> float:
        """The p-value of results that improve along `x` beyond `knot`."""
        design = np.column_stack([self._surface(name), np.minimum(x, knot), np.maximum(x, knot)])
        fit = _fitted(design, self._scores)
        if fit is None:
            return 1.0
        coefficients, squares, freedom = fit
        variance = squares / freedom * np.linalg.pinv(design.T @ design)[-1, -1]
        return float(stdtr(freedom, coefficients[-1] / math.sqrt(variance))) if variance > 0 else 1.0

    def idle(self, name: str) -> Idle | None:
        held = self._surface(name)
        without, whole = _fitted(held, self._scores), _fitted(np.column_stack([held, self._terms(name)]), self._scores)
        alone = _fitted(self._strata, self._scores)
        if without is None or whole is None or alone is None or whole[2] == without[2]:
            return None
        added = max(0.0, without[1] - whole[1])
        columns = without[2] - whole[2]
        p = float(fdtrc(columns, whole[2], added / columns / (whole[1] / whole[2]))) if whole[1] > 0 else 0.0
        best = max(2 * FEWEST, len(self._found.trials) // 5)
        return Idle(name, added / alone[1], p, best, len(self._found.trials), _spread(self._x[name][:best], self._blind[name]))

    def _surface(self, left_out: str) -> Array:
        """The columns of all parameters but one, and the strata."""
        return np.column_stack([self._strata, *(self._terms(name) for name in self._space if name != left_out and self.varies(name))])

    def _terms(self, name: str) -> Array:
        """Linear and quadratic, or one column a choice."""
        x = self._x[name]
        if isinstance(self._space[name], Categorical):
            return np.column_stack([x == choice for choice in np.unique(x)]).astype(float)
        return np.column_stack([x - 0.5, (x - 0.5) ** 2])


def _axes(parameter: Parameter, values: Sequence[Value], listed: bool) -> tuple[Array, Array]:
    """Where values lie on the parameter's axis, and where those of a blind draw would: of listed points where all trials' do."""
    if listed and not isinstance(parameter, Categorical):
        order = {value: i for i, value in enumerate(sorted(set(values), key=float))}
        x = np.array([(order[value] + 0.5) / len(order) for value in values], dtype=float)
        return x, x
    x = np.array([position(parameter, value) for value in values], dtype=float)
    return x, x if listed else np.array([position(parameter, point(parameter, (i + 0.5) / 1000)) for i in range(1000)])


def _strata(trials: Sequence[Trial]) -> Array:
    """One column for each stretch of trials that a ladder asked for one after the other."""
    order: dict[str, list[int]] = {}
    for i in sorted(range(len(trials)), key=lambda i: trials[i].number):
        order.setdefault(trials[i].ladder, []).append(i)
    stretches = [part for of in order.values() for part in np.array_split(np.array(of), min(max(1, len(of) // STRATUM), MOST_STRATA))]
    columns = np.zeros((len(trials), max(1, len(stretches))))
    for column, part in enumerate(stretches):
        columns[part, column] = 1.0
    return columns


def _fitted(design: Array, scores: Array) -> tuple[Array, float, int] | None:
    """Least squares: coefficients, what is left, and its degrees of freedom; None where these are too few."""
    solved = np.linalg.lstsq(design, scores, rcond=None)
    coefficients, rank = np.asarray(solved[0], dtype=np.float64), solved[2]
    freedom = len(scores) - int(rank)
    if freedom < FREEDOM:
        return None
    return coefficients, float(((scores - design @ coefficients) ** 2).sum()), freedom


def _spread(x: Array, blind: Array) -> float:
    """The p-value of positions less like a blind draw's."""
    values, counts = np.unique(blind, return_counts=True)
    if len(values) <= FEW_VALUES:
        expected = counts / len(blind) * len(x)
        seen = Counter(x.tolist())
        return float(chdtrc(len(values) - 1, sum((seen[v] - e) ** 2 / e for v, e in zip(values.tolist(), expected, strict=True))))
    ordered, n = np.sort(x), len(x)
    below = np.searchsorted(np.sort(blind), ordered, side="right") / len(blind)
    farthest = max((np.arange(1, n + 1) / n - below).max(), (below - np.arange(n) / n).max())
    return float(kolmogorov((math.sqrt(n) + 0.12 + 0.11 / math.sqrt(n)) * farthest))  # Stephens 1970, for small samples
