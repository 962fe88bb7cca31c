"""Whether arms of a tournament can be told apart, from paired repeats: tests, effect sizes, how many repeats would do. Pure.

The rule, which depends on the numbers of arms and repeats alone and never on the values, so that all claims of a tournament
together hold 5 %:

- two arms are told apart if Wilcoxon's signed-rank test of the paired repeats rejects at 5 %;
- of three or more arms two are told apart if Friedman's test of all arms rejects at 5 %, and so does the pair's own test after
  correction for all pairs: Wilcoxon's with Holm's correction where the repeats are enough for it to reach 5 % at all, and Nemenyi's
  where they are fewer.

Sources: Demsar 2006, "Statistical comparisons of classifiers over multiple data sets" (Friedman, Nemenyi); Benavoli, Corani and
Mangili 2016, "Should we really use post-hoc tests based on mean-ranks?" (why Wilcoxon's where it can); Holm 1979.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations

LEVEL, POWER = 0.05, 0.8
RESAMPLES = 4_000
MOST_NEEDED = 1_000  # repeats; an effect that asks for more is none that anybody would look for


class Rule(StrEnum):
    """Which test decides."""

    WILCOXON = "Wilcoxon's signed-rank test"
    HOLM = "Friedman's test, then Wilcoxon's signed-rank test with Holm's correction"
    NEMENYI = "Friedman's test, then Nemenyi's"
    NONE = "no test"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two arms. `p` is Wilcoxon's, `holm` the same after Holm's correction, `nemenyi` Nemenyi's (None: fewer than three arms).

    `superiority` is the chance that `first` beats `second` in a repeat, ties half, with its 95 % interval. `better` is the arm that
    is better if they are told apart, else None. `needed` is how many repeats in all would tell them apart with a power of 80 %
    if the effect is what it looks like (None: it looks like none).
    """

    first: str
    second: str
    p: float
    holm: float
    nemenyi: float | None
    superiority: float
    low: float
    high: float
    better: str | None
    needed: int | None


@dataclass(frozen=True, slots=True)
class Significance:
    """What paired repeats say of arms: `repeats` that every arm has a value in, of `rounds`; `left_out` arms have no value at all.

    `fewest` is the number of repeats below which Wilcoxon's test cannot reach 5 % for so many arms; `friedman` its p (None: two arms).
    `can_claim` is whether the rule could have told any arms apart with so many repeats.
    """

    arms: tuple[str, ...]
    left_out: tuple[str, ...]
    repeats: int
    rounds: int
    fewest: int
    rule: Rule
    friedman: float | None
    pairs: tuple[Pair, ...]
    can_claim: bool


def significance(losses: Mapping[str, Sequence[float | None]], seed: int = 0) -> Significance:
    """Compare arms by what they lost in each round (lower is better); None or NaN: nothing came of it.

    Only rounds in which every arm has a value count. `seed` draws the bootstrap's resamples.
    """
    known = {arm: [None if x is None or not math.isfinite(x) else x for x in values] for arm, values in losses.items()}
    arms = tuple(arm for arm, values in known.items() if any(x is not None for x in values))
    left_out = tuple(arm for arm in known if arm not in arms)
    rounds = max((len(values) for values in known.values()), default=0)
    table = [row for row in zip(*(known[arm] for arm in arms), strict=True) if None not in row]
    columns = {arm: [float(row[i] or 0.0) for row in table] for i, arm in enumerate(arms)}
    count, comparisons = len(table), math.comb(len(arms), 2)
    fewest = fewest_repeats(max(1, comparisons))
    if len(arms) < 2 or not table:
        return Significance(arms, left_out, count, rounds, fewest, Rule.NONE, None, (), can_claim=False)
    enough = count >= fewest
    rule = Rule.WILCOXON if len(arms) == 2 else Rule.HOLM if enough else Rule.NEMENYI
    friedman = _friedman(columns) if len(arms) > 2 else None
    can_claim = enough or _nemenyi_can(len(arms), count)
    return Significance(arms, left_out, count, rounds, fewest, rule, friedman, tuple(_pairs(columns, rule, friedman, seed)), can_claim)


def _pairs(columns: Mapping[str, Sequence[float]], rule: Rule, friedman: float | None, seed: int) -> Iterator[Pair]:
    chosen = list(combinations(columns, 2))
    nemenyi = _nemenyi(columns) if len(columns) > 2 else {}
    ps = [wilcoxon(columns[a], columns[b]) for a, b in chosen]
    for (a, b), p, corrected in zip(chosen, ps, holm(ps), strict=True):
        xs, ys = columns[a], columns[b]
        chance, low, high = superiority(xs, ys, seed)
        decisive = nemenyi[a, b] if rule is Rule.NEMENYI else corrected
        rejected = decisive <= LEVEL and (friedman is None or friedman <= LEVEL)
        better = (a if _is_ahead(xs, ys) else b) if rejected else None
        yield Pair(a, b, p, corrected, nemenyi.get((a, b)), chance, low, high, better, needed_repeats(xs, ys, len(chosen)))


def without_claims(found: Significance) -> Significance:
    """The same numbers with nothing concluded, for a value beside the one that decides."""
    return replace(found, pairs=tuple(replace(pair, better=None) for pair in found.pairs))


def fewest_repeats(comparisons: int) -> int:
    """How many pairs Wilcoxon's test needs at least to reach 5 % when it is made `comparisons` times: six for one."""
    return math.ceil(math.log2(2 * comparisons / LEVEL) - 1e-9)


def wilcoxon(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The two-sided p of the signed-rank test, pairs that are equal left out; 1 where all are.

    Among ties it is the exact one, too, as SciPy's, which tries all signs of at most 13 pairs one by one and takes a second.
    """
    from scipy import stats

    differences = [d for d in _differences(ys, xs) if d]
    if not differences:
        return 1.0
    if len({abs(d) for d in differences}) == len(differences):
        return float(stats.wilcoxon(differences).pvalue)
    ranks = [round(2 * rank) for rank in stats.rankdata([abs(d) for d in differences])]  # halves are whole then
    positive = sum(rank for rank, d in zip(ranks, differences, strict=True) if d > 0)
    ways = _sums(ranks)
    tail = min(math.fsum(ways[: positive + 1]), math.fsum(ways[positive:]))
    return min(1.0, 2 * tail)


def _differences(xs: Sequence[float], ys: Sequence[float]) -> list[int]:
    """By how much each x is lower, in millionths of the largest value: shares of few examples tie, though not in their last bits."""
    step = max(map(abs, (*xs, *ys))) * 1e-6
    return [round((y - x) / step) if step else 0 for x, y in zip(xs, ys, strict=True)]


def _sums(ranks: Sequence[int]) -> list[float]:
    """How likely each sum is of those ranks whose sign is positive, if signs are tossed like coins."""
    ways = [1.0]
    for rank in ranks:
        without, with_it = [*ways, *[0.0] * rank], [*[0.0] * rank, *ways]
        ways = [(a + b) / 2 for a, b in zip(without, with_it, strict=True)]
    return ways


def holm(ps: Sequence[float]) -> list[float]:
    """Each p as Holm's step-down procedure corrects it for all of them."""
    order = sorted(range(len(ps)), key=ps.__getitem__)
    corrected, highest = [0.0] * len(ps), 0.0
    for done, index in enumerate(order):
        highest = max(highest, min(1.0, ps[index] * (len(ps) - done)))
        corrected[index] = highest
    return corrected


def superiority(xs: Sequence[float], ys: Sequence[float], seed: int = 0) -> tuple[float, float, float]:
    """The share of pairs in which the loss x is the lower, ties half, and its 95 % percentile bootstrap interval over the pairs.

    Where all pairs agree a bootstrap sees no spread at all; then the interval is the exact binomial one.
    """
    import numpy as np

    count = len(xs)
    outcomes = [1.0 if lower > 0 else 0.5 if lower == 0 else 0.0 for lower in _differences(xs, ys)]
    share = math.fsum(outcomes) / count
    if len(set(outcomes)) == 1:
        doubt = 1 - (LEVEL / 2) ** (1 / count)  # of so many that agree: at most this share of all does not
        return (share, 0.5 - doubt / 2, 0.5 + doubt / 2) if share == 0.5 else (share, max(0.0, share - doubt), min(1.0, share + doubt))
    drawn = np.random.default_rng(seed).choice(outcomes, (RESAMPLES, count)).mean(axis=1)
    low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2])
    return share, float(low), float(high)


def needed_repeats(xs: Sequence[float], ys: Sequence[float], comparisons: int = 1) -> int | None:
    """How many pairs Wilcoxon's test needs for a power of 80 % at 5 % shared by `comparisons`, if the effect is what it looks like.

    None where the pairs show none, or one that asks for more than a thousand. The effect is the chance that two pairs' differences
    have a positive sum; where none contradicts, no more is known of it than that the fewest pairs that can reject at all may do.
    Source: Noether 1987, "Sample size determination for some common nonparametric tests", section 4.
    """
    from scipy.stats import norm

    differences = _differences(xs, ys)
    sums = [a + b for a, b in combinations(differences, 2)] or [2 * d for d in differences]
    effect = sum(1.0 if s > 0 else 0.5 if s == 0 else 0.0 for s in sums) / len(sums) - 0.5
    if effect == 0:
        return None
    if abs(effect) == 0.5:
        return fewest_repeats(comparisons)
    needed = (norm.ppf(1 - LEVEL / 2 / comparisons) + norm.ppf(POWER)) ** 2 / (3 * effect**2)
    return max(fewest_repeats(comparisons), math.ceil(needed)) if needed <= MOST_NEEDED else None


def _is_ahead(xs: Sequence[float], ys: Sequence[float]) -> bool:
    """Whether the differences speak for the first, as the signed-rank statistic weighs them."""
    differences = _differences(xs, ys)
    sums = [a + b for i, a in enumerate(differences) for b in differences[i:]]
    return sum(s > 0 for s in sums) > sum(s < 0 for s in sums)


def _friedman(columns: Mapping[str, Sequence[float]]) -> float:
    from scipy import stats

    if all(len(set(row)) == 1 for row in zip(*columns.values(), strict=True)):
        return 1.0  # the statistic is 0 / 0
    return float(stats.friedmanchisquare(*columns.values()).pvalue)


def _nemenyi(columns: Mapping[str, Sequence[float]]) -> dict[tuple[str, str], float]:
    import numpy as np
    from scikit_posthocs import posthoc_nemenyi_friedman

    found = posthoc_nemenyi_friedman(np.array(list(columns.values())).T).to_numpy()
    return {(a, b): float(found[i, j]) for (i, a), (j, b) in combinations(enumerate(columns), 2)}


def _nemenyi_can(arms: int, repeats: int) -> bool:
    """Whether Nemenyi's test would reject if one arm were first and another last in every repeat."""
    from scipy.stats import studentized_range

    if arms < 3:
        return False
    ordered = (arms - 1) / math.sqrt(arms * (arms + 1) / (6 * repeats))
    return bool(studentized_range.sf(ordered * math.sqrt(2), arms, math.inf) <= LEVEL)
