"""What a trainer is to the rest: a generator that yields metrics after every epoch, and the trial it is handed.

Imports no torch: a trainer's state is told apart by what it can do, and only trainers know tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, Protocol

Metrics = Mapping[str, float]
Trainer = Callable[..., Generator[Metrics, None, None]]


class TrainerError(Exception):
    """This trial FAILED and says why; the study goes on."""


class MetricError(TrainerError):
    """The trainer reported something that is no usable value: NaN, infinity, text, or nothing."""


class RunningTrial(Protocol):
    """The first argument of every trainer: `def train(trial, *, learning_rate: float, ...)`."""

    number: int
    seed: int  # derived from the study's seed and the number; seed every generator with it
    device: str  # "cpu" or "cuda:0": what this trial may use
    max_epochs: int  # the engine closes the generator after this many epochs, or earlier
    folder: Path  # the trial's own folder, for anything the trainer wants to keep

    def save(self, **state: Any) -> None:
        """Offer the state of this epoch (nested dicts, lists, numbers, text, arrays, tensors) before yielding its metrics.

        Nothing is copied here: it is read while the generator is suspended at the next `yield`, and only if this epoch
        is the best so far or a checkpoint is due. `model=net.state_dict()` and `example=inputs[:2]` are what the
        registered model is built from.
        """

    def restored(self) -> dict[str, Any] | None:
        """The newest saved state, tensors on the CPU, if the trial goes on from a checkpoint; None if it starts."""
