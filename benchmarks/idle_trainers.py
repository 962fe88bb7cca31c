"""Trainers that measure the engine and not themselves: one that does nothing, one that only sleeps."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from hpo.trainer import RunningTrial


def nothing(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """One value an epoch, at no cost."""
    for _ in range(trial.max_epochs):
        yield {"value": x}


def sleeping(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """An epoch of 0.1 s that leaves the processor idle; reports when it began and in which process."""
    for _ in range(trial.max_epochs):
        began = time.time()
        time.sleep(0.1)
        yield {"value": x, "began": began, "ended": time.time(), "pid": float(os.getpid())}
