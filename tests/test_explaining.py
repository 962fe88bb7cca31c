"""Every trial's story is told from the journal: why it was asked for, how it compared, why it ended, where its logs are."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.events import Created, Finished, Resumed
from hpo.explaining import explain, numbered
from hpo.home import HomeError
from hpo.journal import FILE_NAME, Journal
from hpo.results import StoredStudy
from hpo.session import Session
from hpo.trial import State
from hpo.trial_files import trial_folder
from tests.simulated_study import TRAINER, curve, simulated, spec

RUNGS = (2, 6)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StoredStudy:
    return simulated(tmp_path_factory.mktemp("home"), "told", spec())


def test_every_trial_is_explained_by_the_numbers_that_decided(study: StoredStudy) -> None:
    ends = {r.event.trial: r.event for r in study.records if isinstance(r.event, Finished)}
    assert {end.rule for end in ends.values()} == {"asha", "max_epochs"}
    for trial in study.trials:
        found, end = explain(study, trial.number), ends[trial.number]
        assert (found.state, found.params, found.seed, found.epochs) == (trial.state, trial.params, trial.seed, trial.epoch)
        assert [rung.epoch for rung in found.rungs] == [rung for rung in RUNGS if rung <= trial.epoch]
        assert [rung.went_on for rung in found.rungs[:-1]] == [True] * (len(found.rungs) - 1)
        if end.rule == "asha":
            value, cutoff = trial.measurements[-1].value, end.detail["cutoff"]
            assert found.sentence == (
                f"stopped at epoch {trial.epoch}: {value:.6g} against a cutoff of {cutoff:.6g} among {end.detail['arrivals']} trials"
            )
            last = found.rungs[-1]
            assert not last.went_on
            assert (last.rank, last.arrivals, last.quota) == (end.detail["rank"], end.detail["arrivals"], end.detail["quota"])
        else:
            assert found.sentence == "complete after 9 epochs: trained all 9 epochs"
            assert all(rung.went_on for rung in found.rungs)


def test_what_the_sampler_knew_is_counted_as_of_then(study: StoredStudy) -> None:
    assert explain(study, 0).known == "0 finished and 0 running trials"
    assert explain(study, 1).known == "0 finished and 1 running trials"
    last = explain(study, 15).known
    assert last.endswith(" and 1 running trials")
    assert int(last.split()[0]) == 14


def test_attempts_leases_and_logs_are_told(tmp_path: Path) -> None:
    what = spec("sampler.name=random", "budget.trials=1", "trainer.settings.max_epochs=3")
    folder = tmp_path / "died"
    with Journal.create(folder / FILE_NAME) as journal:
        journal.append([Created("died", what.to_dict(), {})])
        session = Session(what, TRAINER, folder, journal)
        assignment = session.next()
        assert assignment is not None
        session.study.report(0, [curve(assignment, 1)])
        session.lost(0, 1, "worker process 7 died: SIGKILL")
        again = session.next()
        assert again is not None
        assert (again.lease, again.attempt) == (1, 2)
    with Journal.open(folder / FILE_NAME) as journal:
        session = Session(what, TRAINER, folder, journal)
        session.resume(Resumed("node-2", 9, {}))
        third = session.next()
        assert third is not None
        assert (third.lease, third.attempt) == (2, 2)
    log = trial_folder(folder, 0) / "output.log"
    log.parent.mkdir(parents=True)
    log.write_text("epoch 1\n")
    found = explain(StoredStudy.open(folder), 0)
    assert found.state is State.RUNNING
    assert found.sentence == "not ended: cut off after 1 epochs, to be resumed"
    assert [(a.number, a.lease, a.after_epoch, a.why) for a in found.attempts] == [
        (1, 1, 0, ""),
        (2, 1, 1, "worker process 7 died: SIGKILL"),
        (2, 2, 1, "the study's process was gone"),
    ]
    assert found.logs == [log]


@pytest.mark.parametrize("key", ["-1", "16", "1000000000", "final-0", "defaults", "x"])
def test_a_trial_that_is_not_there_is_said_to_be_so(study: StoredStudy, key: str) -> None:
    with pytest.raises(HomeError, match=f"study told has no trial {key}; it has 0 to 15"):
        numbered(study, key)
