"""What a worker saved of an epoch that its study never heard of is no trial's best when the study ends without hearing of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.suggestions import spec_of
from hpo import checkpoints
from hpo.engine.assignment import Assignment, Report
from hpo.events import Created
from hpo.journal import FILE_NAME, Journal
from hpo.results import StoredStudy
from hpo.session import Session
from hpo.trial import Measurement, State
from hpo.trial_files import BEST, best_name
from hpo.verifying import verify

SPEC = spec_of("random", 4, pruner={"name": "none"}, stopper={"name": "none"})


def _begun(journal: Journal) -> Session:
    folder = journal.path.parent
    created = Created(folder.name, SPEC.to_dict(), {})
    journal.append([created])
    return Session(SPEC, "simulated", folder, journal, created=created)


def _saved(assignment: Assignment, epoch: int, value: float) -> None:
    label = {checkpoints.LABEL: {"epoch": epoch, "value": value}}
    checkpoints.save(assignment.folder / best_name(assignment.lease, assignment.attempt), label)


@pytest.mark.parametrize(("heard", "saved", "kept"), [(1, 1, True), (1, 10, False)])
def test_a_study_that_runs_out_of_time_keeps_what_it_heard_of(heard: int, saved: int, kept: bool, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    with Journal.create(folder / FILE_NAME) as journal:
        session = _begun(journal)
        assignment = session.next()
        assert assignment is not None
        session.take(assignment.number, Report((Measurement(heard, 0.5, {"value": 0.5}, 0.01),)))
        _saved(assignment, saved, 0.5)
        session.end("time")
    study = StoredStudy.open(folder)
    assert study.trials[0].state is not State.RUNNING
    assert (Path(str(assignment.folder)) / BEST).exists() is kept
    assert [check for check in verify(folder, ask_mlflow=False) if not check.ok] == []


def test_a_resume_removes_what_an_earlier_version_kept(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    with Journal.create(folder / FILE_NAME) as journal:
        session = _begun(journal)
        assignment = session.next()
        assert assignment is not None
        session.take(assignment.number, Report((Measurement(1, 0.5, {"value": 0.5}, 0.01),), ended=True))
        checkpoints.save(assignment.folder / BEST, {checkpoints.LABEL: {"epoch": 10, "value": 0.7}})
    with Journal.open(folder / FILE_NAME) as journal:
        Session(SPEC, "simulated", folder, journal)
    assert not (Path(str(assignment.folder)) / BEST).exists()
