"""What goes to a worker and what comes back: plain records, the same for every engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpo.places import Place
from hpo.space import Value
from hpo.stopping import NoStopper, Stopper
from hpo.trial import Direction, Measurement


@dataclass(frozen=True, slots=True)
class Assignment:
    """One trial, as its worker needs it; small, for it is sent to another machine.

    `arguments` are the trainer's keyword arguments: searched parameters and fixed settings. The worker hands back what it
    has at every epoch in `rungs`, where the study decides, and where `stopper` ends the trial. One that `pauses` at rungs
    writes there what it goes on from. Only a trial whose loss falls below `keep_below` can be among the best, so only its
    checkpoints are written.

    `lease` and `attempt` are in the names of the checkpoints that this worker writes: an earlier one that was given up, but
    lives on somewhere, can then spoil nothing. It goes on from none of a lease before `since`, under which the trial was asked for.
    `timeout_s` is how long it may take for one epoch before it counts as hung. `known_epochs` is how many epochs the study has of a
    trial whose worker was cut off, which may have written one more. `study` is the name that commands know it by.
    """

    number: int
    seed: int
    entry: str
    arguments: Mapping[str, Value]
    folder: Place
    metric: str
    direction: Direction
    max_epochs: int
    rungs: tuple[int, ...] = ()
    pauses: bool = False
    stopper: Stopper = field(default_factory=NoStopper)
    checkpoint_every_s: float = 30.0
    keep_below: float = math.inf
    lease: int = 1
    attempt: int = 1
    since: int = 0
    timeout_s: float | None = None
    study: str = "STUDY"
    known_epochs: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial cannot go on.

    `rule` is error (the trainer raised), metric (it reported something unusable), checkpoint (its own cannot be read),
    timeout (no epoch ended in time) or disk (no space is left, which is no fault of the trial's: the study stops).
    """

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker trained since its last report; `ended` says that the trainer has no further epoch."""

    measurements: tuple[Measurement, ...]
    ended: bool = False
    failure: Failure | None = None
