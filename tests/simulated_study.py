"""Studies on the virtual clock, for tests of what reads a journal: quick, and every trial ends in its own way."""

from __future__ import annotations

from pathlib import Path

from hpo.engine import simulate
from hpo.engine.assignment import Assignment
from hpo.events import Created
from hpo.journal import FILE_NAME, Journal
from hpo.results import StoredStudy
from hpo.session import Session
from hpo.spec import Spec, load_spec
from hpo.trial import Measurement

SPEC = Path(__file__).parent / "specs" / "mixed.yaml"
TRAINER = "tests.small_trainers:mixed"


def spec(*overrides: str) -> Spec:
    """Trials of nine epochs with rungs at 2 and 6, searched by TPE unless told otherwise."""
    return load_spec(SPEC, trainer_override=TRAINER, overrides=["trainer.settings.max_epochs=9", *overrides])


def curve(assignment: Assignment, epoch: int) -> Measurement:
    """Rises towards x, in epochs of 1 to 1.5 virtual seconds."""
    x = float(assignment.arguments["x"])
    value = x - 1 / epoch
    return Measurement(epoch, value, {"value": value}, 1 + x)


def simulated(home: Path, name: str, what: Spec, slots: int = 2) -> StoredStudy:
    """The study of that name, run to its end."""
    folder = home / name
    with Journal.create(folder / FILE_NAME) as journal:
        journal.append([Created(name, what.to_dict(), {"torch": "2.13.0"})])
        session = Session(what, TRAINER, folder, journal)
        session.end(simulate.run(session, curve, slots))
    return StoredStudy.open(folder)
