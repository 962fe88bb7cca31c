"""The finals' rules: who is trained again, in which order, who is out of the race, and what is said of the winner."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hpo.engine.simulate import simulate
from hpo.estimates import mean_interval, proportion_interval, student
from hpo.events import Asked, Chosen, Event, Nominated, to_json
from hpo.finals import SHARE, Contender, contenders, next_run, shortlist, why_out
from hpo.journal_format import Record
from hpo.judging import judge
from hpo.replaying import replay_decisions
from hpo.results import StoredStudy
from hpo.show_choice import against_defaults, judgement_rows
from hpo.space import Params
from hpo.spec import SpecError, parse_spec
from hpo.specified import rules_of, sampler_of
from hpo.study import replay
from hpo.trial import DEFAULTS, FINALS_FROM, Course, Direction, Measurement, State, Trial, key_of
from tests.simulations import spec

MINIMIZE, MAXIMIZE = Direction.MINIMIZE, Direction.MAXIMIZE


def searched(number: int, value: float, state: State = State.COMPLETE, **params: float) -> Trial:
    return Trial(number, params or {"x": float(number)}, number, state, [Measurement(1, value, {}, 1.0)])


def contender(
    trial: int, fresh: Sequence[float], selected: float | None = 0.0, *, running: int = 0, failed: bool = False, cut_short: int = 0
) -> Contender:
    """One whose complete fresh runs have these losses."""
    found = Contender(trial, {"x": float(trial)}, selected, is_default=trial == DEFAULTS)
    states = [State.COMPLETE] * len(fresh) + [State.RUNNING] * running + [State.FAILED] * failed + [State.PRUNED] * cut_short
    for i, state in enumerate(states):
        number = FINALS_FROM + 10 * max(trial, 0) + i
        values = [Measurement(1, fresh[i], {}, 1.0)] if i < len(fresh) else []
        found.runs.append(Trial(number, found.params, 0, state, values, reason="nan", course=Course.FINALS, replicates=trial))
        found.scores |= {number: fresh[i]} if i < len(fresh) else {}
    return found


@pytest.mark.parametrize(
    ("trials", "direction", "most", "chosen"),
    [
        ([searched(0, 3.0), searched(1, 1.0), searched(2, 2.0)], MINIMIZE, 2, [1, 2]),
        ([searched(0, 3.0), searched(1, 1.0), searched(2, 2.0)], MAXIMIZE, 2, [0, 2]),
        ([searched(0, 1.0), searched(1, 1.0)], MINIMIZE, 1, [0]),  # the earlier of equals
        ([searched(0, 1.0, State.FAILED), searched(1, 2.0, State.PRUNED)], MINIMIZE, 3, [1]),
        ([searched(0, 1.0, x=5.0), searched(1, 2.0, x=5.0), searched(2, 3.0)], MINIMIZE, 2, [0, 2]),  # one configuration is one
        ([Trial(0, {}, 0)], MINIMIZE, 3, []),
    ],
)
def test_the_best_different_configurations_that_did_not_fail_are_nominated(
    trials: list[Trial], direction: Direction, most: int, chosen: list[int]
) -> None:
    assert shortlist(trials, direction, most) == chosen


@pytest.mark.parametrize(
    ("field", "runs_left", "begins"),
    [
        ([contender(0, []), contender(1, [])], 1, 0),  # the first enters in any case
        ([contender(0, [], running=1), contender(1, [])], 2, 0),  # the second only with room for both its runs: one is owed to the first
        ([contender(0, [], running=1), contender(1, [])], 3, 1),  # everybody's first before anybody's second
        ([contender(0, [], running=2), contender(1, [])], 1, None),
        ([contender(0, [], running=2), contender(1, []), contender(DEFAULTS, [], None)], 1, DEFAULTS),  # what is left is theirs
        ([contender(0, [0.31], 0.3), contender(1, [0.3], 0.31)], 5, 1),  # then the leader is trained again first
        ([contender(0, [0.31], 0.3), contender(1, [0.3], 0.31, running=1)], 5, 0),
        ([contender(0, [0.3, 0.31]), contender(1, [0.31, 0.3])], 5, None),  # all have their two
        ([contender(0, [0.3, 0.31]), contender(DEFAULTS, [0.5], None)], 5, DEFAULTS),
        ([contender(0, [0.3], 0.29), contender(1, [9.0], 8.99), contender(2, [])], 3, 2),  # the second is out of the race: owed nothing
        ([contender(0, [0.3], 0.29), contender(1, [9.0], 8.99)], 5, 0),
        ([contender(0, [], failed=True), contender(1, [])], 1, 1),
        ([contender(0, [0.3, 0.31]), contender(1, [], cut_short=1)], 2, 1),  # the time was spent in its first run, and is longer now
    ],
)
def test_whose_run_begins(field: list[Contender], runs_left: int, begins: int | None) -> None:
    found = next_run(field, 2, runs_left)
    assert (None if found is None else found.trial) == begins


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ([contender(0, [1.0], 0.99), contender(1, [1.001], 1.0)], ""),  # luck may still turn it
        ([contender(0, [1.0], 0.99), contender(1, [2.0], 1.99)], "stay behind"),
        ([contender(0, [1.0, 1.0], 1.0), contender(1, [1.01, 1.01], 1.01)], "stay behind"),  # nothing is to come
        ([contender(0, [1.0], 0.99), contender(1, [], 0.99)], ""),  # nothing is known of it
        ([contender(0, [], None), contender(1, [2.0], None)], ""),  # nothing is known of the spread
        ([contender(0, [1.0]), contender(1, [1.0], failed=True)], "failed: nan"),
    ],
)
def test_the_racing_rule(field: list[Contender], words: str) -> None:
    why = why_out(field[1], field, 2)
    assert (words in why) if words else why == ""
    assert why_out(field[0], field, 2) == ""


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=3), min_size=2, max_size=5), st.integers(3, 6))
def test_one_that_is_out_could_not_have_won_by_the_stated_luck(fresh: list[list[float]], seeds: int) -> None:
    field = [contender(number, values, values[0]) for number, values in enumerate(fresh)]
    leader = min(field, key=lambda one: one.mean)
    everything = [value for one in field for value in (*one.losses, one.selected_on or 0.0)]
    for one in field:
        if why_out(one, field, seeds):
            assert one.mean > leader.mean
            assert max(everything) > min(everything)
    assert why_out(leader, field, seeds) == ""


def test_the_winner_is_judged_by_fresh_values_alone() -> None:
    field = [
        contender(3, [0.20, 0.22], 0.10),
        contender(7, [0.16, 0.15], 0.14),
        contender(9, [0.90, 0.91], 0.15),
        contender(DEFAULTS, [0.5, 0.52], None),
    ]
    judged = judge(field, MINIMIZE, 2)
    assert judged is not None
    assert judged.winner.trial == 7
    assert judged.winner.selected_on == 0.14
    assert judged.winner.mean == pytest.approx(0.155)
    assert judged.gap == pytest.approx(0.015)
    assert judged.champion == judged.winner.runs[0]  # of two runs the worse: the upper median of the losses
    deviation = math.sqrt((0.01**2 + 0.005**2 + 0.005**2 + 0.01**2) * 2 / 4)
    assert judged.sd == pytest.approx(deviation)
    assert judged.freedom == 4
    width = stats.t.ppf(0.975, 4) * deviation / math.sqrt(2)
    assert (judged.winner.low, judged.winner.high) == pytest.approx((0.155 - width, 0.155 + width), rel=1e-3)
    assert judged.not_told_apart == ()
    assert judged.beats_defaults is True
    assert [one.trial for one in judged.finalists] == [7, 3, DEFAULTS, 9]


@pytest.mark.parametrize(
    ("field", "winner", "close", "beats"),
    [
        ([contender(0, [0.2, 0.3]), contender(1, [0.21, 0.31])], 0, (1,), None),
        ([contender(0, [0.2, 0.3]), contender(DEFAULTS, [0.1, 0.11], None)], DEFAULTS, (0,), False),
        ([contender(0, [0.2, 0.3]), contender(DEFAULTS, [], None)], 0, (), None),
        ([contender(0, [0.1], failed=True), contender(1, [0.2, 0.21])], 1, (), None),  # what fails again is not chosen
        ([contender(0, [0.2, 0.21]), contender(DEFAULTS, [], None, failed=True)], 0, (), True),
        ([contender(0, [0.2], 0.2), contender(1, [0.9], 0.1)], 0, (1,), None),  # one run each: known by the search's values alone
    ],
)
def test_who_wins_and_who_cannot_be_told_apart(field: list[Contender], winner: int, close: tuple[int, ...], beats: bool | None) -> None:
    judged = judge(field, MINIMIZE, 2)
    assert judged is not None
    assert (judged.winner.trial, judged.not_told_apart, judged.beats_defaults) == (winner, close, beats)


def test_the_trainers_defaults_may_be_among_those_that_the_search_tried() -> None:
    trials = [searched(0, 0.3, x=0.5), searched(1, 0.2, x=0.7)]
    field = contenders(trials, [], [1, 0], {"x": 0.5}, MINIMIZE)
    assert [(one.trial, one.is_default) for one in field] == [(1, False), (0, True)]
    for one, fresh in zip(field, ([0.2, 0.21], [0.4, 0.41]), strict=True):
        one.scores.update(enumerate(fresh, FINALS_FROM + 10 * one.trial))
    judged = judge(field, MINIMIZE, 2)
    assert judged is not None
    assert judged.beats_defaults is True
    assert against_defaults(judged) == "the trainer's own, 0.405: beaten (95 %)"
    field[0].scores = {FINALS_FROM + 10: 0.9, FINALS_FROM + 11: 0.91}
    turned = judge(field, MINIMIZE, 2)
    assert turned is not None
    assert turned.beats_defaults is False
    assert against_defaults(turned).startswith("the trainer's defaults won")


@pytest.mark.parametrize(
    ("defaults", "words"),
    [
        ([], "not known: the trainer has none for all that is searched"),
        ([contender(DEFAULTS, [], None)], "not trained again: nothing was left for them"),
        ([contender(DEFAULTS, [], None, cut_short=1)], "not known: no run of them was trained to its end"),
        ([contender(DEFAULTS, [], None, failed=True)], "beaten: final-0, a run of it, failed: nan"),
        ([contender(DEFAULTS, [0.9, 0.91], None)], "the trainer's own, 0.905: beaten (95 %)"),
        ([contender(DEFAULTS, [0.2, 0.31], None)], "the trainer's own, 0.255: not told apart"),
    ],
)
def test_what_is_said_of_the_trainers_defaults(defaults: list[Contender], words: str) -> None:
    judged = judge([contender(0, [0.2, 0.21], 0.2), *defaults], MINIMIZE, 2)
    assert judged is not None
    assert against_defaults(judged) == words


@pytest.mark.parametrize("direction", [MINIMIZE, MAXIMIZE])
@pytest.mark.parametrize(
    ("selected", "words"),
    [(0.1, "optimistic, 0.1 better than its mean"), (0.25, "optimistic as a rule, though here 0.05 worse than its mean")],
)
def test_better_and_worse_are_the_same_in_either_direction(direction: Direction, selected: float, words: str) -> None:
    judged = judge([contender(0, [0.2, 0.2], selected), contender(1, [], 0.0, failed=True)], direction, 2)
    assert judged is not None
    rows = dict(judgement_rows(judged, 1200))
    assert rows["selected on"].endswith(f", among the best of 1,200 looks at the validation data: {words}")
    assert rows["rivals"] == "no run of another was trained to its end"


def test_equal_runs_do_not_make_an_interval_of_no_width() -> None:
    judged = judge([contender(0, [-0.97, -0.97], -0.98)], MAXIMIZE, 2)
    assert judged is not None
    assert judged.winner.low is not None
    assert judged.winner.low < 0.97 < (judged.winner.high or 0.0)


def test_a_loser_that_had_all_its_runs_was_not_given_up() -> None:
    judged = judge([contender(0, [-0.80, -0.82], -0.83), contender(1, [-0.79, -0.82], -0.82)], MAXIMIZE, 2)
    assert judged is not None
    assert judged.not_told_apart == (1,)
    assert [one.out for one in judged.finalists] == ["", ""]


def test_without_a_complete_fresh_run_nobody_is_judged() -> None:
    assert judge([contender(0, []), contender(1, [0.1], failed=True)], MINIMIZE, 2) is None
    assert judge([], MINIMIZE, 2) is None


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=4), st.lists(st.floats(-5, 5), min_size=1, max_size=4))
def test_turning_the_direction_turns_every_value_and_no_verdict(one: list[float], other: list[float]) -> None:
    field = [contender(0, one), contender(1, other)]
    lower, higher = judge(field, MINIMIZE, 4), judge(field, MAXIMIZE, 4)
    assert lower is not None
    assert higher is not None
    assert (lower.champion, lower.gap, lower.not_told_apart) == (higher.champion, higher.gap, higher.not_told_apart)
    assert lower.winner.mean == -(higher.winner.mean or 0.0)


def test_students_quantiles_and_wilsons_interval_are_scipys() -> None:
    for freedom in (*range(1, 41), 100, 1000):
        assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=2e-3)
    for found, size in [(0, 10), (3, 10), (10, 10), (977, 1000)]:
        expected = stats.binomtest(found, size).proportion_ci(method="wilson")
        assert proportion_interval(found / size, size) == pytest.approx((expected.low, expected.high), abs=2e-5)
    values = [0.5, 1.5, 1.0, 4.0]
    expected = stats.t.interval(0.95, 3, loc=1.75, scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx((1.75, *expected), rel=1e-3)
    assert mean_interval([1.0, 0.0, 1.0, 1.0])[0] == 0.75


def noisy(params: Params, seed: int) -> list[float]:
    """Better towards x = 1, by as much as chance makes of it."""
    draw = random.Random(seed)
    level = float(params["x"]) * 0.1 + draw.gauss(0.5, 0.03)
    return [level - 1 / (epoch + 1) for epoch in range(9)]


def test_finals_cost_at_most_their_share_and_everything_is_in_the_journal() -> None:
    for seed in range(12):
        study = simulate(spec("random", 9, {"trials": 40}, finals={"top": 3, "seeds": 2}), noisy, 3, seed)
        assert study.finals
        assert sum(run.epoch for run in study.finals) <= SHARE * study.epochs
        assert study.chosen is not None
        assert study.ended is not None
        assert study.ended.best == study.chosen.champion
        champion = study.trial(study.chosen.champion)
        assert champion.state is State.COMPLETE
        assert champion.replicates == study.chosen.winner
        assert {run.replicates for run in study.finals} <= set(study.nominated.trials if study.nominated else ())
        assert not {run.seed for run in study.finals} & {trial.seed for trial in study.trials}
        assert all(run.params == study.trials[run.replicates].params for run in study.finals if run.replicates is not None)
        assert len(study.trials) == 40  # those of the finals are none of the search's


@pytest.mark.parametrize("sampler", ["random", "tpe", "ladders", "grid"])
@pytest.mark.parametrize("workers", [1, 4])
def test_finals_are_replayed_from_the_journal(sampler: str, workers: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("study") / "s"
    what = spec(
        sampler, 9, {"trials": 40, "epochs": 150}, finals={"top": 3, "seeds": 2}, **({"space": _gridded()} if sampler == "grid" else {})
    )
    simulate(what, noisy, workers, 5, folder=folder)
    stored = StoredStudy.open(folder)
    found = replay_decisions(rules_of(stored.spec), sampler_of(stored.spec), stored.records)
    assert found.divergence is None
    kinds = [type(record.event) for record in stored.records]
    assert kinds.count(Nominated) == kinds.count(Chosen) == 1
    wrong = [record if not isinstance(record.event, Chosen) else _other(record) for record in stored.records]
    differs = replay_decisions(rules_of(stored.spec), sampler_of(stored.spec), wrong).divergence
    assert differs is not None
    assert "won" in differs.journaled


def _gridded() -> dict[str, object]:
    return {"x": {"type": "float", "low": 0.0, "high": 1.0, "grid": [i / 40 for i in range(40)]}}


def _other(record: Record) -> Record:
    assert isinstance(record.event, Chosen)
    return record._replace(event=replace(record.event, detail={"mean": 0.0}))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.data())
def test_finals_cut_off_anywhere_go_on_as_if_they_had_not_been(seed: int, data: st.DataObject) -> None:
    """The writes of a study, cut behind any one of the finals, and gone on with one worker: as uninterrupted with one worker."""
    what = spec("random", 4, {"trials": 20}, finals={"top": 3, "seeds": 2})
    writes: list[list[Event]] = []
    whole = _run(what, seed, writes)
    first = next(i for i, events in enumerate(writes) if isinstance(events[0], Nominated))
    cut = data.draw(st.integers(first + 1, len(writes) - 1))
    again = list(writes[:cut])
    _go_on(what, seed, again)
    assert [[to_json(event) for event in events] for events in again] == [[to_json(event) for event in events] for events in writes]
    assert whole.chosen is not None


def _run(what, seed: int, writes: list[list[Event]]):  # type: ignore[no-untyped-def]
    study = replay(rules_of(what), sampler_of(what), [], lambda events: writes.append(list(events)))
    while (trial := study.next()) is not None:
        _train(study, trial, seed)
    study.discard("budget")
    study.nominate("budget", {"x": 0.5, "rate": 0.1, "width": 3})
    return _finish(study, seed)


def _go_on(what, seed: int, writes: list[list[Event]]) -> None:  # type: ignore[no-untyped-def]
    so_far = [event for events in writes for event in events]
    study = replay(rules_of(what), sampler_of(what), so_far, lambda events: writes.append(list(events)))
    for run in study.finals:
        if run.state is State.RUNNING:
            _train(study, run, seed)
    if study.ended is None:
        _finish(study, seed)


def _finish(study, seed: int):  # type: ignore[no-untyped-def]
    while (run := study.next()) is not None:
        _train(study, run, seed)
    study.choose()
    study.end("budget")
    return study


def _train(study, trial: Trial, seed: int) -> None:  # type: ignore[no-untyped-def]
    values = noisy(trial.params, trial.seed + seed)
    for epoch in range(trial.epoch + 1, study.rules.max_epochs + 1):
        if trial.state is State.RUNNING:
            study.report(trial.number, [Measurement(epoch, values[epoch - 1], {"value": values[epoch - 1]}, 1.0)])


def test_too_small_a_search_has_no_finals() -> None:
    study = simulate(spec("random", 9, {"trials": 3}, pruner={"name": "none"}, finals={"top": 3, "seeds": 2}), noisy, 1)
    assert study.epochs == 27
    assert study.nominated is None  # 8 epochs are no training of 9
    assert study.ended is not None
    assert study.ended.best == study.best().number  # type: ignore[union-attr]


def test_a_larger_budget_reopens_the_search_and_keeps_the_fresh_runs() -> None:
    from hpo.events import Resumed

    what = spec("random", 9, {"trials": 40}, finals={"top": 2, "seeds": 2})
    events: list[Event] = []
    study = simulate_into(what, events)
    before = [(run.replicates, run.seed) for run in study.finals]
    study.resume(Resumed("host", 1, {}, trials=60))
    assert study.nominated is None
    assert study.chosen is None
    assert study.next() is not None
    assert study.trials[40].number == 40
    assert [(run.replicates, run.seed) for run in study.finals] == before


def simulate_into(what, events: list[Event]):  # type: ignore[no-untyped-def]
    study = replay(rules_of(what), sampler_of(what), [], events.extend)
    while (trial := study.next()) is not None:
        _train(study, trial, 0)
    study.nominate("budget", None)
    return _finish(study, 0)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("finals: off", "found the text 'off'; a mapping or `none` is needed"),
        ("finals: {top: 0}", "finals.top: found 0; at least 1 is needed"),
        ("finals: {seeds: two}", "finals.seeds: found the text 'two'"),
        ("finals: {tops: 3}", "did you mean `top`?"),
        ("finals: {test: 1}", "finals.test: found 1"),
        ("finals: null", "a mapping or `none` is needed"),
    ],
)
def test_a_mistake_in_finals_is_told(section: str, words: str) -> None:
    text = f"""
name: f
trainer: {{name: simulated, settings: {{max_epochs: 9}}}}
objective: {{metric: value, direction: maximize}}
space: {{x: {{type: float, low: 0, high: 1}}}}
budget: {{trials: 3}}
{section}
"""
    with pytest.raises(SpecError, match="finals") as caught:
        parse_spec(text, "f.yaml")
    assert words in str(caught.value)


def test_finals_are_on_by_default_and_a_spec_comes_back_from_its_journal() -> None:
    text = "name: f\ntrainer: {name: simulated}\nobjective: {metric: value, direction: maximize}\n"
    text += "space: {x: {type: float, low: 0, high: 1}}\nbudget: {trials: 3}\n"
    default, without = parse_spec(text, "f"), parse_spec(text + "finals: none\n", "f")
    assert default.finals is not None
    assert (default.finals.top, default.finals.seeds, default.finals.test) == (3, 2, True)
    assert without.finals is None
    from hpo.spec import spec_from_dict

    assert spec_from_dict(default.to_dict()) == default
    assert spec_from_dict(without.to_dict()) == without
    older = {key: value for key, value in default.to_dict().items() if key != "finals"}
    assert spec_from_dict(older).finals is None  # a study of a version that knew none


@pytest.mark.parametrize(
    ("number", "key"), [(0, "0"), (17, "17"), (FINALS_FROM, "final-0"), (FINALS_FROM + 12, "final-12"), (DEFAULTS, "defaults")]
)
def test_how_a_trial_is_called(number: int, key: str) -> None:
    assert key_of(number) == key


def test_a_run_of_the_finals_knows_what_it_repeats() -> None:
    asked = Asked(FINALS_FROM, {"x": 1.0}, 3, replicates=4)
    assert to_json(asked)["replicates"] == 4
