"""What the learning rate is multiplied with at each step. Pure arithmetic: knows no optimizer and no torch."""

from __future__ import annotations

import math
from typing import assert_never

from trainers.recipe import Schedule

EXPONENTIAL_END = 0.01  # of the learning rate, where an exponential schedule ends


def factor(schedule: Schedule, step: int, total: int, warmup: int) -> float:
    """What to multiply the learning rate with at `step` (from 0) of `total`, of which the first `warmup` warm up.

    The warm-up is linear and starts above 0: (step + 1) / (warmup + 1), so that its last step is followed by 1 (Goyal et al.
    2017, "Accurate, Large Minibatch SGD", section 2.2). Over the remaining steps t goes from 0 towards 1, which would be step
    `total`, and the factor is
      constant     1
      linear       1 - t
      cosine       (1 + cos(pi t)) / 2   (Loshchilov & Hutter 2017, "SGDR", eq. 5, without restarts)
      exponential  0.01 ** t             (Bengio 2012, "Practical Recommendations", 3.1.1, names it; the end is our choice)
    After `total` it stays where it ended.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    t = min(1.0, (step - warmup) / (total - warmup)) if total > warmup else 1.0
    match schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - t
        case "cosine":
            return (1.0 + math.cos(math.pi * t)) / 2
        case "exponential":
            return float(EXPONENTIAL_END**t)
        case _:
            assert_never(schedule)
