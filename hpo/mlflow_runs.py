"""A run of MLflow as the journal has it: parameters, tags and points that are to be sent, and what was. Pure: no mlflow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from hpo.events import Measured
from hpo.space import Params
from hpo.trial import Course, State

STUDY = "study"  # the key of the parent run; a trial's is that of `hpo.trial.key_of`
CHAMPION_TAG = "hpo.champion"  # "name/version", of the parent and of the trials that were; or why the parent has none
NOTE_TAG, COLOUR_TAG = "mlflow.note.content", "mlflow.runColor"  # MLflow's own: a run's description, and the colour of its lines


class Status(StrEnum):
    """A run's status in MLflow's words; a pruned or interrupted trial is KILLED."""

    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    KILLED = "KILLED"
    FAILED = "FAILED"


STATUS_OF = {State.COMPLETE: Status.FINISHED, State.PRUNED: Status.KILLED, State.FAILED: Status.FAILED}
COLOUR_OF = {State.COMPLETE: "#1b7f4d", State.PRUNED: "#9aa5b1", State.FAILED: "#c0392b"}
COLOUR_OF_FINALS = "#1f4e79"
STATUS_AFTER = {"interrupted": Status.KILLED, "error": Status.FAILED}


class Point(NamedTuple):
    """One value of one metric; `at_ms` since the epoch belongs to its identity in MLflow."""

    name: str
    value: float
    step: int
    at_ms: int


@dataclass(slots=True)
class Run:
    """One run as it must be; params, tags and points are what was not sent yet, `shown` and `shown_ms` the end that was.

    `creates` counts how often it was asked for: more than once, and a late answer to the first may make it twice.
    `refusals` counts how often the store would not take the next of it. `offered` has what tags that people may change were
    given, and `told` the value and step of the last point of each name that says how far it came.
    """

    key: str
    name: str
    started_ms: int
    params: dict[str, str]
    tags: dict[str, str]
    arguments: Params = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    status: Status = Status.RUNNING
    ended_ms: int = 0
    run_id: str = ""
    state: str = "running"
    shown: Status = Status.RUNNING
    shown_ms: int = 0
    creates: int = 0
    refusals: int = 0
    best: Measured | None = None
    last: Measured | None = None
    seconds: float = 0.0
    attempt: int = 1
    offered: dict[str, list[str]] = field(default_factory=dict)
    told: dict[str, tuple[float, int]] = field(default_factory=dict)

    def offer(self, name: str, value: str) -> None:
        """Give it a tag that people may change: what they wrote in its place stays."""
        self.tags[name] = value
        self.offered.setdefault(name, []).append(value)

    def is_theirs(self, name: str, stored: str | None) -> bool:
        """Whether `stored` is what people made of a tag that was offered."""
        return name in self.offered and stored is not None and stored not in self.offered[name]

    def leave(self, stored: Mapping[str, str]) -> None:
        """Not to be sent are the tags that people changed, of those that the store has."""
        self.tags = {name: value for name, value in self.tags.items() if not self.is_theirs(name, stored.get(name))}

    def tell(self, name: str, value: float, step: int, at_ms: int) -> None:
        """Add a point that says how far it came, unless the last of that name said just this."""
        if self.told.get(name) != (value, step):
            self.told[name] = (value, step)
            self.points.append(Point(name, value, step, at_ms))

    def again(self, attempt: int, course: Course | None = None) -> None:
        """It was given out once more, to go on as before or on another course."""
        self.attempt, self.tags["hpo.attempt"] = attempt, str(attempt)
        self.tags |= {"hpo.course": course.value} if course else {}

    def turn(self, status: Status, state: str, at_ms: int) -> None:
        """Give it another status from `at_ms` on."""
        self.status, self.ended_ms = status, at_ms
        self.stand(state)

    def stand(self, state: str) -> None:
        """Say how it stands."""
        self.state = self.tags["hpo.state"] = state

    @property
    def of_search(self) -> bool:
        """Whether it is a trial of the search; neither one of the finals nor the study."""
        return self.key.isdecimal()

    @property
    def epochs(self) -> int:
        """How many were measured."""
        return self.last.epoch if self.last else 0

    @property
    def is_trusted(self) -> bool:
        """Whether a run that is seen closed like this can lack nothing: its status is sent last, and nothing follows.

        To the study's and to those of the finals, one of which is chosen and tested, something may be added.
        """
        return self.state in STATUS_OF and self.of_search

    @property
    def end_is_shown(self) -> bool:
        """Whether its status, and when it ended, were sent. A run that was opened again may end with the status it had."""
        return self.status is self.shown and (self.status is Status.RUNNING or self.ended_ms == self.shown_ms)

    @property
    def behind(self) -> int:
        """How much of it was not sent yet; 0 when the store has it all."""
        return len(self.params) + len(self.tags) + len(self.points) + (not self.run_id) + (not self.end_is_shown)
