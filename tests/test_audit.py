"""What an audit says about the stops of a study: the interval holds, the order is measured on all, the advice follows."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.audit_coverage import covers, study
from hpo.advice import TOLERABLE, advice
from hpo.audit import Audit, RungAudit, Stops, audit, outside
from hpo.estimates import Correlation, rank_correlation, share_interval
from hpo.events import Asked, Audited, Event, Finished, Measured, Paused
from hpo.rules import Rules
from hpo.specified import rules_of
from hpo.trial import Course, Direction, State
from hpo.typical import typical_curve
from tests.simulations import broken, simulated, spec

RULES = Rules(Direction.MAXIMIZE, max_epochs=9, max_trials=9, reduction_factor=3, audit=0.2)


@pytest.mark.parametrize(
    ("found", "sample", "population", "low", "high"),
    [
        (0, 0, 50, 0.0, 1.0),  # nobody was asked
        (3, 50, 50, 0.06, 0.06),  # all were
        (0, 20, 100, 0.0, 0.11),
        (0, 20, 10_000, 0.0, 0.12),  # 1 - 0.1^(1 / 20) = 0.109: none in 20 is no surprise at a tenth
        (10, 20, 100, 0.33, 0.67),
        (20, 20, 100, 0.89, 1.0),
    ],
)
def test_the_interval_of_a_share(found: int, sample: int, population: int, low: float, high: float) -> None:
    assert share_interval(found, sample, population) == pytest.approx((low, high), abs=0.015)


@given(st.data())
def test_an_interval_holds_what_was_seen_and_is_the_mirror_of_what_was_not(data: st.DataObject) -> None:
    population = data.draw(st.integers(1, 60))
    sample = data.draw(st.integers(1, population))
    found = data.draw(st.integers(0, sample))
    low, high = share_interval(found, sample, population)
    assert low - 1 / population <= found / sample <= high + 1 / population  # shares of the population are whole trials
    assert found / population <= low
    assert high <= (population - sample + found) / population
    other_low, other_high = share_interval(sample - found, sample, population)
    assert (1 - other_high, 1 - other_low) == pytest.approx((low, high), abs=1.01 / population)


@pytest.mark.parametrize(("population", "sample"), [(50, 5), (100, 10), (100, 20), (250, 50)])
def test_intervals_cover_about_as_often_as_they_say(population: int, sample: int) -> None:
    intervals = {found: share_interval(found, sample, population) for found in range(sample + 1)}

    def coverage(total: int) -> float:
        ways = math.comb(population, sample)
        return sum(
            math.comb(total, found) * math.comb(population - total, sample - found) / ways
            for found, (low, high) in intervals.items()
            if low <= total / population <= high
        )

    covered = [coverage(total) for total in range(1, population // 2)]
    assert min(covered) > 0.89
    assert 0.95 < sum(covered) / len(covered) < 0.97


@pytest.mark.parametrize(
    ("pairs", "weights", "expected"),
    [
        ([(i, i * i) for i in range(10)], [1.0] * 10, 1.0),
        ([(i, -i) for i in range(10)], [1.0] * 10, -1.0),
        ([(1, 1), (2, 3), (3, 2), (4, 4), (5, 5)], [1.0] * 5, 0.9),  # 1 - 6 * 2 / (5 * 24)
        ([(1, 1), (2, 3), (3, 2), (4, 4), (5, 5)], [7.0] * 5, 0.9),
        ([(1, math.inf), (2, 3), (3, 2), (4, 1), (5, 0)], [1.0] * 5, -1.0),  # what broke ended worst
    ],
)
def test_the_correlation_of_ranks(pairs: Sequence[tuple[float, float]], weights: Sequence[float], expected: float) -> None:
    found = rank_correlation(pairs, weights)
    assert found is not None
    assert found.value == pytest.approx(expected)
    assert found.low <= found.value <= found.high
    assert found.effective == pytest.approx(len(pairs))


def test_one_of_double_weight_counts_as_two() -> None:
    draw = random.Random(1)
    pairs = [(draw.random(), draw.random()) for _ in range(8)]
    twice = rank_correlation([*pairs, pairs[0]], [1.0] * 9)
    weighted = rank_correlation(pairs, [2.0] + [1.0] * 7)
    assert twice is not None
    assert weighted is not None
    assert weighted.value == pytest.approx(twice.value)
    assert weighted.effective < 9


@pytest.mark.parametrize("pairs", [[], [(1.0, 2.0)] * 3, [(1.0, float(i)) for i in range(9)]])
def test_too_few_or_all_alike_have_no_correlation(pairs: list[tuple[float, float]]) -> None:
    assert rank_correlation(pairs, [1.0] * len(pairs)) is None


def told(*trials: tuple[Sequence[float], str]) -> list[Event]:
    """A study of trials with these values, the last word what became of each."""
    events: list[Event] = []
    for number, (values, fate) in enumerate(trials):
        detail = {"rung": 1, "value": values[0], "rank": 3, "arrivals": 3, "quota": 1, "cutoff": 1.0}
        events.append(Asked(number, {"x": 0.5}, number))
        for epoch, value in enumerate(values, start=1):
            events.append(Measured(number, epoch, value, {"value": value}, 1.0))
            if epoch == 1 and fate in ("audited", "diverged", "cut off"):
                events.append(Audited(number, 1, detail))
        match fate:
            case "complete" | "audited":
                events.append(Finished(number, State.COMPLETE, "max_epochs", ""))
            case "stopped":
                events.append(Finished(number, State.PRUNED, "asha", "", detail))
            case "diverged":
                events.append(Finished(number, State.FAILED, "metric", ""))
            case "cut off":
                events.append(Finished(number, State.PRUNED, "budget", ""))
            case "in" | "out":
                events.append(Paused(number, 1, detail | ({"rank": 1} if fate == "in" else {})))
    return events


def test_false_stops_are_those_that_end_better_than_the_middle_of_the_survivors() -> None:
    survivors = [([0.5, 0.6], "complete"), ([0.5, 0.7], "complete"), ([0.5, 0.8], "complete")]
    others = [
        ([0.1, 0.75], "audited"),  # false: better than 0.7
        ([0.1, 0.95], "audited"),  # false, and better than the winner
        ([0.1, 0.65, 0.6], "audited"),
        ([0.1, 0.9], "diverged"),  # whatever it had been: a model that diverges is none
        ([0.1, 0.9], "cut off"),  # says nothing
        ([0.1], "stopped"),
        ([0.1], "stopped"),
    ]
    found = audit(RULES, told(*survivors, *others))
    assert found.reference == 0.7
    assert (found.stops.outside, found.stops.known, found.stops.false, found.stops.rate) == (7, 4, 2, 0.5)
    assert (found.beat_winner, found.cut_off) == (1, 1)
    assert found.epochs == 6  # behind epoch 1: five audited trials of one further epoch, one of two
    assert found.share == pytest.approx(6 / 19)
    assert [rung.stops.outside for rung in found.rungs] == [7, 0]


def test_nothing_is_said_without_a_survivor_to_compare_with() -> None:
    found = audit(RULES, told(([0.1, 0.9], "audited"), ([0.1], "stopped")))
    assert (found.reference, found.stops.rate, found.stops.known) == (None, None, 1)
    assert (found.stops.low, found.stops.high) == (0.0, 1.0)


def test_a_paused_trial_is_outside_only_if_it_was_not_among_the_best() -> None:
    found = outside(told(([0.5], "in"), ([0.4], "out"), ([0.4, 0.5], "audited"), ([0.3], "stopped")))
    assert [(stop.trial, stop.epoch, stop.audited) for stop in found] == [(1, 1, False), (2, 1, True), (3, 1, False)]


def known(false: int, sample: int, population: int = 1000) -> Stops:
    return Stops(population, sample, false, false / sample, *share_interval(false, sample, population))


def found(stops: Stops, *rungs: RungAudit) -> Audit:
    return Audit(0.2, 0.7, stops, 0, 0, 100, 0.1, rungs)


AGREES, DISAGREES = Correlation(0.9, 0.8, 0.95, 50), Correlation(0.3, 0.1, 0.5, 50)
NONE = Stops(0, 0, 0, None, 0.0, 1.0)


@pytest.mark.parametrize(
    ("audited", "rules", "said"),
    [
        (found(NONE), RULES, "nothing was outside the best of a rung yet"),
        (found(NONE), replace(RULES, reduction_factor=None), "nothing is pruned"),
        (found(Stops(20, 0, 0, None, 0.0, 1.0)), replace(RULES, audit=0.0), "none was audited: `pruner.audit: 0.05` trains"),
        (found(Stops(20, 0, 0, None, 0.0, 1.0)), RULES, "too early to say: no audited trial was trained to its end; about"),
        (replace(found(Stops(20, 2, 0, None, 0.0, 1.0)), reference=None), RULES, "too early to say: no trial that competed"),
        (found(known(1, 5)), RULES, "too few audited to say: about"),
        (
            found(known(20, 50), RungAudit(1, known(18, 40), DISAGREES), RungAudit(3, known(2, 10), AGREES)),
            RULES,
            "raise pruner.grace_epochs from 1 to 3: 40% of the stops were false, most of them at epoch 1",
        ),
        (
            found(known(40, 80), RungAudit(1, known(30, 40), DISAGREES), RungAudit(3, known(5, 20), DISAGREES), RungAudit(9, NONE, AGREES)),
            replace(RULES, max_epochs=27),
            "raise pruner.grace_epochs from 1 to 9: 50%",  # the first at which the order is that at the end
        ),
        (
            found(known(20, 50), RungAudit(1, known(2, 20), AGREES), RungAudit(3, known(18, 30), AGREES)),
            RULES,
            "lower pruner.reduction_factor from 3 to 2, so that more go on: 40%",
        ),
        (found(known(20, 50), RungAudit(1, known(20, 50), None)), replace(RULES, reduction_factor=2), "prune less"),
        (found(known(1, 60), RungAudit(1, NONE, AGREES)), RULES, "raise pruner.reduction_factor from 3 to 4, so that fewer go on: at most"),
        (found(known(1, 60), RungAudit(1, NONE, AGREES)), replace(RULES, reduction_factor=4), "nothing: at most"),
        (found(known(1, 60), RungAudit(3, NONE, AGREES)), replace(RULES, grace_epochs=3), "lower pruner.grace_epochs from 3 to 1: at most"),
        (found(known(150, 1000, 100_000)), RULES, "nothing: about 15% of the stops are false"),
    ],
)
def test_the_advice_follows_from_the_figures(audited: Audit, rules: Rules, said: str) -> None:
    assert advice(rules, audited, 100).startswith(said)


def test_more_trials_are_asked_for_until_the_interval_would_decide() -> None:
    assert known(0, 12).high > TOLERABLE
    assert advice(RULES, found(known(0, 12, 60)), 100) == "too few audited to say: about 60 more trials would tell"
    assert share_interval(0, 20, 400)[1] < TOLERABLE  # 12 in 100 trials: 8 more in about 60


@pytest.mark.parametrize("rule", ["stop", "promote"])
def test_the_audited_train_to_their_end_and_compete_with_nobody(rule: str) -> None:
    what = spec(pruner={"name": "asha", "rule": rule, "audit": 0.3})
    done = simulated(what, broken(typical_curve(what.space, 27), 0.07))
    chosen = {stop.trial for stop in outside(done.events) if stop.audited}
    assert chosen
    for number in chosen:
        trial = done.study.trials[number]
        assert trial.course is Course.AUDIT
        assert trial.state in (State.COMPLETE, State.FAILED)
        assert (trial.epoch == 27) == (trial.state is State.COMPLETE)
    ended = audit(rules_of(what), done.events)
    assert ended.stops.known == len(chosen)
    assert ended.epochs == sum(done.study.trials[s.trial].epoch - s.epoch for s in outside(done.events) if s.audited)


def test_the_estimate_covers_the_true_rate_of_simulated_studies() -> None:
    """One of each three of the studies that `python -m benchmarks.audit_coverage` counts 200 of each kind of."""
    covered = [covers(study(rule, share, seed)) for rule in ("stop", "promote") for share in (0.1, 0.2) for seed in range(15)]
    known_ones = [found for found in covered if found is not None]
    assert len(known_ones) > 50
    assert 0.9 <= sum(known_ones) / len(known_ones) <= 1.0
