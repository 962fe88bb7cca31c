"""Early stopping inside one trial: has its own curve stopped improving? Pure: losses in, answer out."""

from __future__ import annotations

from collections.abc import Sequence


def patience_is_over(losses: Sequence[float], epochs: int) -> bool:
    """Whether the last `epochs` values brought nothing better than the best before them.

    `losses` are one trial's values, lower is better, one for each epoch. Source: Goodfellow et al. 2016, "Deep
    Learning", algorithm 7.1, with one evaluation an epoch and the best epoch's parameters kept.
    """
    if len(losses) <= epochs:
        return False
    return min(losses[-epochs:]) >= min(losses[:-epochs])
