"""Trainers that a signal finds in the middle of something, or that take their own worker down."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Iterator

from hpo.engine.worker import SLICE_S
from hpo.trainer import RunningTrial

LONG_S = 600


def _reported(trial: RunningTrial, x: float) -> Iterator[dict[str, float]]:
    """Two epochs, each long enough to be reported; `third` says by whom the next was begun: then these two are acknowledged."""
    for epoch in (1, 2):
        time.sleep(SLICE_S)
        yield {"value": x + epoch}
    (trial.folder / "third").write_text(str(os.getpid()))


def sleeping(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """A third epoch of ten minutes."""
    yield from _reported(trial, x)
    time.sleep(LONG_S)


def busy(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """A third epoch of ten minutes in C, which lets no other thread of its process run Python."""
    yield from _reported(trial, x)
    ctypes.PyDLL(None).sleep(LONG_S)


def forking(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Two children of its own in a third epoch of ten minutes, one of which left its session and lost its parent."""
    subprocess.Popen(["sleep", str(LONG_S)])
    subprocess.run(["sh", "-c", f"setsid sleep {LONG_S} & exit 0"], check=True)
    yield from _reported(trial, x)
    time.sleep(LONG_S)


def steady(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Epochs that are reported one by one, each with a checkpoint, by whom, and gone on from where."""
    import torch  # as real trainers do: it is most of a fresh worker's start

    state = trial.restored() or {"epoch": 0}
    for epoch in range(state["epoch"] + 1, trial.max_epochs + 1):
        time.sleep(SLICE_S)
        trial.save(epoch=epoch, weights=torch.full((3,), x))
        yield {"value": x + epoch, "process": float(os.getpid()), "restored": float(state["epoch"])}


def crashing(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Reads address 0 at the second epoch of trial 1, the first time."""
    for epoch in range(1, trial.max_epochs + 1):
        marker = trial.folder / "crashed"
        if trial.number == 1 and epoch == 2 and not marker.exists():
            marker.touch()
            ctypes.string_at(0)
        yield {"value": x + epoch}


def stuck(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Hangs in C in the first epoch of trial 1."""
    for epoch in range(1, trial.max_epochs + 1):
        if trial.number == 1:
            ctypes.PyDLL(None).sleep(LONG_S)
        yield {"value": x + epoch}


def hoarding(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Takes six gigabytes at the second epoch of trial 1, the first time, and keeps them until it is killed."""
    for epoch in range(1, trial.max_epochs + 1):
        marker = trial.folder / "hoarded"
        if trial.number == 1 and epoch == 2 and not marker.exists():
            marker.touch()
            hoard = [bytes([part]) * 10**8 for part in range(60)]
            time.sleep(LONG_S)
            hoard.clear()
        yield {"value": x + epoch}
