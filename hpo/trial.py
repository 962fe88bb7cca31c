"""The nouns of a search: trial, measurement, state, decision. Pure, and the same for every engine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from hpo.space import Params


class State(StrEnum):
    """Where a trial stands. Nothing leaves COMPLETE, PRUNED or FAILED."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        return self in (State.COMPLETE, State.PRUNED, State.FAILED)


class Course(StrEnum):
    """How a trial goes through its rungs: judged at each, or trained to its end unjudged.

    Unjudged are those that are to give a finished model, those of the audit, and the finals', which train a configuration again.
    """

    COMPETES = "competes"
    FINISH = "finish"
    AUDIT = "audit"
    FINALS = "finals"


FINALS_FROM = 10**9  # the first number of the finals, far behind those of the search, which may yet go on
DEFAULTS = -1  # stands for the trainer's own configuration, where a trial of the finals replicates that


def key_of(number: int) -> str:
    """A trial's number as people write it: `17`, or `final-3` of the finals; `defaults` for DEFAULTS."""
    if number == DEFAULTS:
        return "defaults"
    return f"final-{number - FINALS_FROM}" if number >= FINALS_FROM else str(number)


def name_of(number: int) -> str:
    """`trial 17`, `final-3`, or `the defaults`."""
    key = key_of(number)
    return f"trial {key}" if number >= 0 and number < FINALS_FROM else "the defaults" if number == DEFAULTS else key


class Decision(StrEnum):
    """What a running trial is told after a report."""

    CONTINUE = "continue"
    STOP = "stop"
    PAUSE = "pause"


class Direction(StrEnum):
    """Which way the objective's metric is better."""

    MAXIMIZE = "maximize"
    MINIMIZE = "minimize"

    def loss(self, value: float) -> float:
        """The metric's value turned so that lower is better; its own inverse."""
        return -value if self is Direction.MAXIMIZE else value


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one epoch of one trial reported.

    `epoch` counts trained epochs from 1; `value` is the objective's metric in its own direction and finite;
    `metrics` holds every reported metric, the objective's among them; `seconds` is what the epoch took. `at` is when it
    ended, in virtual seconds of a simulated study, and None of a real one, whose journal has the time.
    """

    epoch: int
    value: float
    metrics: Mapping[str, float]
    seconds: float
    at: float | None = None


@dataclass(slots=True)
class Trial:
    """One configuration and what became of it, in the search or in the finals. Changed by `hpo.study.Study.apply` alone.

    `ladder` names those that it competes with. `arrived` says of each measurement how many the whole study had by then, this
    one included, and `ended_at` how many it had when the trial ended. `attempts` counts how often it was given to a worker,
    `deaths` those that ended with their worker, preempted ones left out. `replicates` is the trial whose parameters one of the
    finals has, or DEFAULTS; None for a trial of the search.
    """

    number: int
    params: Params
    seed: int
    state: State = State.RUNNING
    measurements: list[Measurement] = field(default_factory=list)
    reason: str = ""
    attempts: int = 1
    deaths: int = 0
    ladder: str = ""
    course: Course = Course.COMPETES
    arrived: list[int] = field(default_factory=list)
    ended_at: int | None = None
    replicates: int | None = None

    @property
    def in_finals(self) -> bool:
        """Whether it trains a configuration again, to judge it, and is none of the search's."""
        return self.replicates is not None

    @property
    def epoch(self) -> int:
        """Epochs measured so far."""
        return self.measurements[-1].epoch if self.measurements else 0

    @property
    def is_untried(self) -> bool:
        """Whether the study's end cut it short before its first epoch: nothing is known of its parameters."""
        return self.state is State.PRUNED and not self.measurements

    def best(self, direction: Direction) -> Measurement | None:
        """The measurement of its best epoch, the earliest of equals; None before the first."""
        return min(self.measurements, key=lambda m: direction.loss(m.value), default=None)


def trial_seed(study_seed: int, number: int) -> int:
    """The seed of trial `number`: 31 bits, the same on every machine, unlike those of its neighbours."""
    digest = hashlib.blake2b(f"{study_seed}/{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) >> 1
