"""What a search had found after so many epochs: incumbents from measurements, regrets from incumbents. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.curves import Scale
from hpo.trial import Direction

Steps = tuple[tuple[int, float], ...]
"""Epochs spent, and the best value from then on: the points at which an incumbent improved, in order."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """One trained epoch of a study: when it ended (virtual seconds), its trial's number, its own, and its value or NaN."""

    at: float
    trial: int
    epoch: int
    value: float


@dataclass(frozen=True, slots=True)
class Progress:
    """The incumbents of one study: of all values `seen`, and of those of `full` trainings after their last epoch."""

    seen: Steps
    full: Steps
    epochs: int
    trials: int

    @classmethod
    def of(cls, epochs: Iterable[Epoch], direction: Direction, max_epochs: int) -> Progress:
        """Every epoch is counted, in order of its end, of several at the same time by trial."""
        ordered = sorted(epochs, key=lambda e: (e.at, e.trial, e.epoch))
        seen = _incumbents(((spent, e.value) for spent, e in enumerate(ordered, 1)), direction)
        full = _incumbents(((spent, e.value) for spent, e in enumerate(ordered, 1) if e.epoch == max_epochs), direction)
        return cls(seen, full, len(ordered), len({e.trial for e in ordered}))

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Progress:
        """What `dataclasses.asdict` and JSON made of it."""
        steps = {name: tuple((int(spent), float(value)) for spent, value in plain[name]) for name in ("seen", "full")}
        return cls(steps["seen"], steps["full"], plain["epochs"], plain["trials"])


def _incumbents(values: Iterable[tuple[int, float]], direction: Direction) -> Steps:
    lowest, steps = math.inf, []
    for spent, value in values:
        if math.isfinite(value) and direction.loss(value) < lowest:
            lowest = direction.loss(value)
            steps.append((spent, value))
    return tuple(steps)


def value_at(steps: Steps, epochs: float) -> float:
    """The incumbent's value after so many epochs; NaN before the first."""
    reached = [value for spent, value in steps if spent <= epochs]
    return reached[-1] if reached else math.nan


def regret_at(steps: Steps, scale: Scale, epochs: float) -> float:
    """The incumbent's regret after so many epochs, 1 before the first."""
    return scale.regret(value_at(steps, epochs))


def epochs_to(steps: Steps, direction: Direction, value: float) -> float:
    """After how many epochs a value at least as good was seen; infinity if it never was."""
    return next((spent for spent, found in steps if direction.loss(found) <= direction.loss(value)), math.inf)
