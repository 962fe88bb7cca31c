"""A trainer for the fault table: epochs of a known length, a checkpoint of every one, and a note of every one trained."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import torch

from hpo.trainer import RunningTrial


def steady(
    trial: RunningTrial, *, x: float, y: float = 0.1, kind: str = "good", seconds: float = 0.0, notes: str = "", weights: int = 8
) -> Iterator[dict[str, float]]:
    """Rises towards 1 - (x - 0.3)^2, one epoch in `seconds`.

    With `notes` it appends to that file: `trial attempt's-first-epoch epoch time process asked` when it is asked for an epoch,
    which says that the one before was acknowledged, and the same with `trained` at the epoch's end.
    """
    state = trial.restored() or {"epoch": 0}
    first = state["epoch"] + 1
    for epoch in range(first, trial.max_epochs + 1):
        _note(notes, trial.number, first, epoch, "asked")
        time.sleep(seconds)
        trial.save(epoch=epoch, weights=torch.full((weights,), x * epoch))
        _note(notes, trial.number, first, epoch, "trained")
        yield {"value": 1 - (x - 0.3) ** 2 - y / epoch, "epoch": float(epoch)}


def _note(file: str, *words: object) -> None:
    if file:
        line = " ".join(map(str, (*words[:3], time.time(), os.getpid(), *words[3:])))
        notes = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(notes, f"{line}\n".encode())  # one write, so that lines of several processes do not mix
        os.close(notes)
