"""Asynchronous successive halving: which trials go on at a rung. Pure: arrivals in, verdict out; no clock, no files.

Source: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (ASHA), in its stopping form: a trial is
judged once, when it arrives at a rung, against those that arrived before it. Where this departs from Ray's
implementation: the quota is exactly the top 1/eta of all arrivals, the one that arrives now among them; NaN is the worst
value; of equal values no more go on than the quota allows; rungs are exact powers (integers, no logarithms).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hpo.trial import Decision


@dataclass(frozen=True, slots=True)
class Arrival:
    """A trial at a rung: its loss there (lower is better, NaN worst) and whether it went on."""

    loss: float
    went_on: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision and the numbers behind it.

    `rank` counts from 1 among `arrivals` (all at the rung, this one included); the best `quota` go on; `cutoff` is the
    loss of the quota-th best.
    """

    decision: Decision
    rank: int
    arrivals: int
    quota: int
    cutoff: float


def rungs(grace_epochs: int, reduction_factor: int, max_epochs: int) -> tuple[int, ...]:
    """The epochs at which trials are judged: grace * eta^k below `max_epochs`, where nothing is left to decide."""
    found = []
    epoch = grace_epochs
    while epoch < max_epochs:
        found.append(epoch)
        epoch *= reduction_factor
    return tuple(found)


def judge(earlier: Sequence[Arrival], loss: float, reduction_factor: int) -> Verdict:
    """Whether a trial that arrives at a rung with `loss` goes on.

    Of n arrivals the best floor(n / eta) go on, but never fewer than one: the first to arrive has nobody to lose against
    and always goes on, whatever its value (unless it is NaN), which is the price of never waiting. Equal values compete
    for the places that are left: of a plateau of n equal values, floor(n / eta) go on.
    """
    key = _worst_if_nan(loss)
    losses = [_worst_if_nan(arrival.loss) for arrival in earlier]
    quota = max(1, (len(earlier) + 1) // reduction_factor)
    better = sum(other < key for other in losses)
    equal_ahead = sum(other == key and arrival.went_on for other, arrival in zip(losses, earlier, strict=True))
    rank = better + equal_ahead + 1
    goes_on = rank <= quota and math.isfinite(loss)
    cutoff = sorted([*losses, key])[quota - 1]
    return Verdict(Decision.CONTINUE if goes_on else Decision.STOP, rank, len(earlier) + 1, quota, cutoff)


def _worst_if_nan(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss
