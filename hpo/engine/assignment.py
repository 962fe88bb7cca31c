"""What goes to a worker and what comes back: plain records, the same for every engine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpo.space import Value
from hpo.trial import Direction, Measurement


@dataclass(frozen=True, slots=True)
class Assignment:
    """One trial, as its worker needs it.

    `arguments` are the trainer's keyword arguments: searched parameters and fixed settings. The worker hands back what it
    has at every epoch in `rungs`, where the study decides. Only a trial whose loss falls below `keep_below` can
    be among the best, so only its checkpoints are written.
    """

    number: int
    seed: int
    entry: str
    arguments: Mapping[str, Value]
    folder: Path
    metric: str
    direction: Direction
    max_epochs: int
    rungs: tuple[int, ...] = ()
    patience: int | None = None
    checkpoint_every_s: float = 30.0
    keep_below: float = math.inf


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a trial FAILED: `rule` is error (the trainer raised) or metric (it reported something unusable)."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker trained since its last report; `ended` says that the trainer has no further epoch."""

    measurements: tuple[Measurement, ...]
    ended: bool = False
    failure: Failure | None = None
