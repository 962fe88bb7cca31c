"""Asynchronous successive halving: which trials go on at a rung. Pure: arrivals in, verdict out; no clock, no files.

Source: Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning" (ASHA). Two forms:

- stop: a trial is judged once, when it arrives at a rung, against those that arrived before it. Where this departs from
  Ray's implementation: the quota is exactly the top 1/eta of all arrivals, the one that arrives now among them; NaN is the
  worst value; of equal values no more go on than the quota allows; rungs are exact powers (integers, no logarithms).
- promote: a trial waits at every rung and goes on when a place is free. Of n arrivals floor(n / eta) go on in all, where
  algorithm 2 of the paper takes whoever is among the top floor(n / eta) by now: more than a share of 1/eta, since those at
  the top change. Whoever is the best of those that wait is among the top floor(n / eta) while a place is free.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from hpo.trial import Decision


@dataclass(slots=True)
class Arrivals:
    """The losses of those that came to a rung (lower is better, NaN worst), in order, and how many of each value went on."""

    _losses: list[float] = field(default_factory=list)
    _went_on: Counter[float] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self._losses)

    @property
    def went_on(self) -> int:
        """How many went on."""
        return self._went_on.total()

    def add(self, loss: float, *, went_on: bool) -> None:
        """One more came, and goes on or does not."""
        key = worst_if_nan(loss)
        insort(self._losses, key)
        self._went_on[key] += went_on

    def turn(self, loss: float, *, goes_on: bool) -> None:
        """One of that loss, which went on, does not, or the other way round."""
        self._went_on[worst_if_nan(loss)] += 1 if goes_on else -1

    def better(self, loss: float) -> int:
        """How many have a lower loss."""
        return bisect_left(self._losses, worst_if_nan(loss))

    def equal_ahead(self, loss: float) -> int:
        """How many of that loss went on."""
        return self._went_on[worst_if_nan(loss)]

    def best(self, rank: int, newcomer: float) -> float:
        """The loss of that rank, from 1, with `newcomer` among them."""
        key, index = worst_if_nan(newcomer), rank - 1
        place = bisect_left(self._losses, key)
        return key if index == place else self._losses[index - (index > place)]


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


def rungs(grace_epochs: int, reduction_factor: int, max_epochs: int, closest: float = 1.0) -> tuple[int, ...]:
    """The epochs at which trials are judged: grace * eta^k below `max_epochs`, where nothing is left to decide.

    One so near the end that max_epochs / rung is below `closest` is left out.
    """
    found = []
    epoch = grace_epochs
    while epoch < max_epochs and max_epochs / epoch >= closest:
        found.append(epoch)
        epoch *= reduction_factor
    return tuple(found)


def bracket(seed: int, rungs: Sequence[int], reduction_factor: int, max_epochs: int, brackets: int) -> int:
    """How many of the lowest rungs the trial of that seed skips: 0 to `brackets` - 1, each as often as gives all the same epochs.

    Source: Li et al. 2018, "Hyperband", section 3: brackets of equal budgets, since early epochs may mislead.
    """
    weights = [1 / _expected_epochs(rungs[skipped:], reduction_factor, max_epochs) for skipped in range(brackets)]
    left = share(seed, "bracket") * sum(weights)
    for skipped, weight in enumerate(weights):
        left -= weight
        if left < 0:
            return skipped
    return brackets - 1


def _expected_epochs(rungs: Sequence[int], reduction_factor: int, max_epochs: int) -> float:
    """What a trial costs of which 1/eta goes on at each rung."""
    before, alive, epochs = 0, 1.0, 0.0
    for rung in (*rungs, max_epochs):
        epochs += alive * (rung - before)
        before, alive = rung, alive / reduction_factor
    return epochs


def share(seed: int, purpose: str) -> float:
    """A number in [0, 1) that is drawn by the seed, another one for each purpose."""
    return int.from_bytes(hashlib.blake2b(f"{purpose}/{seed}".encode(), digest_size=6).digest()) / 2**48


def judge(earlier: Arrivals, loss: float, reduction_factor: int) -> Verdict:
    """Whether a trial that arrives at a rung with `loss` goes on.

    Of n arrivals the best floor(n / eta) go on, but never fewer than one: the first to arrive has nobody to lose against
    and always goes on, whatever its value (unless it is NaN), which is the price of never waiting. Equal values compete
    for the places that are left: of a plateau of n equal values, floor(n / eta) go on.
    """
    quota = max(1, (len(earlier) + 1) // reduction_factor)
    rank = earlier.better(loss) + earlier.equal_ahead(loss) + 1
    goes_on = rank <= quota and math.isfinite(loss)
    return Verdict(Decision.CONTINUE if goes_on else Decision.STOP, rank, len(earlier) + 1, quota, earlier.best(quota, loss))


def worst_if_nan(loss: float) -> float:
    """The loss as it is compared: NaN is infinity."""
    return math.inf if math.isnan(loss) else loss
