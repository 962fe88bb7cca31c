"""Going on with a study: the same trials as without the break, a larger budget, and clear words where it cannot be."""

from __future__ import annotations

import os
import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

import hpo
from hpo.checkpoints import CheckpointError
from hpo.errors import exit_code
from hpo.events import Ended, Measured, Paused, Promoted, Resumed
from hpo.home import HomeError
from hpo.journal import FILE_NAME, Journal
from hpo.journal_format import JournalError, read
from hpo.launching import launch_spec
from hpo.lease import LeaseHeld
from hpo.results import StoredStudy
from hpo.resuming import resume_study
from hpo.spec import Spec, load_spec
from hpo.trial import State
from tests.conftest import ROOT

PLAIN = ROOT / "tests" / "specs" / "plain.yaml"
MIXED = ROOT / "tests" / "specs" / "mixed.yaml"
TRAINERS = "tests.small_trainers"


class NoShipping:
    """MLflow is not what is tested here."""

    def __init__(self, *_: object) -> None:
        """There is nothing to begin."""

    def kill(self) -> None:
        """There is nobody to kill."""

    def __enter__(self) -> NoShipping:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to end."""

    def close(self, wait_s: float | None) -> bool:  # noqa: ARG002
        return True


@pytest.fixture(autouse=True)
def _without_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.running.Shipping", NoShipping)


def spec(path: Path = PLAIN, trainer: str = "quadratic", *overrides: str) -> Spec:
    return load_spec(path, trainer_override=f"{TRAINERS}:{trainer}", overrides=overrides)


def story(study: StoredStudy) -> list[tuple[object, ...]]:
    return [
        (t.params, t.seed, t.state, t.reason.partition(" (see ")[0], [(m.epoch, m.value, m.metrics) for m in t.measurements])
        for t in study.trials
    ]


def cut(whole: StoredStudy, folder: Path, lines: int) -> Path:
    """A study whose process died behind the journal's line of that number."""
    (folder / whole.name).mkdir(parents=True)
    content = (whole.folder / FILE_NAME).read_bytes().splitlines(keepends=True)
    (folder / whole.name / FILE_NAME).write_bytes(b"".join(content[:lines]))
    return folder / whole.name


@pytest.mark.parametrize(("path", "trainer"), [(PLAIN, "quadratic"), (MIXED, "mixed")])
def test_a_study_that_broke_off_anywhere_becomes_what_it_would_have_been(tmp_path: Path, path: Path, trainer: str) -> None:
    whole = launch_spec(spec(path, trainer, "budget.trials=5"), home=tmp_path / "whole", local=True)
    for lines in range(1, len(whole.records), 7):
        folder = cut(whole, tmp_path / str(lines), lines)
        kept = len(read(folder / FILE_NAME))  # fewer where the cut goes through a write
        resumed = resume_study(folder, local=True)
        assert story(resumed) == story(whole)
        assert resumed.state == "budget"
        assert [r.seq for r in resumed.records if isinstance(r.event, Resumed)] == [kept + 1]
        assert {r.lease for r in resumed.records[kept:]} == {2}


def test_a_study_that_is_over_stays_as_it_is(tmp_path: Path) -> None:
    whole = launch_spec(spec(), home=tmp_path, local=True)
    before = (whole.folder / FILE_NAME).read_bytes()
    again = resume_study(whole.folder, local=True)
    assert again.state == "budget"
    assert (whole.folder / FILE_NAME).read_bytes() == before


def test_a_larger_budget_goes_on_where_the_smaller_one_ended(tmp_path: Path) -> None:
    small = launch_spec(spec(PLAIN, "quadratic", "budget.trials=3"), home=tmp_path / "small", local=True)
    large = launch_spec(spec(), home=tmp_path / "large", local=True)
    extended = resume_study(small.folder, trials=6, local=True)
    assert story(extended) == story(large)
    assert extended.study.rules.max_trials == 6
    assert [e.best for r in extended.records if isinstance(e := r.event, Ended)] == [small.best.trial, large.best.trial]


PROMOTING = ("pruner.name=asha", "pruner.rule=promote", "pruner.reduction_factor=2", "budget.trials=12")


def test_trials_that_wait_when_it_breaks_off_go_on_when_it_is_resumed(tmp_path: Path) -> None:
    whole = launch_spec(spec(PLAIN, "quadratic", *PROMOTING), home=tmp_path / "whole", local=True)
    assert sum(isinstance(record.event, Promoted) for record in whole.records) > 3
    for lines in range(2, len(whole.records), 17):
        resumed = resume_study(cut(whole, tmp_path / str(lines), lines), local=True)  # checkpoints lost: they begin again
        assert story(resumed) == story(whole)


def test_a_larger_budget_of_epochs_goes_on_and_ends_on_the_epoch(tmp_path: Path) -> None:
    small = launch_spec(spec(PLAIN, "quadratic", *PROMOTING, "budget.epochs=11"), home=tmp_path, local=True)
    assert small.epochs == 11
    waited = [trial.number for trial in small.trials if "waited at epoch" in trial.reason]
    assert waited
    larger = resume_study(small.folder, epochs=20, local=True)
    assert (larger.state, larger.epochs, larger.study.rules.epoch_budget) == ("budget", 20, 20)
    assert [larger.trials[number].epoch for number in waited] == [small.trials[number].epoch for number in waited]  # an end is for good
    with pytest.raises(HomeError, match=r"--trials 20: the study's epochs \(20\) are spent; give --epochs, too"):
        resume_study(small.folder, trials=20, local=True)
    assert resume_study(small.folder, local=True).epochs == 20


def test_a_budget_of_fewer_epochs_than_a_trial_has_ends_on_the_epoch_without_any_rung(tmp_path: Path) -> None:
    small = launch_spec(spec(PLAIN, "quadratic", "pruner.name=none", "budget.epochs=5"), home=tmp_path, local=True)
    assert [(trial.epoch, trial.state) for trial in small.trials] == [(5, State.PRUNED)]
    assert [trial.epoch for trial in resume_study(small.folder, epochs=8, local=True).trials] == [5, 3]


def test_a_study_that_was_interrupted_when_its_epochs_were_spent_only_ends(tmp_path: Path) -> None:
    whole = launch_spec(spec(PLAIN, "quadratic", *PROMOTING, "budget.epochs=11"), home=tmp_path / "whole", local=True)
    spent = max(i for i, record in enumerate(whole.records, 1) if isinstance(record.event, Measured | Paused))
    resumed = resume_study(cut(whole, tmp_path / "cut", spent), local=True)
    assert story(resumed) == story(whole)


def test_what_waits_is_said_before_a_study_goes_on(tmp_path: Path) -> None:
    whole = launch_spec(spec(PLAIN, "quadratic", *PROMOTING), home=tmp_path / "whole", local=True)
    first = next(i for i, record in enumerate(whole.records, 1) if isinstance(record.event, Paused))
    said = StringIO()
    resume_study(cut(whole, tmp_path / "cut", first + 1), local=True, console=Console(file=said, width=40))
    assert "resuming plain: 0 trials ended, 0 go on from their checkpoints, 1 begin again, 1 wait for their promotion\n" in said.getvalue()


def test_a_grid_is_extended_to_its_end_at_most(tmp_path: Path) -> None:
    grid = ["sampler.name=grid", "space.x.grid=[0.1, 0.2, 0.3]", "budget.trials=3"]
    study = launch_spec(spec(PLAIN, "quadratic", *grid), home=tmp_path, local=True)
    assert len(resume_study(study.folder, trials=100, local=True).trials) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trials": 5}, "--trials 5: it is the number in all, and the study has 6 trials; give at least 6"),
        ({"trials": -1}, "--trials -1: it is the number in all"),
        ({"time": "soon"}, "--time: found the text 'soon'; a time with a unit"),
        ({"time": "0.000001s"}, "--time 0.000001s: it is the time in all, and the study has run for"),
        ({"epochs": 36}, "--epochs 36: it is the number in all, and the study has trained 36; give at least 37"),
        ({"epochs": 99}, "--epochs 99: all of its 6 trials have ended; give --trials, too"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_refused_and_nothing_changes(tmp_path: Path, options: dict[str, object], message: str) -> None:
    study = launch_spec(spec(), home=tmp_path, local=True)
    before = (study.folder / FILE_NAME).read_bytes()
    with pytest.raises(HomeError, match=message):
        resume_study(study.folder, local=True, **options)  # type: ignore[arg-type]
    assert (study.folder / FILE_NAME).read_bytes() == before


def test_a_study_that_is_being_run_is_refused_to_a_second_process(tmp_path: Path) -> None:
    study = launch_spec(spec(), home=tmp_path, local=True, exactly=True)
    with Journal.open(study.folder / FILE_NAME):
        with pytest.raises(LeaseHeld, match=f"process {os.getpid()} "):
            resume_study(study.folder, local=True)
        with pytest.raises(LeaseHeld, match="hpo stop plain"):
            launch_spec(spec(), home=tmp_path, local=True, exactly=True)


def test_a_name_that_exists_is_said_with_both_ways_on_and_what_differs(tmp_path: Path) -> None:
    launch_spec(spec(), home=tmp_path, local=True)
    with pytest.raises(
        HomeError, match=r"(?s)plain exists already: it is done, with 6 trials; .*hpo resume plain.*--name.*its spec is the same"
    ):
        launch_spec(spec(), home=tmp_path, local=True, exactly=True)
    with pytest.raises(HomeError, match=r"(?s)its spec differs:\n  space.x.high: 1.0 there, 0.5 here\n  budget.trials: 6 there, 9 here"):
        launch_spec(spec(PLAIN, "quadratic", "budget.trials=9", "space.x.high=0.5"), home=tmp_path, local=True, exactly=True)


def test_a_damaged_checkpoint_is_named_and_nothing_starts_again(tmp_path: Path) -> None:
    whole = launch_spec(spec(), home=tmp_path / "whole", local=True)
    folder = cut(whole, tmp_path / "cut", 4)  # in the middle of trial 0
    last = folder / "trials" / "00000" / "last-1.1"
    last.mkdir(parents=True)
    (last / "state.json").write_text("{}")
    before = read(folder / FILE_NAME)
    with pytest.raises(CheckpointError, match=r"state\.json") as raised:
        resume_study(folder, local=True)
    assert exit_code(raised.value) == 65
    assert read(folder / FILE_NAME) == before


def test_an_empty_journal_is_no_study(tmp_path: Path) -> None:
    folder = tmp_path / "nothing"
    Journal.create(folder / FILE_NAME).close()
    with pytest.raises(JournalError, match="nothing is lost; launch it again"):
        resume_study(folder, local=True)


def test_it_is_there_in_python_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(tmp_path))
    launch_spec(spec(PLAIN, "quadratic", "budget.trials=2"), local=True)
    study = hpo.resume("plain", trials=3, local=True)
    assert study.counts[State.COMPLETE] == 3


def test_a_copy_beside_its_original_is_refused(tmp_path: Path) -> None:
    study = launch_spec(spec(), home=tmp_path, local=True)
    twin = tmp_path / "twin"
    shutil.copytree(study.folder, twin)
    with pytest.raises(HomeError, match=r"twin is a copy of .*plain: both would write to the same MLflow runs"):
        resume_study(twin, trials=9, local=True)
    shutil.rmtree(study.folder)
    assert len(resume_study(twin, trials=9, local=True).trials) == 9  # moved, not copied


def test_a_journal_that_lost_its_beginning_is_not_taken_for_a_new_study(tmp_path: Path) -> None:
    study = launch_spec(spec(), home=tmp_path, local=True)
    (study.folder / FILE_NAME).write_bytes(b"")
    for look in (StoredStudy.open, resume_study):
        with pytest.raises(JournalError, match="its beginning was lost; restore the file from a copy"):
            look(study.folder)
