"""Runs a session's trials on a virtual clock over given learning curves: no processes, no waiting, the same every time.

For trying a search before a machine is spent on it, and for proving what survives the death of a driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from hpo.engine.assignment import Assignment, Report
from hpo.events import Asked, Measured
from hpo.journal_format import Record
from hpo.session import Session
from hpo.trial import Decision, Measurement

Curve = Callable[[Assignment, int], Measurement]
"""What an assignment's epoch (from 1) measures, and how many virtual seconds it takes. A pure function."""


@dataclass
class VirtualClock:
    """The virtual seconds of a study by its records: a trial is asked for when the event before it happened."""

    now: float = 0.0
    reached: dict[int, float] = field(default_factory=dict)  # trial -> when its latest epoch ended

    @classmethod
    def after(cls, records: Iterable[Record]) -> VirtualClock:
        """The clock as it stood at the last of `records`."""
        clock = cls()
        for record in records:
            match record.event:
                case Asked(trial):
                    clock.reached[trial] = clock.now
                case Measured(trial, seconds=seconds):
                    clock.now = clock.reached[trial] = clock.reached[trial] + seconds
        return clock


def run(session: Session, curve: Curve, slots: int, records: Iterable[Record] = ()) -> str:
    """Run the session's trials, `slots` at a time; says why the search ended (budget). `records` are those it goes on from."""
    clock = VirtualClock.after(records)
    due: list[tuple[float, int, Assignment, Measurement]] = []

    def train(assignment: Assignment) -> None:
        epoch = session.study.trials[assignment.number].epoch + 1
        measurement = curve(assignment, epoch)
        began = clock.reached.setdefault(assignment.number, clock.now)
        heappush(due, (began + measurement.seconds, assignment.number, assignment, measurement))

    def fill() -> None:
        while len(due) < slots and (assignment := session.next()) is not None:
            train(assignment)

    fill()
    while due:
        clock.now, number, assignment, measurement = heappop(due)
        clock.reached[number] = clock.now
        if session.take(number, Report((measurement,))) is Decision.CONTINUE:
            train(assignment)
        fill()
    return "budget"
