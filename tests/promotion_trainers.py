"""Trainers whose every epoch can be told from outside: what was drawn, where the segment began, who trained it and when."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from hpo.trainer import RunningTrial

SECONDS = "HPO_TEST_EPOCH_S"  # how long an epoch takes
NOTES = "trained"  # in the trial's folder, a line for each epoch that was trained


class Note(NamedTuple):
    """An epoch that a trainer trained: when it began and ended, in which process; `start` is the epoch that its segment goes on behind."""

    epoch: int
    start: int
    began: float
    ended: float
    process: int


def drawn(seed: int, epoch: int) -> float:
    """What a generator seeded so gives as its `epoch`-th number; its state is one integer."""
    state = seed
    for _ in range(epoch):
        state = _next(state)
    return state / 2**64


def curve(x: float, seed: int, epoch: int) -> float:
    """What a trial that nothing interrupts measures: it rises to about x."""
    return x - 0.5 / epoch + 0.1 * drawn(seed, epoch)


def notes(folder: Path) -> list[Note]:
    """What was noted in a trial's folder."""
    lines = (folder / NOTES).read_text().splitlines() if (folder / NOTES).exists() else []
    return [Note(int(a), int(b), float(c), float(d), int(e)) for a, b, c, d, e in map(str.split, lines)]


def tracing(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Offers its state at every epoch."""
    yield from _train(trial, x, trial.restored(), saves=lambda _: True)


def forgetful(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Offers no state and begins each segment again."""
    yield from _train(trial, x, None, saves=lambda _: False)


def sparing(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Offers its state at every second epoch."""
    yield from _train(trial, x, trial.restored(), saves=lambda epoch: epoch % 2 == 0)


def dying_in_a_segment(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Kills its own process once in the study, after the first epoch that any trial trains behind its pause."""
    state, marker = trial.restored(), trial.folder.parent / "died"
    for metrics in _train(trial, x, state, saves=lambda _: True):
        yield metrics
        if state and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def _train(trial: RunningTrial, x: float, state: Mapping[str, int] | None, saves: Callable[[int], bool]) -> Iterator[dict[str, float]]:
    state = state or {"epoch": 0, "draw": trial.seed}
    start, draw = state["epoch"], state["draw"]
    for epoch in range(start + 1, trial.max_epochs + 1):
        began = time.time()
        time.sleep(float(os.environ.get(SECONDS, "0")))
        draw = _next(draw)
        if saves(epoch):
            trial.save(epoch=epoch, draw=draw)
        with (trial.folder / NOTES).open("a") as file:
            file.write(f"{epoch} {start} {began} {time.time()} {os.getpid()}\n")
        yield {"value": x - 0.5 / epoch + 0.1 * draw / 2**64, "draw": draw / 2**64, "start": float(start)}


def _next(state: int) -> int:
    """One step of a linear congruential generator (Knuth's MMIX)."""
    return (state * 6364136223846793005 + 1442695040888963407) % 2**64
