"""Beyond which value of a parameter trials diverge: one split of each, and Fisher's exact test. Pure, exact, no libraries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from hpo.space import Categorical, SearchSpace
from hpo.trial import Trial

LEVEL = 0.01
FEWEST = 3  # diverged trials beyond a split
MOSTLY = 0.5  # share of the trials beyond it that diverged


@dataclass(frozen=True, slots=True)
class Split:
    """Beyond `last`, the farthest value that stays allowed, `diverged` of `beyond` trials diverged, and `others` of the `rest`.

    The next value that was tried is `first`. It lies above if `upper`, else below. `p` is corrected for every split that was looked at.
    """

    name: str
    upper: bool
    last: float
    first: float
    diverged: int
    beyond: int
    others: int
    rest: int
    p: float


def diverging(space: SearchSpace, trials: Sequence[Trial], diverged: Iterable[int], keep: Iterable[Trial]) -> list[Split]:
    """The splits beyond which trials diverge, the surest first; no trial of `keep`, the best ones, lies beyond any of them.

    One split a parameter, the one with the least p of Fisher's one-sided exact test, times the number of splits there were, below
    1 %, with Holm's correction over the parameters. After each the trials beyond it are set aside, so that a parameter that
    only went along with another (the sampler changed both) is not blamed.
    """
    names = [name for name, parameter in space.items() if not isinstance(parameter, Categorical)]
    left, broken, spared, found = list(trials), set(diverged), list(keep), list[Split]()
    if not spared:
        return []
    while names:
        split = min((s for name in names for s in _splits(name, left, broken, spared)), key=lambda s: s.p, default=None)
        if split is None or split.p * len(names) >= LEVEL:
            return found
        found.append(split)
        names.remove(split.name)
        left = [t for t in left if not _is_beyond(split)(t)]
    return found


def _is_beyond(split: Split) -> Callable[[Trial], bool]:
    if split.upper:
        return lambda trial: float(trial.params[split.name]) > split.last
    return lambda trial: float(trial.params[split.name]) < split.last


def _splits(name: str, trials: Sequence[Trial], diverged: set[int], keep: Sequence[Trial]) -> Iterator[Split]:
    """The split with the least p on either side, corrected for all of both sides."""
    values = [(float(t.params[name]), t.number in diverged) for t in trials]
    kept = [float(t.params[name]) for t in keep]
    tried = 2 * max(1, len({value for value, _ in values}) - 1)
    for upper in (True, False):
        side = sorted((value if upper else -value, broke) for value, broke in values)
        allowed = max(value if upper else -value for value in kept)
        best = min(_side(side, allowed), key=lambda s: s[0], default=None)
        if best is not None:
            p, index, counts = best
            last, first = ((side[i][0] if upper else -side[i][0]) for i in (index - 1, index))
            yield Split(name, upper, last, first, *counts, p=min(1.0, p * tried))


def _side(side: Sequence[tuple[float, bool]], allowed: float) -> Iterator[tuple[float, int, tuple[int, int, int, int]]]:
    """Every split above `allowed`: its p, where it begins, and its four counts."""
    count, total = len(side), sum(broke for _, broke in side)
    broken = 0
    for index in range(count - 1, 0, -1):
        broken += side[index][1]
        beyond = count - index
        if side[index][0] <= allowed:
            return
        if side[index - 1][0] < side[index][0] and broken >= FEWEST and broken >= MOSTLY * beyond:
            yield _fisher(broken, beyond, total, count), index, (broken, beyond, total - broken, count - beyond)


def _fisher(found: int, drawn: int, total: int, count: int) -> float:
    """The chance that of `drawn` out of `count` trials, `total` of which diverged, at least `found` did."""
    ways = sum(math.comb(total, x) * math.comb(count - total, drawn - x) for x in range(found, min(drawn, total) + 1))
    return ways / math.comb(count, drawn)
