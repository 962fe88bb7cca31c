"""The simulated engine: trials on a virtual clock, the same every time, and the same again after a break at any point."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
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
from hpo.space import Params
from hpo.spec import Spec, spec_from_dict
from hpo.trial import Measurement, State, Trial
from tests import simulations as made_up

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


def ends_after(epochs: int) -> Callable[[Params, int], list[float]]:
    return lambda params, seed: [0.5 + 0.1 * seed % 7 for _ in range(epochs)]  # noqa: ARG005


@pytest.mark.parametrize("rule", ["stop", "promote"])
@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_a_trial_whose_curve_ends_early_is_complete_with_its_values_at_a_rung_too(rule: str, epochs: int) -> None:
    """Rungs are 1 and 4: a trial that waits at its last epoch and is promoted has nothing left to train."""
    what = made_up.spec("random", 9, {"trials": 12}, pruner={"name": "asha", "rule": rule, "reduction_factor": 4})
    found = simulate.simulate(what, ends_after(epochs))
    assert State.FAILED not in {trial.state for trial in found.trials}
    assert State.COMPLETE in {trial.state for trial in found.trials}
    assert {trial.epoch for trial in found.trials if trial.state is State.COMPLETE} == {epochs}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers: found 0; at least 1 is needed"),
        ({"workers": math.nan}, "workers: found nan; at least 1 is needed"),
        ({"epoch_seconds": -1}, "epoch_seconds: found -1.0; a finite number that is not negative is needed"),
        ({"epoch_seconds": lambda _: math.nan}, "epoch_seconds: found nan"),
    ],
)
def test_what_no_clock_can_run_on_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        simulate.simulate(made_up.spec("random", 9, {"trials": 2}), ends_after(9), **options)


@pytest.mark.parametrize("values", [None, 0.5, ["a"], [None], [[0.5]]])
def test_a_curve_of_no_numbers_is_named(values: Any) -> None:
    with pytest.raises(TypeError, match=r"^curve: found .* for \{'x': .*; a sequence of numbers, one an epoch, is needed$"):
        simulate.simulate(made_up.spec("random", 9, {"trials": 2}), lambda *_: values)


@pytest.mark.parametrize("values", [lambda: [0.5] * 99, lambda: itertools.repeat(0.5), lambda: np.full(9, 0.5, np.float32)])
def test_a_curve_may_be_any_iterable_and_longer_than_a_trial(values: Callable[[], Iterable[float]]) -> None:
    found = simulate.simulate(made_up.spec("random", 9, {"trials": 2}, pruner={"name": "none"}), lambda *_: values())
    assert [(t.state, t.epoch) for t in found.trials] == [(State.COMPLETE, 9)] * 2
