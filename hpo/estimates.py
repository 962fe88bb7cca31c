"""What a sample says about all, with an interval: a share of a finite population, and a rank correlation. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

LEVEL = 0.05  # of the test behind a 95 % interval
NORMAL = 1.96
STUDENT = (  # the same of Student's t, by degrees of freedom from 1 on
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's, between -1 and 1, with its 95 % interval; `effective` is how many equally weighted pairs tell as much."""

    value: float
    low: float
    high: float
    effective: float


def student(freedom: int) -> float:
    """How many standard errors a mean's 95 % interval reaches to either side, with so many degrees of freedom (at least 1)."""
    return STUDENT[freedom - 1] if freedom <= len(STUDENT) else NORMAL + 2.4 / freedom


def proportion_interval(mean: float, sample: int) -> tuple[float, float]:
    """The 95 % interval of a share that was `mean` of `sample` independent examples.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    square = NORMAL**2
    middle, width = mean + square / (2 * sample), NORMAL * math.sqrt(mean * (1 - mean) / sample + square / (4 * sample**2))
    return (middle - width) / (1 + square / sample), (middle + width) / (1 + square / sample)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval of what independent examples came to: of a share where all are 0 or 1, else by their spread."""
    size = len(values)
    mean = math.fsum(values) / size
    if all(value in (0.0, 1.0) for value in values):
        return mean, *proportion_interval(mean, size)
    if size == 1:
        return mean, -math.inf, math.inf
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (size - 1))
    width = student(size - 1) * spread / math.sqrt(size)
    return mean, mean - width, mean + width


def share_interval(found: int, sample: int, population: int) -> tuple[float, float]:
    """The 95 % interval of the share in `population` of which `found` were seen in a random `sample` drawn without replacement.

    All shares K / population under which so few or so many are no surprise, by a two-sided mid-P test of the hypergeometric
    distribution at 5 %: exact tests, and two of 2.5 % each, are so cautious with small samples and rare finds that they
    cover far more than 95 %. A sample of all leaves nothing open, and one of nobody everything.
    Source: Blaker 2000, "Confidence curves and improved exact confidence intervals for discrete distributions", with the mid-P
    of Lancaster 1961.
    """
    if not 0 <= found <= sample <= population:
        raise ValueError(f"{found} found in a sample of {sample} from {population}; each may be at most the next")
    if sample == 0:
        return 0.0, 1.0
    fewest, most = found, population - (sample - found)
    likeliest = min(max(round(found * population / sample), fewest), most)
    low = likeliest - _last(likeliest - fewest, lambda less: _surprise(found, sample, likeliest - less, population) > LEVEL)
    high = likeliest + _last(most - likeliest, lambda more: _surprise(found, sample, likeliest + more, population) > LEVEL)
    return low / population, high / population


def _last(most: int, holds: Callable[[int], bool]) -> int:
    """The largest number up to `most` for which a claim holds that holds for 0 and, once false, stays false."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if holds(middle) else (low, middle - 1)
    return low


def _surprise(found: int, sample: int, total: int, population: int) -> float:
    """How likely it is, if `total` are there, to find what is as far out in its tail as `found`, half of equals counted."""
    chances = [_chance(x, sample, total, population) for x in range(sample + 1)]
    below = list(accumulate(chances, initial=0.0))
    tails = [min(below[x], below[-1] - below[x + 1]) + chances[x] / 2 for x in range(sample + 1)]
    here, same = tails[found], 1e-9
    farther = sum(chance for chance, tail in zip(chances, tails, strict=True) if tail < here - same)
    return farther + sum(chance for chance, tail in zip(chances, tails, strict=True) if abs(tail - here) <= same) / 2


def _chance(x: int, sample: int, total: int, population: int) -> float:
    if x > total or sample - x > population - total:
        return 0.0
    return math.exp(_log_choose(total, x) + _log_choose(population - total, sample - x) - _log_choose(population, sample))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def rank_correlation(pairs: Sequence[tuple[float, float]], weights: Sequence[float]) -> Correlation | None:
    """Spearman's correlation of weighted pairs; None where it has no value or its interval would be all of it.

    Ranks are middle ranks of the weighted distribution. The interval is Fisher's with the variance of Bonett & Wright 2000,
    "Sample size requirements for estimating Pearson, Kendall and Spearman correlations", (1 + r^2 / 2) / (n - 3), n being
    Kish's effective size (sum w)^2 / sum w^2.
    """
    if not pairs:
        return None
    effective = sum(weights) ** 2 / sum(weight**2 for weight in weights)
    xs, ys = (_ranks([pair[side] for pair in pairs], weights) for side in (0, 1))
    spread = math.sqrt(_product(xs, xs, weights) * _product(ys, ys, weights))
    if effective <= 4 or spread == 0:
        return None
    value = max(-1.0, min(1.0, _product(xs, ys, weights) / spread))
    middle = math.atanh(max(-0.9999, min(0.9999, value)))
    width = NORMAL * math.sqrt((1 + value**2 / 2) / (effective - 3))
    return Correlation(value, min(value, math.tanh(middle - width)), max(value, math.tanh(middle + width)), effective)


def _ranks(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The weight below each value and half of that at it, around their weighted mean."""
    at: dict[float, float] = {}
    for value, weight in zip(values, weights, strict=True):
        at[value] = at.get(value, 0.0) + weight
    below, rank = 0.0, {}
    for value in sorted(at):
        rank[value] = below + at[value] / 2
        below += at[value]
    return [rank[value] - below / 2 for value in values]


def _product(xs: Sequence[float], ys: Sequence[float], weights: Sequence[float]) -> float:
    return sum(x * y * weight for x, y, weight in zip(xs, ys, weights, strict=True))
