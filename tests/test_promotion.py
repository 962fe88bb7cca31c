"""Promotion, brackets, audits and first points, in the pure study: who waits, who goes on, and what the rungs count."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo import asha
from hpo.events import Asked, Audited, Event, Finished, Paused, Promoted, Resumed, from_json, to_json
from hpo.rules import Rules
from hpo.sampling.simple import RandomSampler
from hpo.space import Float
from hpo.stopping import Patience
from hpo.study import Study, replay
from hpo.trial import Course, Decision, Direction, Measurement, State

SPACE = {"x": Float(0.0, 1.0)}
PROMOTE = Rules(Direction.MAXIMIZE, max_epochs=16, max_trials=100, reduction_factor=4, promotes=True)


def measurement(epoch: int, value: float) -> Measurement:
    return Measurement(epoch, value, {"value": value}, 0.1)


def begun(values: Sequence[float], rules: Rules = PROMOTE, record: list[Event] | None = None) -> Study:
    """A study whose trials came to the first rung, one after the other, with these values; NaN diverges."""
    study = Study(rules, RandomSampler(SPACE, 0), (record if record is not None else []).extend)
    for value in values:
        trial = study.ask()
        assert trial is not None
        if math.isnan(value):
            study.fail(trial.number, "metric", "value was nan")
        else:
            study.report(trial.number, [measurement(1, value)])
    return study


@pytest.mark.parametrize(
    ("values", "promoted"),
    [
        ([0.5], []),  # alone nobody is among the best quarter
        ([0.9, 0.1, 0.2], []),
        ([0.9, 0.1, 0.2, 0.3], [0]),
        ([0.1, 0.1, 0.1, 0.1], [0]),  # of a plateau a quarter, the earliest
        ([math.nan, math.nan, math.nan, 0.1], [3]),  # those that diverged count, and never go on
        ([math.nan] * 4, []),
        ([0.1, 0.9, 0.2, 0.8, 0.3, 0.7, 0.4, 0.6], [1, 3]),
    ],
)
def test_of_those_that_came_to_a_rung_the_best_quarter_goes_on(values: list[float], promoted: list[int]) -> None:
    study = begun(values)
    found = []
    while (promotion := study.promotion()) is not None:
        found.append(study.next().number)
        assert found[-1] == promotion.trial
    assert found == promoted
    expected = [State.FAILED if math.isnan(v) else State.RUNNING if n in promoted else State.PAUSED for n, v in enumerate(values)]
    assert [trial.state for trial in study.trials] == expected


def test_a_trial_waits_at_each_rung_and_is_told_to() -> None:
    study = begun([0.9, 0.1, 0.2, 0.3])
    assert study.rules.rungs == (1, 4)  # none at 16, the end; 16 / 4 is above 1.7
    assert study.next().number == 0
    assert study.report(0, [measurement(2, 0.9), measurement(3, 0.9)]) is Decision.CONTINUE
    assert study.report(0, [measurement(4, 0.95), measurement(5, 0.99)]) is Decision.PAUSE  # what lies behind the rung is dropped
    assert (study.trials[0].state, study.trials[0].epoch, study.trials[0].attempts) == (State.PAUSED, 4, 2)
    assert study.report(0, [measurement(5, 0.99)]) is Decision.PAUSE  # a late word of its worker changes nothing
    assert study.trials[0].epoch == 4


def test_the_highest_rung_promotes_first() -> None:
    study = begun([0.1 * n for n in range(8)] + [0.05] * 8, Rules(Direction.MAXIMIZE, 256, 100, reduction_factor=4, promotes=True))
    for _ in range(4):
        number = study.next().number
        study.report(number, [measurement(e, 0.1 * number) for e in (2, 3, 4)])
    begun_later = [study.ask().number for _ in range(4)]
    for number in begun_later:
        study.report(number, [measurement(1, 0.5)])
    promotions = [study.promotion()]
    study.next()
    promotions.append(study.promotion())
    assert promotions == [Promoted(7, 4), Promoted(16, 1)]


@pytest.mark.parametrize(("gap", "rungs"), [(27, (1, 4)), (51, (1, 4, 16)), (64, (1, 4, 16))])
def test_a_rung_too_near_to_the_end_is_left_out(gap: int, rungs: tuple[int, ...]) -> None:
    assert Rules(Direction.MINIMIZE, gap, 1, reduction_factor=4, promotes=True).rungs == rungs


def test_no_trial_is_judged_before_it_trained() -> None:
    assert all(rung >= 1 for eta in (2, 3, 4) for promotes in (True, False) for rung in Rules(
        Direction.MINIMIZE, 100, 1, reduction_factor=eta, promotes=promotes).rungs)  # fmt: skip


def test_after_each_share_of_epochs_the_best_that_waits_is_trained_to_its_end() -> None:
    study = begun([0.5] * 10 + [0.9] + [0.5] * 21)
    assert study.epochs == 32  # two full trainings
    assert study.promotion() == Promoted(10, 1, Course.FINISH)
    study.next()
    assert study.rungs(study.trials[10]) == ()
    assert study.report(10, [measurement(e, 0.9) for e in range(2, 17)]) is Decision.STOP
    assert study.trials[10].state is State.COMPLETE
    assert study.promotion() == Promoted(0, 1)  # the next one after six full trainings, 96 epochs


def test_a_final_that_fails_is_made_up_for() -> None:
    study = begun([0.5] * 10 + [0.9] + [0.8] + [0.5] * 20)
    study.next()
    study.fail(10, "metric", "value was nan")
    assert study.promotion() == Promoted(11, 1, Course.FINISH)


@pytest.mark.parametrize("reason", ["budget", "time"])
def test_a_final_that_the_studys_end_cut_short_is_made_up_for_when_it_is_resumed(reason: str) -> None:
    study = begun([0.5] * 10 + [0.9] + [0.5] * 21)
    study.next()
    study.report(10, [measurement(2, 0.9)])
    study.discard(reason)
    study.resume(Resumed("here", 1, {}, 200))
    study.report(study.ask().number, [measurement(1, 0.8)])
    assert study.promotion() == Promoted(32, 1, Course.FINISH)


def test_what_was_audited_is_not_the_finished_model() -> None:
    study = begun([0.9, 0.1], Rules(Direction.MAXIMIZE, 16, 2, reduction_factor=4, promotes=True, audit=0.999))
    assert [trial.course for trial in study.trials] == [Course.COMPETES, Course.AUDIT]
    study.report(1, [measurement(e, 0.1) for e in range(2, 17)])
    assert study.next() is study.trials[0]
    assert study.trials[0].course is Course.FINISH


def test_a_trial_that_went_on_and_ended_at_once_takes_one_place_only() -> None:
    study = begun([0.9, 0.8, 0.2, 0.1], Rules(Direction.MAXIMIZE, 16, 100, reduction_factor=2, promotes=True))
    assert [study.next().number for _ in range(2)] == [0, 1]
    study.complete(0, "trainer", "the trainer ended after 1 epochs")
    study.report(study.ask().number, [measurement(1, 0.7)])
    study.report(study.ask().number, [measurement(1, 0.6)])
    assert study.promotion() == Promoted(4, 1)  # three of six go on, and two have


@pytest.mark.parametrize("direction", Direction)
def test_where_most_diverged_a_pause_is_still_a_line_of_the_journal(direction: Direction) -> None:
    events: list[Event] = []
    begun([math.nan] * 7 + [0.5], Rules(direction, 16, 100, reduction_factor=4, promotes=True), events)
    paused = next(event for event in events if isinstance(event, Paused))
    assert paused.detail == {"rung": 1, "value": 0.5, "rank": 1, "arrivals": 8, "quota": 2}  # nothing that diverged is a cutoff
    assert from_json(json.loads(json.dumps(to_json(paused), allow_nan=False))) == paused


def test_a_study_that_has_nothing_else_to_do_ends_with_a_finished_model() -> None:
    study = begun([0.1, 0.3, 0.2], Rules(Direction.MAXIMIZE, 16, 3, reduction_factor=4, promotes=True))
    assert (study.promotion(), study.ask()) == (None, None)
    trial = study.next()
    assert (trial.number, trial.course) == (1, Course.FINISH)
    assert study.next() is None  # one is enough
    study.report(1, [measurement(e, 0.3) for e in range(2, 17)])
    assert study.next() is None
    left = study.discard("budget")
    assert [t.number for t in left] == [0, 2]
    assert [t.reason for t in left] == [f"waited at epoch 1 when the study ended: rank {rank} of 3, of which 1 went on" for rank in (3, 2)]
    assert {t.state for t in left} == {State.PRUNED}


def test_a_trial_that_ended_itself_is_compared_at_later_rungs_by_its_best_value_and_blocks_none() -> None:
    rules = Rules(Direction.MAXIMIZE, 16, 100, reduction_factor=2, promotes=True, stopper=Patience(epochs=1))
    study = begun([0.9, 0.1, 0.2, 0.3], rules)
    assert study.next().number == 0
    study.report(0, [measurement(2, 0.95)])  # it waits at epoch 2
    assert study.next().number == 3
    study.report(3, [measurement(2, 0.25)])  # no better: done, with .3
    assert study.trials[3].state is State.COMPLETE
    assert study.promotion() == Promoted(0, 2)  # the rung at 2 has seen both, and half of them goes on: the better one
    study.next()
    study.report(0, [measurement(3, 0.96), measurement(4, 0.97)])
    assert study._standings.rung(("", 0), 4).losses[3] == -0.3
    assert study.promotion() == Promoted(0, 4)


def test_a_finished_one_among_the_best_takes_a_place() -> None:
    rules = Rules(Direction.MAXIMIZE, 16, 100, reduction_factor=2, promotes=True, stopper=Patience(epochs=1))
    study = begun([0.9, 0.8, 0.2, 0.3], rules)
    assert [study.next().number, study.next().number] == [0, 1]
    study.report(0, [measurement(2, 0.85)])  # done with .9
    study.report(1, [measurement(2, 0.81)])
    assert study.promotion() is None  # of two one goes on, and that would be trial 0


def test_brackets_skip_rungs_and_compete_among_themselves() -> None:
    rules = Rules(Direction.MAXIMIZE, 16, 400, reduction_factor=4, promotes=True, brackets=3)
    study = begun([0.5] * 400, rules)
    skipped = Counter(rules.bracket(trial.seed) for trial in study.trials)
    assert skipped[0] > skipped[1] > skipped[2] > 10  # the shorter, the more: equal epochs for each
    for trial in study.trials:
        assert study.rungs(trial) == (1, 4)[rules.bracket(trial.seed) :]
        assert (trial.state is State.PAUSED) == (rules.bracket(trial.seed) == 0)
    costs = [asha._expected_epochs((1, 4)[n:], 4, 16) for n in range(3)]
    spent = [skipped[n] * costs[n] for n in range(3)]
    assert max(spent) < 1.6 * min(spent)


@pytest.mark.parametrize("promotes", [True, False])
def test_the_audited_train_on_to_their_end_and_change_nothing_for_the_others(promotes: bool) -> None:
    events: list[Event] = []
    values = [1 - 0.001 * n for n in range(200)]
    rules = Rules(Direction.MAXIMIZE, 16, 400, reduction_factor=4, promotes=promotes, audit=0.1)
    study = begun(values, rules, events)
    audited = [event.trial for event in events if isinstance(event, Audited)]
    assert 8 <= len(audited) <= 35  # of 199 that were not among the best
    for number in audited:
        trial = study.trials[number]
        assert (trial.state, trial.course, study.rungs(trial)) == (State.RUNNING, Course.AUDIT, ())
        assert study.report(number, [measurement(e, 2.0) for e in range(2, 17)]) is Decision.STOP
        assert (trial.state, trial.epoch) == (State.COMPLETE, 16)
    plain = begun(values, Rules(Direction.MAXIMIZE, 16, 400, reduction_factor=4, promotes=promotes))
    rungs = study._standings._rungs, plain._standings._rungs
    assert {key: rung.losses for key, rung in rungs[0].items()} == {key: rung.losses for key, rung in rungs[1].items()}


def test_an_epoch_budget_ends_the_asking() -> None:
    study = begun([0.5, 0.4], Rules(Direction.MAXIMIZE, 16, 100, epoch_budget=2))
    assert study.is_spent
    assert (study.next(), study.ask()) == (None, None)


def drawn(data: st.DataObject, study: Study, steps: int) -> Study:
    """The study after so many steps of any kind; values are often equal."""
    for _ in range(steps):
        running = [t for t in study.trials if t.state is State.RUNNING]
        if not running or data.draw(st.booleans()):
            study.next()
            continue
        trial = data.draw(st.sampled_from(running))
        match data.draw(st.sampled_from(["report", "report", "report", "report", "fail", "retry"])):
            case "report":
                study.report(trial.number, [measurement(trial.epoch + 1, data.draw(st.sampled_from([0.1, 0.5, 0.5, 0.9])))])
            case "fail":
                study.fail(trial.number, data.draw(st.sampled_from(["metric", "error"])), "why")
            case _:
                study.retry(trial.number, "died")
    return study


@given(st.data(), st.integers(2, 4), st.integers(1, 2), st.sampled_from([1, 3]))
def test_what_is_counted_and_kept_in_order_is_what_a_walk_over_all_trials_would_give(
    data: st.DataObject, eta: int, brackets: int, patience: int
) -> None:
    rules = Rules(Direction.MAXIMIZE, 9, 60, reduction_factor=eta, promotes=True, brackets=brackets, stopper=Patience(epochs=patience))
    study = Study(rules, RandomSampler(SPACE, 0))
    for _ in range(data.draw(st.integers(1, 12))):
        drawn(data, study, 8)
        assert study.count == Counter(trial.state for trial in study.trials)
        if study.standings.waiting:
            assert study.standings.best == min(study.standings.waiting, key=lambda number: (study.loss(study.trials[number]), number))
        for rung in study.standings.all():
            came = sorted(rung.losses, key=lambda number: (asha.worst_if_nan(rung.losses[number]), number))
            assert rung.waiting == [
                number for number in came if number in study.standings.waiting and study.trials[number].epoch == rung.epoch
            ]
            quota = len(came) // eta
            over = {number for _, number in rung.over}
            free = quota - len(rung.passed) - sum(number in over for number in came[:quota])
            assert rung.places(eta) == (free if rung.waiting and quota > len(rung.passed) else 0)


@given(st.data(), st.integers(2, 4), st.integers(1, 3), st.sampled_from([0.0, 0.3]))
def test_a_replayed_journal_gives_the_same_study_and_the_same_next_step(data: st.DataObject, eta: int, brackets: int, audit: float) -> None:
    events: list[Event] = []
    rules = Rules(
        Direction.MAXIMIZE, 9, 40, reduction_factor=eta, promotes=True, brackets=brackets, audit=audit, stopper=Patience(epochs=3)
    )
    study = drawn(data, Study(rules, RandomSampler(SPACE, 0), events.extend), data.draw(st.integers(1, 60)))
    again = replay(rules, RandomSampler(SPACE, 0), [from_json(to_json(event)) for event in events])
    assert again.trials == study.trials
    assert repr(again._standings._rungs) == repr(study._standings._rungs)
    asked, asked_again = study.next(), again.next()
    assert (asked and (asked.number, asked.params)) == (asked_again and (asked_again.number, asked_again.params))


@given(st.lists(st.floats(0, 1) | st.just(math.nan), min_size=1, max_size=60), st.integers(2, 4), st.integers(1, 6))
def test_never_more_than_one_in_eta_goes_on_and_none_is_lost(finals: list[float], eta: int, slots: int) -> None:
    """Run to the end with some workers: every rung keeps its quota, every trial ends once, something is complete."""
    events: list[Event] = []
    rules = Rules(Direction.MAXIMIZE, 9, len(finals), reduction_factor=eta, promotes=True)
    study = Study(rules, RandomSampler(SPACE, 0), events.extend)
    running: list[int] = []
    while True:
        while len(running) < slots and (trial := study.next()) is not None:
            running.append(trial.number)
        if not running:
            break
        number = running.pop(0)
        if math.isnan(finals[number]):
            study.fail(number, "metric", "nan")
        elif study.report(number, [measurement(study.trials[number].epoch + 1, finals[number])]) is Decision.CONTINUE:
            running.append(number)
    study.discard("budget")
    competing = Counter(event.epoch for event in events if isinstance(event, Promoted) and event.course is Course.COMPETES)
    for (_, epoch), rung in study._standings._rungs.items():
        assert competing[epoch] <= len(rung.losses) // eta
    assert Counter(event.trial for event in events if isinstance(event, Finished)) == Counter(range(len(finals)))
    assert {event.trial for event in events if isinstance(event, Asked)} == set(range(len(finals)))
    assert not {event.trial for event in events if isinstance(event, Paused)} - set(range(len(finals)))
    if any(not math.isnan(value) for value in finals):
        assert any(trial.state is State.COMPLETE for trial in study.trials)
