"""Trainers for tests of comparisons: one that breaks a tournament off once, and one that never yields a value."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hpo.trainer import RunningTrial


def broken_off_once(trial: RunningTrial, *, x: float, number: int) -> Iterator[dict[str, float]]:
    """Rises to 1 - (x - 0.3)^2. In a study of qmc it sends its process the signal of that number, once."""
    study = trial.folder.parents[1]
    marker = study.parent / f"broken-off-{number}"
    for epoch in range(1, trial.max_epochs + 1):
        if "qmc" in study.name and epoch == 2 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), number)
        yield {"value": 1 - (x - 0.3) ** 2 - 1 / epoch}


def hopeless(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Fails before its first epoch."""
    raise RuntimeError(f"nothing comes of {x} in {Path(trial.folder).name}")
    yield {}
