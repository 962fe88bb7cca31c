"""Runs the trials one after another in this process, without Ray: for debugging a trainer, with prints and breakpoints."""

from __future__ import annotations

from hpo.data import seal
from hpo.engine.worker import TrialRun
from hpo.session import Session
from hpo.trial import Decision


def run(session: Session, device: str = "cpu") -> str:
    """Run the session's trials; says why the search ended (budget or time)."""
    seal()
    while (assignment := session.next()) is not None:
        trial = TrialRun(assignment, device, capture=False)
        while session.take(assignment.number, trial.advance()) is Decision.CONTINUE:
            if session.time_is_up:
                return "time"
        trial.close()
        if session.time_is_up:
            return "time"
    return "budget"
