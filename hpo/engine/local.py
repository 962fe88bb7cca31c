"""Runs the trials one after another in this process, without Ray: for debugging a trainer, with prints and breakpoints."""

from __future__ import annotations

from contextlib import closing

from hpo.data import sealed
from hpo.engine.worker import TrialRun
from hpo.session import Session
from hpo.trial import Decision


def run(session: Session, device: str = "cpu") -> str:
    """Run the session's trials; says why the search ended (budget or time).

    With `limits.trial_timeout`, a trainer that hangs is interrupted, if this is the main thread and it runs Python. The test
    parts of datasets are sealed until it returns.
    """
    with sealed():
        return _run(session, device)


def _run(session: Session, device: str) -> str:
    while (assignment := session.next()) is not None:
        with closing(TrialRun(assignment, device, capture=False)) as trial:
            while session.take(assignment.number, trial.advance()) is Decision.CONTINUE:
                if reason := session.over:
                    return reason
        if reason := session.over:
            return reason
    return "budget"
