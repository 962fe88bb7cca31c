"""Trials that wait at rungs and go on: the same study after a break anywhere, the same trial after any number of pauses."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from hpo import checkpoints, trial_files
from hpo.engine import local, simulate
from hpo.engine.assignment import Assignment, Report
from hpo.engine.worker import TrialRun
from hpo.events import Asked, Created, Event, Finished, Measured, Paused, Promoted, Resumed
from hpo.journal import FILE_NAME, Journal
from hpo.journal_format import read
from hpo.progress import Watch
from hpo.replaying import replay_decisions
from hpo.retention import RESERVE
from hpo.session import Session
from hpo.spec import Spec, spec_from_dict
from hpo.specified import rules_of, sampler_of
from hpo.stopping import Patience
from hpo.trainer import RunningTrial
from hpo.trial import Decision, Direction, Measurement, State, Trial
from hpo.trial_files import trial_folder
from hpo.verifying import verify
from tests.promotion_trainers import curve, drawn, notes

FOREVER = 1e9
HERE = "tests.test_promotion_engine"


def spec(trainer: str = "tracing", **sections: Any) -> Spec:
    """Twelve random trials of nine epochs; rungs at 1 and 3, a third of the arrivals goes on."""
    plain: dict[str, Any] = {
        "name": "promotion",
        "trainer": {"name": trainer if ":" in trainer else f"tests.promotion_trainers:{trainer}", "settings": {"max_epochs": 9}},
        "objective": {"metric": "value", "direction": "maximize"},
        "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
        "sampler": {"name": "random"},
        "pruner": {"name": "asha", "rule": "promote", "reduction_factor": 3},
        "budget": {"trials": 12},
        "checkpoints": {"every": "1h"},
    }
    return spec_from_dict(plain | sections)


@dataclass(frozen=True)
class Ran:
    """A study that was run to its end: its folder, its trials, its events."""

    folder: Path
    trials: list[Trial]
    events: list[Event]

    @property
    def told(self) -> list[Event]:
        """What happened, whatever it took: without the seconds and the resumes."""
        return told(self.events)


def told(events: Sequence[Event]) -> list[Event]:
    return [replace(e, seconds=0.0) if isinstance(e, Measured) else e for e in events if not isinstance(e, Resumed)]


def opened(folder: Path, what: Spec) -> tuple[Journal, Session]:
    """The study in `folder`, begun or gone on with."""
    path = folder / FILE_NAME
    is_new = not path.exists()
    journal = Journal.create(path) if is_new else Journal.open(path)
    if is_new:
        journal.append([Created(folder.name, what.to_dict(), {})])
    return journal, Session(what, what.trainer.name, folder, journal)


def ran(folder: Path, what: Spec) -> Ran:
    journal, session = opened(folder, what)
    with journal:
        session.end(local.run(session))
    return Ran(folder, session.study.trials, [record.event for record in read(folder / FILE_NAME)])


def assert_sound(folder: Path, what: Spec) -> None:
    assert [check for check in verify(folder, ask_mlflow=False) if not check.ok] == []
    assert replay_decisions(rules_of(what), sampler_of(what), read(folder / FILE_NAME)).divergence is None


# --- on the virtual clock -------------------------------------------------------------------------------------------------------


VARIANTS: dict[str, dict[str, Any]] = {
    "random": {},
    "audited brackets": {"pruner": {"name": "asha", "rule": "promote", "reduction_factor": 2, "brackets": 2, "audit": 0.2}},
    "tpe": {"sampler": {"name": "tpe"}, "budget": {"trials": 14}},
    "ladders": {"sampler": {"name": "ladders"}, "pruner": {"name": "asha", "reduction_factor": 3}, "budget": {"trials": 14}},
    "epochs": {"budget": {"trials": 99, "epochs": 40}},
    "patience": {"stopper": {"name": "patience", "epochs": 1}, "budget": {"trials": 20}},
}


def noisy(assignment: Assignment, epoch: int) -> Measurement:
    x = assignment.arguments["x"]
    assert isinstance(x, float)
    value = x - 0.3 / epoch + 0.3 * drawn(assignment.seed, epoch)
    return Measurement(epoch, value, {"value": value}, 1 + x)


def simulated(what: Spec, slots: int, begun: bytes = b"") -> bytes:
    """The journal of the study, from the beginning or from the journal `begun` to the end, what waits then pruned."""
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "virtual" / FILE_NAME
        path.parent.mkdir()
        path.write_bytes(begun)
        with Journal.open(path) if begun else Journal.create(path) as journal:
            if not begun:
                journal.append([Created("virtual", what.to_dict(), {})])
            session = Session(what, what.trainer.name, path.parent, journal)
            if session.study.ended is None:
                session.end(simulate.run(session, noisy, slots, journal.records))
        return path.read_bytes()


def events_in(content: bytes) -> list[Event]:
    with TemporaryDirectory() as scratch:
        (Path(scratch) / FILE_NAME).write_bytes(content)
        return [record.event for record in read(Path(scratch) / FILE_NAME)]


@cache
def whole(variant: str, slots: int) -> tuple[bytes, list[Event]]:
    content = simulated(spec(**VARIANTS[variant]), slots)
    return content, events_in(content)


@pytest.mark.parametrize("variant", VARIANTS)
@given(data=st.data())
@settings(max_examples=4, deadline=None)
def test_a_break_at_any_byte_changes_no_promotion(variant: str, data: st.DataObject) -> None:
    slots = data.draw(st.sampled_from((1, 3)), label="slots")
    content, events = whole(variant, slots)
    for _ in range(data.draw(st.integers(1, 2), label="breaks")):
        cut = data.draw(st.integers(content.index(b"\n") + 1, len(content)), label="cut")
        assert events_in(simulated(spec(**VARIANTS[variant]), slots, content[:cut])) == events


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_study_whose_trials_wait_ends_with_nothing_waiting_and_can_be_replayed(variant: str, tmp_path: Path) -> None:
    content, events = whole(variant, 3)
    kinds = Counter(type(event) for event in events)
    (tmp_path / FILE_NAME).write_bytes(content)
    what = spec(**VARIANTS[variant])
    assert_sound(tmp_path, what)
    assert min(kinds[Paused], kinds[Promoted]) > 0
    assert kinds[Asked] == kinds[Finished]
    assert kinds[Measured] == (what.budget.epochs or kinds[Measured])


# --- with a real trainer --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return ran(tmp_path_factory.mktemp("home") / "promotion", spec())


def test_a_promoted_trial_goes_on_bit_for_bit_and_trains_nothing_twice(study: Ran) -> None:
    promoted = {event.trial for event in study.events if isinstance(event, Promoted)}
    assert len(promoted) >= 4
    for trial in study.trials:
        x = trial.params["x"]
        assert isinstance(x, float)
        assert [m.value for m in trial.measurements] == [curve(x, trial.seed, m.epoch) for m in trial.measurements]
        assert [m.metrics["draw"] for m in trial.measurements] == [drawn(trial.seed, m.epoch) for m in trial.measurements]
        starts = [max(rung for rung in (0, 1, 3) if rung < m.epoch) for m in trial.measurements]
        assert [m.metrics["start"] for m in trial.measurements] == starts
        assert [note.epoch for note in notes(trial_folder(study.folder, trial.number))] == [m.epoch for m in trial.measurements]


def test_at_the_end_nothing_waits_and_nothing_to_go_on_from_is_left(study: Ran) -> None:
    assert {trial.state for trial in study.trials} == {State.COMPLETE, State.PRUNED}
    assert list(study.folder.glob("trials/*/last-*")) == []
    assert len(list(study.folder.glob("trials/*/best"))) == 3
    assert_sound(study.folder, spec())


@pytest.mark.parametrize(
    ("trainer", "grace", "trained"),  # by a trial with rungs at grace and 3 grace that is promoted to its end
    [
        ("forgetful", 1, [1, 1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("sparing", 1, [1, 1, 2, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9]),  # offers nothing at odd epochs
        ("sparing", 2, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_what_a_trainer_does_not_offer_at_a_rung_is_trained_again_and_changes_nothing(
    trainer: str, grace: int, trained: list[int], tmp_path: Path
) -> None:
    pruner = {"name": "asha", "rule": "promote", "reduction_factor": 3 if grace == 1 else 2, "grace_epochs": grace}
    saving, other = ran(tmp_path / "saving", spec(pruner=pruner)), ran(tmp_path / "other", spec(trainer, pruner=pruner))

    def without_starts(events: list[Event]) -> list[Event]:
        return [replace(e, metrics={"draw": e.metrics["draw"]}) if isinstance(e, Measured) else e for e in told(events)[1:]]

    assert without_starts(other.events) == without_starts(saving.events)
    climbed = next(trial for trial in other.trials if trial.epoch == 9 and trial.attempts == 3)
    assert [note.epoch for note in notes(trial_folder(other.folder, climbed.number))] == trained


# --- what a worker writes -------------------------------------------------------------------------------------------------------


def assignment(folder: Path, **changes: Any) -> Assignment:
    plain = Assignment(
        number=0,
        seed=1,
        entry="tests.promotion_trainers:tracing",
        arguments={"x": 0.5},
        folder=folder / "00000",
        metric="value",
        direction=Direction.MAXIMIZE,
        max_epochs=9,
        rungs=(1, 3),
        pauses=True,
        checkpoint_every_s=FOREVER,
        keep_below=-FOREVER,
    )
    return replace(plain, **changes)


def held(plan: Assignment) -> list[int]:
    """The epochs that the checkpoint to go on from holds."""
    last = trial_files.newest(plan.folder, "last")
    return [] if last is None else [fields[0] for fields in checkpoints.label(last)["measurements"]]


def test_where_a_trial_may_wait_it_is_on_disk_before_the_study_hears_of_it(tmp_path: Path) -> None:
    plan = assignment(tmp_path)
    run = TrialRun(plan)
    for epochs in ([1], [1, 2, 3], [1, 2, 3]):  # behind the last rung nothing more
        run.advance(FOREVER)
        assert held(plan) == epochs


@pytest.mark.parametrize(
    "changes",
    [
        {"pauses": False},  # the stop rule: the trial goes on or ends
        {"rungs": ()},  # on its way to the end
        {"max_epochs": 1},
        {"stopper": Patience(epochs=1), "rungs": (3,), "entry": f"{HERE}:falling"},  # over at epoch 2
        {"stopper": Patience(epochs=2), "rungs": (3,), "entry": f"{HERE}:falling"},  # over at the rung
    ],
)
def test_no_checkpoint_is_written_where_no_trial_waits(changes: dict[str, Any], tmp_path: Path) -> None:
    plan = assignment(tmp_path, **changes)
    TrialRun(plan).advance(FOREVER)
    assert held(plan) == []


def falling(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Best at its first epoch."""
    for epoch in range(1, trial.max_epochs + 1):
        trial.save(epoch=epoch)
        yield {"value": x - epoch}


def test_a_worker_that_was_cut_off_before_the_study_decided_is_heard_first(tmp_path: Path) -> None:
    plan = assignment(tmp_path)
    (before,) = [TrialRun(plan).advance(FOREVER)]
    again = TrialRun(replace(plan, lease=2, known_epochs=0))
    assert again.advance(FOREVER) == Report(before.measurements)
    assert len(notes(plan.folder)) == 1  # nothing was trained for it
    assert [m.epoch for m in again.advance(FOREVER).measurements] == [1, 2, 3]  # it was let go on
    assert [note.epoch for note in notes(plan.folder)] == [1, 2, 3]


def test_a_worker_that_was_cut_off_between_two_rungs_just_goes_on(tmp_path: Path) -> None:
    plan = assignment(tmp_path)
    TrialRun(plan).advance(FOREVER)
    assert [m.epoch for m in TrialRun(replace(plan, attempt=2, known_epochs=1)).advance(FOREVER).measurements] == [1, 2, 3]


def test_a_stopper_that_ends_a_trial_at_a_rung_completes_it(tmp_path: Path) -> None:
    what = spec(f"{HERE}:falling", stopper={"name": "patience", "epochs": 2}, pruner=ASHA_AT_3)
    study = ran(tmp_path / "promotion", what)
    assert {(t.state, t.epoch) for t in study.trials} == {(State.COMPLETE, 3)}
    assert not [event for event in study.events if isinstance(event, Paused)]
    assert_sound(study.folder, what)


ASHA_AT_3 = {"name": "asha", "rule": "promote", "grace_epochs": 3, "reduction_factor": 2}


# --- breaks, deaths and damage --------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The driver is gone."""


def broken_off(folder: Path, what: Spec, write: int, *, written: bool) -> bool:
    """Run the study and lose its driver right after, or right before, the journal's write of that number; whether it came so far."""
    journal, session = opened(folder, what)
    append, left = journal.append, [write]

    def failing(events: Sequence[Event]) -> None:
        left[0] -= 1
        if written or left[0]:
            append(events)
        if not left[0]:
            raise Killed

    session.study._record = failing
    with journal:
        try:
            session.end(local.run(session))
        except Killed:
            return True
    return False


@pytest.mark.parametrize(("written", "every"), [(True, 4), (False, 6)])
def test_a_driver_lost_at_any_write_repeats_at_most_what_was_not_checkpointed(
    written: bool, every: int, study: Ran, tmp_path: Path
) -> None:
    write = 1
    while broken_off(folder := tmp_path / f"{write}" / "promotion", spec(), write, written=written):
        resumed = ran(folder, spec())
        assert resumed.told[1:] == study.told[1:]
        assert_sound(folder, spec())
        trained = Counter((t.number, note.epoch) for t in resumed.trials for note in notes(trial_folder(folder, t.number)))
        twice = [epoch for epoch, times in trained.items() if times > 1]
        assert len({trial for trial, _ in twice}) <= 1
        assert all(epoch > 3 for _, epoch in twice)  # behind the last rung, where none is due for an hour
        write += every
    assert write > 25


def run_on(session: Session) -> Iterator[Trial]:
    """Run a session as an engine with one slot; each trial after each of its segments."""
    while (given := session.next()) is not None:
        with closing(TrialRun(given, capture=False)) as run:
            while session.take(given.number, run.advance(FOREVER)) is Decision.CONTINUE:
                pass
        yield session.study.trials[given.number]


def test_a_damaged_checkpoint_of_a_paused_trial_fails_that_trial_when_it_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "promotion"
    journal, session = opened(folder, spec())
    with journal:
        segments = run_on(session)
        paused = [next(segments) for _ in range(2)]
        assert {trial.state for trial in paused} == {State.PAUSED}
        for trial in paused:
            (manifest,) = trial_folder(folder, trial.number).glob("last-*/state.json")
            manifest.write_bytes(manifest.read_bytes()[:-2] + b"?\n")
        session.check_checkpoints()  # a resume is not held up by it
        trials = [*segments, session.end("budget")] and session.study.trials
    failed = [trial for trial in trials if trial.state is State.FAILED]
    assert [trial.number for trial in failed] == [t.number for t in paused if t.attempts > 1] != []
    for trial in failed:
        assert "the trial cannot go on and is not begun again" in trial.reason
        assert list(trial_folder(folder, trial.number).glob("damaged-last-*/state.json"))
    assert {t.state for t in trials if t not in failed} == {State.COMPLETE, State.PRUNED}
    assert_sound(folder, spec())


def test_a_state_that_cannot_be_kept_fails_the_trial_where_it_would_wait(tmp_path: Path) -> None:
    study = ran(tmp_path / "promotion", spec(f"{HERE}:unkeepable", budget={"trials": 3}))
    assert {(t.state, t.epoch) for t in study.trials} == {(State.FAILED, 1)}
    assert all("object" in t.reason for t in study.trials)


def unkeepable(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Offers what no checkpoint takes."""
    for epoch in range(1, trial.max_epochs + 1):
        trial.save(epoch=epoch, what=object())
        yield {"value": x}


def test_the_death_of_a_worker_is_the_running_segments_alone(tmp_path: Path) -> None:
    """Tune may tell of a worker that died idle, behind the segment that it trained."""
    journal, session = opened(tmp_path / "promotion", spec())
    with journal:
        next(_ for _ in run_on(session) if session.study.promotion())
        given = session.next()
        assert given is not None
        trial = session.study.trials[given.number]
        assert (trial.state, given.attempt) == (State.RUNNING, 2)
        session.lost(given.number, 1, "killed")
        assert trial.attempts == 2
        session.lost(given.number, 2, "killed")
        again = session.next()
        assert again is not None
        assert (again.number, again.attempt) == (given.number, 3)


# --- what stays on disk ---------------------------------------------------------------------------------------------------------


def kept(folder: Path, pattern: str) -> set[int]:
    return {int(path.parent.name) for path in folder.glob(f"trials/*/{pattern}") if (path / trial_files.MANIFEST).exists()}


@pytest.mark.parametrize(("keep", "paused"), [(1, 2), (3, 0), (2, 100)])
def test_of_the_paused_those_that_came_furthest_keep_what_they_go_on_from(keep: int, paused: int, tmp_path: Path) -> None:
    what = spec(budget={"trials": 18}, checkpoints={"every": "1h", "keep": keep, "paused": paused})
    folder = tmp_path / "promotion"
    journal, session = opened(folder, what)
    most, given_up = 0, set[tuple[int, int]]()
    with journal:
        for _ in run_on(session):
            waiting = [t for t in session.study.trials if t.state is State.PAUSED]
            waiting.sort(key=lambda t: (-t.epoch, -t.measurements[-1].value, t.number))
            to_go_on = kept(folder, "last-*")
            holding = [t for t in waiting if (t.number, t.epoch) not in given_up]  # a place that is free again goes to the next that comes
            assert to_go_on == {t.number for t in holding[:paused]}
            given_up |= {(t.number, t.epoch) for t in waiting if t.number not in to_go_on}
            most = max(most, len(to_go_on))
            assert len(kept(folder, "best")) <= keep
            assert len(kept(folder, "best-*")) <= keep + RESERVE
            best = session.study.best()
            assert best is not None
            assert best.number in kept(folder, "best") | kept(folder, "best-*")
        session.end("budget")
    assert most >= min(paused, 3)
    plain = {t.number: (t.state, [m.value for m in t.measurements]) for t in ran(tmp_path / "plain", spec(budget={"trials": 18})).trials}
    assert {t.number: (t.state, [m.value for m in t.measurements]) for t in session.study.trials} == plain
    assert_sound(folder, what)


def test_a_session_that_is_opened_again_keeps_the_same(tmp_path: Path) -> None:
    what = spec(checkpoints={"every": "1h", "keep": 1, "paused": 2})
    folder = tmp_path / "promotion"
    journal, session = opened(folder, what)
    with journal:
        for trial, _ in zip(run_on(session), range(8), strict=False):
            assert trial.state is not State.FAILED
    before = sorted(folder.glob("trials/*/*"))
    journal, session = opened(folder, what)
    with journal:
        assert sorted(folder.glob("trials/*/*")) == before
        assert session.paused == sum(t.state is State.PAUSED for t in session.study.trials) > 0
        assert (session.left, session.is_done) == (12 - len(session.study.trials) + session.paused, False)


def test_a_study_of_which_only_promotions_are_left_is_not_done(tmp_path: Path) -> None:
    folder = tmp_path / "promotion"
    journal, session = opened(folder, spec())
    with journal:
        for _ in run_on(session):
            if len(session.study.trials) == 12:
                break
    journal, session = opened(folder, spec())
    with journal:
        assert (len(session.study.trials), session.is_done) == (12, False)
        session.end(local.run(session))
        assert session.is_done
        assert session.left == 0
    assert_sound(folder, spec())


# --- what is shown --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "epochs", "states"),
    [
        ({}, "of at most 108", "[0-9]+ running, [1-9] paused, [0-9] complete"),
        ({"budget": {"trials": 12, "epochs": 40}}, "of 40", "[0-9] running, [1-9] paused, [0-9] complete"),
        ({"pruner": {"name": "asha", "rule": "stop"}}, "of at most 108", "[0-9] running, [0-9] complete"),
    ],
)
def test_the_table_shows_what_waits_and_how_many_epochs_there_are(
    sections: dict[str, Any], epochs: str, states: str, tmp_path: Path
) -> None:
    journal, session = opened(tmp_path / "promotion", spec(**sections))
    with journal:
        for _ in zip(run_on(session), range(5), strict=False):
            pass
        shown = Console(file=StringIO(), width=200)
        shown.print(Watch(session))
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert re.search(rf"epochs +{session.study.epochs} {epochs} *\n", text)
    assert re.search(rf"trials +[0-9] of 12 done: {states}, [0-9] pruned, 0 failed *\n", text)
    assert re.search(r"time .*, about .* left", text)
