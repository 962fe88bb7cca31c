"""The simulated engine: trials on a virtual clock, the same every time, and the same again after a break at any point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.engine import simulate
from hpo.engine.assignment import Assignment
from hpo.engine.simulate import VirtualClock
from hpo.events import Asked, Created, Finished, Measured
from hpo.journal import FILE_NAME, Journal
from hpo.journal_format import Record, read
from hpo.session import Session
from hpo.spec import Spec, spec_from_dict
from hpo.trial import Measurement, State, Trial

ENTRY = "tests.small_trainers:quadratic"


def spec(sampler: str = "random", pruner: str = "none", trials: int = 6, max_epochs: int = 3) -> Spec:
    return spec_from_dict(
        {
            "name": "virtual",
            "trainer": {"name": ENTRY, "settings": {"max_epochs": max_epochs}},
            "objective": {"metric": "value", "direction": "maximize"},
            "space": {"x": {"type": "float", "low": 0.0, "high": 1.0}},
            "sampler": {"name": sampler},
            "pruner": {"name": pruner},
            "budget": {"trials": trials},
        }
    )


def steady(seconds: Callable[[int], float]) -> simulate.Curve:
    """Every epoch of trial n takes seconds(n)."""
    return lambda a, epoch: Measurement(epoch, float(epoch), {"value": float(epoch)}, seconds(a.number))


def noisy(assignment: Assignment, epoch: int) -> Measurement:
    x = assignment.arguments["x"]
    assert isinstance(x, float)
    value = x + (assignment.seed >> epoch) % 7 / 7
    return Measurement(epoch, value, {"value": value}, 1 + x)


@dataclass(frozen=True)
class Ran:
    """A simulated study: its trials, its records, its journal's bytes."""

    trials: list[Trial]
    records: list[Record]
    content: bytes


def ran(what: Spec, curve: simulate.Curve, slots: int, begun: bytes = b"") -> Ran:
    """The study run to its end, from the beginning or from the journal `begun`."""
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "virtual" / FILE_NAME
        path.parent.mkdir()
        path.write_bytes(begun)
        with Journal.open(path) if begun else Journal.create(path) as journal:
            if not begun:
                journal.append([Created("virtual", what.to_dict(), {})])
            session = Session(what, ENTRY, path.parent, journal)
            assert simulate.run(session, curve, slots, journal.records) == "budget"
        return Ran(session.study.trials, read(path), path.read_bytes())


@pytest.mark.parametrize(
    ("slots", "arrivals"),  # (trial, epoch, its end on the clock); an epoch of trial n takes n + 1 seconds
    [
        (1, [(0, 1, 1), (0, 2, 2), (1, 1, 4), (1, 2, 6), (2, 1, 9), (2, 2, 12)]),  # one trial after the other
        (2, [(0, 1, 1), (0, 2, 2), (1, 1, 2), (1, 2, 4), (2, 1, 5), (2, 2, 8)]),  # 2 takes the slot of 0; together: the lower number first
        (3, [(0, 1, 1), (0, 2, 2), (1, 1, 2), (2, 1, 3), (1, 2, 4), (2, 2, 6)]),
        (9, [(0, 1, 1), (0, 2, 2), (1, 1, 2), (2, 1, 3), (1, 2, 4), (2, 2, 6)]),  # more slots than trials
    ],
)
def test_results_arrive_in_the_order_of_the_virtual_clock(slots: int, arrivals: list[tuple[int, int, int]]) -> None:
    records = ran(spec(trials=3, max_epochs=2), steady(lambda number: number + 1.0), slots).records
    found = [
        (r.event.trial, r.event.epoch, VirtualClock.after(records[:i]).now)
        for i, r in enumerate(records, 1)
        if isinstance(r.event, Measured)
    ]
    assert found == arrivals


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_never_more_trials_run_than_there_are_slots(slots: int) -> None:
    running: set[int] = set()
    most = 0
    for record in ran(spec("tpe", "asha", trials=20, max_epochs=9), noisy, slots).records:
        match record.event:
            case Asked(trial):
                running.add(trial)
                most = max(most, len(running))
            case Finished(trial):
                running.remove(trial)
    assert most == slots
    assert not running


def test_a_trial_is_asked_for_as_soon_as_a_slot_is_free_and_knows_all_that_arrived() -> None:
    events = [record.event for record in ran(spec(trials=4, max_epochs=1), steady(lambda _: 1.0), 2).records]
    begin, replaced, over = ["Asked", "Asked"], ["Measured", "Finished", "Asked"], ["Measured", "Finished"]
    assert [type(event).__name__ for event in events[1:]] == [*begin, *replaced, *replaced, *over, *over]


def test_it_is_the_same_every_time_and_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", pytest.fail)
    what = spec("tpe", "asha", trials=20, max_epochs=9)
    first, second = (ran(what, noisy, 3) for _ in range(2))
    assert first.trials == second.trials
    assert [record.event for record in first.records] == [record.event for record in second.records]
    assert {trial.state for trial in first.trials} == {State.COMPLETE, State.PRUNED}


def test_with_one_slot_the_virtual_clock_changes_nothing() -> None:
    what = spec("tpe", "asha", trials=12, max_epochs=9)
    slow = ran(what, lambda a, epoch: replace(noisy(a, epoch), seconds=99.0), 1)
    assert [t.params for t in slow.trials] == [t.params for t in ran(what, noisy, 1).trials]


def test_a_clock_after_records_is_the_one_that_stood_there() -> None:
    records = ran(spec(trials=3, max_epochs=2), steady(lambda number: number + 1.0), 2).records
    clock = VirtualClock.after(records)
    assert clock.now == 8.0
    assert clock.reached == {0: 2.0, 1: 4.0, 2: 8.0}  # trial 2 was asked for at 2 s
    assert VirtualClock.after(records[:3]) == VirtualClock(0.0, {0: 0.0, 1: 0.0})


@cache
def whole(sampler: str, slots: int) -> Ran:
    return ran(spec(sampler, "asha", trials=15, max_epochs=9), noisy, slots)


@given(data=st.data(), sampler=st.sampled_from(["random", "tpe"]), slots=st.integers(1, 6))
@settings(max_examples=25, deadline=None)
def test_a_break_at_any_byte_changes_no_trial(data: st.DataObject, sampler: str, slots: int) -> None:
    undisturbed = whole(sampler, slots)
    content = undisturbed.content
    for _ in range(data.draw(st.integers(1, 3), label="breaks")):
        first = content.index(b"\n") + 1
        content = content[: data.draw(st.integers(first, len(content)), label="cut")]
        resumed = ran(spec(sampler, "asha", trials=15, max_epochs=9), noisy, slots, content)
        assert resumed.trials == undisturbed.trials
        assert [record.event for record in resumed.records] == [record.event for record in undisturbed.records]
        content = resumed.content


def test_a_study_that_is_over_stays_as_it_is() -> None:
    over = whole("tpe", 3)
    assert ran(spec("tpe", "asha", trials=15, max_epochs=9), noisy, 3, over.content).content == over.content
