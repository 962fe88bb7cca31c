"""Trainers of the tests' own: quick, and misbehaving in known ways."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from hpo.data import DataError
from hpo.trainer import RunningTrial


def quadratic(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Converges to 1 - (x - 0.3)^2; goes on from where it was saved."""
    state = trial.restored() or {"epoch": 0}
    for epoch in range(state["epoch"] + 1, trial.max_epochs + 1):
        trial.save(epoch=epoch, weights=np.full(3, x * epoch))
        yield {"value": 1 - (x - 0.3) ** 2 - 1 / epoch, "epoch": float(epoch)}


def mixed(trial: RunningTrial, *, x: float, kind: str = "good") -> Iterator[dict[str, Any]]:
    """Good, bad, NaN or raising, as `kind` says."""
    for epoch in range(1, trial.max_epochs + 1):
        print(f"epoch {epoch}")
        if kind == "raising" and epoch == 2:
            raise RuntimeError("boom")
        if kind == "nan" and epoch == 2:
            yield {"value": float("nan")}
        yield {"value": x + epoch / 100 + (kind == "good")}


def misbehaving(trial: RunningTrial, *, x: float, kind: str) -> Iterator[Any]:
    """Reports nonsense at its second epoch."""
    yield {"value": x}
    match kind:
        case "text":
            yield {"value": "0.9"}
        case "bool":
            yield {"value": True}
        case "nothing":
            yield None
        case "missing":
            yield {"loss": 1.0}
        case "infinite":
            yield {"value": float("inf")}
        case "array":
            yield {"value": np.zeros(2)}
        case "huge":
            yield {"value": 10**400}
        case "exit":
            sys.exit(3)
        case "no data":
            raise DataError("x.csv:9: nothing there; fill the gap or drop the row")
        case "reserved":
            trial.save(hpo=1)
            yield {"value": x}


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Beyond(BaseException):
    pass


def verbose(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Raises many lines, with control characters."""
    yield {"value": x}
    raise ValueError("first\nsecond\n\x1b[31mred " + "x" * 5000)


def unspeakable(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Raises what cannot be printed."""
    yield {"value": x}
    raise Unspeakable


def beyond(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Raises what is no Exception."""
    yield {"value": x}
    raise Beyond


def scalar(trial: RunningTrial, *, x: float) -> Iterator[dict[str, Any]]:
    """A zero-dimensional array is a number, and an extra metric may be NaN."""
    yield {"value": np.float32(x), "array": np.array(2.0), "extra": float("nan")}


def silent(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Ends before its first epoch."""
    if x > 2:
        yield {"value": x}


def no_generator(trial: RunningTrial, *, x: float) -> dict[str, float]:
    """Returns where it should yield."""
    return {"value": x}


def dying(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Kills its own process at epoch 3 of trial 1, the first time."""
    state = trial.restored() or {"epoch": 0}
    for epoch in range(state["epoch"] + 1, trial.max_epochs + 1):
        trial.save(epoch=epoch)
        marker = trial.folder / "died"
        if trial.number == 1 and epoch == 3 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield {"value": x + epoch, "started_at": float(state["epoch"])}


def endless(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Epochs without end, 20 a second."""
    for epoch in itertools.count(1):
        time.sleep(0.05)
        yield {"value": x - 1 / epoch, "pid": float(os.getpid())}


def dying_after(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Kills its own process when the study's first trial is closed, which is when its worker is reset for the next."""
    try:
        for epoch in range(1, 1 + trial.max_epochs):
            yield {"value": x + epoch}
    finally:
        marker = trial.folder.parent / "died"
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def interrupting(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Sends its driver a Ctrl-C in the middle of the third trial."""
    for epoch in range(1, trial.max_epochs + 1):
        if trial.number == 2 and epoch == 2 and "HPO_TEST_DRIVER_SPARED" not in os.environ:
            os.kill(int(os.environ["HPO_TEST_DRIVER"]), signal.SIGINT)
        yield {"value": x + epoch}
