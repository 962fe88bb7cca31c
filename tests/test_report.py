"""What pruning did is told rung by rung and ladder by ladder: the same numbers for people, machines and the audit."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from hpo import show_report
from hpo.audit import outside
from hpo.cli import cli
from hpo.engine.simulate import simulate
from hpo.events import Asked, Audited, Created, Finished, Measured, Paused, Promoted, Resumed
from hpo.explaining import explain
from hpo.journal import FILE_NAME, Journal
from hpo.journal_format import Record, read
from hpo.projection import Projection
from hpo.reporting import report
from hpo.results import StoredStudy
from hpo.spec import Spec
from hpo.trial import Course, State
from hpo.typical import typical_curve
from tests.simulations import broken, spec

LADDERS = spec("ladders", budget={"trials": 40}, pruner={"name": "asha", "audit": 0.2}, seed=3)
STOP = spec(pruner={"name": "asha", "rule": "stop", "brackets": 2, "audit": 0.1}, seed=4)


def stored(folder: Path, what: Spec) -> StoredStudy:
    simulate(what, broken(typical_curve(what.space, 27, what.seed), 0.05), 4, what.seed, folder=folder)
    return StoredStudy.open(folder)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    stored(home / "ladders", LADDERS)
    stored(home / "stop", STOP)
    return home


@pytest.fixture
def waiting(home: Path, tmp_path: Path) -> StoredStudy:
    """The study in ladders as it stood in its middle, cut off."""
    records = read(home / "ladders" / FILE_NAME)
    halfway = next(i for i, r in enumerate(records) if isinstance(r.event, Asked) and r.event.trial == 30)
    with Journal.create(tmp_path / "cut" / FILE_NAME) as journal:
        journal.append([record.event for record in records[:halfway]])
    return StoredStudy.open(tmp_path / "cut")


@pytest.mark.parametrize("name", ["ladders", "stop"])
def test_every_trial_is_in_every_number(home: Path, name: str) -> None:
    study = StoredStudy.open(home / name)
    found, events = report(study), [record.event for record in study.records]
    kinds = Counter(type(event) for event in events)
    assert sum(found.trials.values()) == kinds[Asked] == sum(ladder.trials for ladder in found.ladders)
    assert found.epochs == kinds[Measured] == sum(ladder.epochs for ladder in found.ladders)
    assert found.promotions == kinds[Promoted] == sum(ladder.promotions for ladder in found.ladders)
    assert sum(ladder.complete for ladder in found.ladders) == found.trials[State.COMPLETE]
    assert max(ladder.best for ladder in found.ladders if ladder.best is not None) == (study.best and study.best.value)
    assert sum(rung.audited for rung in found.rungs) == kinds[Audited] == found.audit.stops.known + found.audit.cut_off
    assert sum(rung.stops.outside for rung in found.audit.rungs) == found.audit.stops.outside == len(outside(events))
    assert all(rung.went_on + rung.waiting <= rung.arrivals for rung in found.rungs)
    cut_short = [e.trial for e in events if isinstance(e, Finished) and e.rule in ("asha", "paused")]
    assert found.epochs_unpruned == found.epochs + sum(27 - study.trials[number].epoch for number in cut_short)


def test_who_competes_with_whom_is_told(home: Path) -> None:
    ladders, brackets = (report(StoredStudy.open(home / name)) for name in ("ladders", "stop"))
    assert [ladder.ladder for ladder in ladders.ladders] == ["gp", "random", "tpe"]
    assert {(rung.ladder, rung.skipped) for rung in ladders.rungs} == {("gp", 0), ("random", 0), ("tpe", 0)}
    assert all(rung.quota == rung.arrivals // 4 for rung in ladders.rungs)
    assert {(rung.skipped, rung.epoch) for rung in brackets.rungs} == {(0, 1), (0, 3), (0, 9), (1, 3), (1, 9)}
    assert all(rung.quota == max(1, rung.arrivals // 3) for rung in brackets.rungs)


@pytest.mark.parametrize("name", ["ladders", "stop"])
def test_people_and_machines_are_told_the_same(home: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(home))
    plain = json.loads(CliRunner().invoke(cli, ["report", name, "--json"]).output)
    found = report(StoredStudy.open(home / name))
    assert plain["advice"] == found.advice
    assert plain["audit"]["stops"]["rate"] == found.audit.stops.rate
    assert plain["trials"]["complete"] == found.trials[State.COMPLETE]
    shown = CliRunner().invoke(cli, ["report", name])
    assert shown.exit_code == 0
    for text in (found.advice, f"{found.epochs:,} instead of {found.epochs_unpruned:,}", show_report.rate(found.audit.stops)):
        assert text in shown.output
    status = CliRunner().invoke(cli, ["status", name]).output
    assert found.advice in status
    (status_plain,) = json.loads(CliRunner().invoke(cli, ["status", name, "--json"]).output)
    assert status_plain["best"]["trial"] is not None
    assert status_plain["advice"] == found.advice


def test_a_study_that_prunes_nothing_has_nothing_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(stored(tmp_path / "plain", spec(budget={"trials": 5}, pruner={"name": "none"}, max_epochs=3)))
    assert (found.rungs, found.advice) == ([], "nothing is pruned")
    show_report.report(found)
    assert "nothing was cut short" in capsys.readouterr().out


def test_what_waits_says_where_and_how_it_stands(waiting: StoredStudy) -> None:
    paused = [trial for trial in waiting.trials if trial.state is State.PAUSED]
    assert paused
    frame = waiting.trials_dataframe().set_index("trial")
    for trial in paused:
        rung = waiting.study.standings.waiting[trial.number]
        expected = f"waits at epoch {trial.epoch}, rank {rung.rank(trial.number)} of {len(rung.losses)}; {len(rung.losses) // 4} go on"
        found = explain(waiting, trial.number)
        assert found.sentence == expected
        assert found.rungs[-1].outcome == "waits"
        assert frame.loc[trial.number, "reason"] == expected
    assert report(waiting).trials[State.PAUSED] == len(paused) == sum(rung.waiting for rung in report(waiting).rungs)


def test_a_rung_says_how_many_of_those_that_had_come_might_go_on(waiting: StoredStudy) -> None:
    """Under promotion floor(n / 4): of the first three nobody, which is no rank and no cutoff to be below."""
    rungs = [rung for trial in waiting.trials for rung in explain(waiting, trial.number).rungs]
    assert [rung.quota for rung in rungs] == [rung.arrivals // 4 for rung in rungs]
    few = [rung for rung in rungs if rung.arrivals < 4]
    assert few
    assert [rung.cutoff for rung in few] == [None] * len(few)


def test_one_that_waited_while_the_process_died_lost_no_worker(tmp_path: Path) -> None:
    end = {State.PAUSED: 1, State.RUNNING: 2}
    with Journal.create(tmp_path / "broken" / FILE_NAME) as journal:
        journal.append([Created("broken", LADDERS.to_dict(), {})])
        for trial in (0, 1):
            journal.append([Asked(trial, {"x": 0.5, "rate": 0.1, "width": 2}, trial, "random"), Measured(trial, 1, 0.5, {}, 1.0)])
        journal.append([Paused(0, 1), Resumed("here", 1, {})])
    study = StoredStudy.open(tmp_path / "broken")
    assert {trial.state: len(explain(study, trial.number).attempts) for trial in study.trials} == end


def test_an_explanation_names_the_ladder_and_what_came_of_each_rung(home: Path) -> None:
    study = StoredStudy.open(home / "ladders")
    outcomes = Counter[str]()
    for trial in study.trials:
        found = explain(study, trial.number)
        assert (found.ladder, found.course) == (trial.ladder, trial.course)
        assert all(rung.outcome == "promoted" for rung in found.rungs[:-1])
        outcomes[found.rungs[-1].outcome if found.rungs else "none"] += 1
        assert [attempt.number for attempt in found.attempts] == list(range(1, trial.attempts + 1))
    assert outcomes["audited"] == sum(trial.course is Course.AUDIT for trial in study.trials)
    assert {"promoted", "waited", "audited"} <= outcomes.keys()
    assert list(study.trials_dataframe()["ladder"]) == [trial.ladder for trial in study.trials]
    assert "ladder" not in StoredStudy.open(home / "stop").trials_dataframe()


def test_the_explanation_is_shown_with_ladder_and_course(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(home))
    study = StoredStudy.open(home / "ladders")
    audited = next(trial for trial in study.trials if trial.course is Course.AUDIT)
    shown = CliRunner().invoke(cli, ["explain", "ladders", str(audited.number)]).output
    assert f"ladders, ladder {audited.ladder}, from" in shown
    assert "course      audited: trained to its end" in shown
    replayed = CliRunner().invoke(cli, ["replay", "ladders"]).output
    assert f"40 suggestions, {study.study.promotions} promotions, {study.epochs} measurements judged" in replayed


def test_mlflow_is_told_ladder_course_state_and_attempt(home: Path) -> None:
    records = read(home / "ladders" / FILE_NAME)
    shown, trials = Projection(), StoredStudy.open(home / "ladders").trials
    for record in records:
        shown.apply(record)
        run = shown.runs.get(str(getattr(record.event, "trial", "")))
        if run and isinstance(record.event, Paused):
            assert (run.state, run.tags["hpo.state"]) == ("paused", "paused")
            run.tags.clear()  # sent
        if run and isinstance(record.event, Promoted):
            assert (run.state, run.tags["hpo.state"], run.tags["hpo.course"]) == ("running", "running", record.event.course.value)
            assert run.attempt == int(run.tags["hpo.attempt"])
    for trial in trials:
        run = shown.runs[str(trial.number)]
        assert run.attempt == trial.attempts
        assert run.tags.get("hpo.ladder", trial.ladder) == trial.ladder
        assert run.tags.get("hpo.course", trial.course.value) == trial.course.value


def test_a_larger_budget_of_epochs_is_told_to_mlflow() -> None:
    created = Created("x", LADDERS.to_dict(), {})
    shown, at = Projection(), datetime(2026, 11, 20, tzinfo=UTC)
    for seq, event in enumerate([created, Resumed("node", 1, {}, epochs=500)], start=1):
        shown.apply(Record(seq, at, event))
    assert shown.runs["study"].tags["hpo.budget.epochs"] == "500"
