"""A search's trials say what to change next, seldom without reason: each kind of advice found, not found, and how often it is wrong."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, fisher_exact

from hpo.arguments import Argument
from hpo.divergence import _fisher, diverging
from hpo.effects import idle, leaning
from hpo.engine.simulate import simulate
from hpo.events import Created
from hpo.findings import Finding, Kind, findings
from hpo.journal_format import Record
from hpo.levelling import expected_gain, gain, jitter
from hpo.ranking import Compared, compared
from hpo.results import StoredStudy
from hpo.rules import Rules
from hpo.space import Float, Int, Parameter, Params, position
from hpo.spec import Spec
from hpo.trial import Direction, Measurement, State, Trial
from hpo.typical import typical_curve
from hpo.widening import widened
from tests.simulations import simulated, spec

Curve = Callable[[Params, int], Sequence[float]]
UNIT: dict[str, object] = {"type": "float", "low": 0.0, "high": 1.0}
UNPRUNED = {"name": "none"}
AT = datetime(2026, 11, 20, tzinfo=UTC)


def noise(seed: int, sd: float = 0.01) -> float:
    return random.Random(f"noise/{seed}").gauss(0, sd)


def flat(quality: Callable[[Params], float], epochs: int = 8, sd: float = 0.01) -> Curve:
    """Curves that rise to the quality of the parameters, with noise of the seed and a little of each epoch."""

    def curve(params: Params, seed: int) -> list[float]:
        end = quality(params) + noise(seed, sd)
        return [end * (1 - 0.5 / (1 + epoch)) + noise(seed * 100 + epoch, 0.002) for epoch in range(epochs)]

    return curve


def towards(**best: float) -> Callable[[Params], float]:
    """The nearer to `best`, the better."""
    return lambda params: 1 - 3 * sum((float(params[name]) - value) ** 2 for name, value in best.items())


def searched(what: Spec, curve: Curve) -> StoredStudy:
    """The study run to its end, in memory alone."""
    events = [Created("made-up", what.to_dict(), {}), *simulated(what, curve).events]
    return StoredStudy(Path("made-up"), [Record(seq, AT, event) for seq, event in enumerate(events, 1)])


def compared_of(what: Spec, curve: Curve) -> Compared:
    study = simulate(what, curve, 4, what.seed)
    return compared(study.rules, study.trials)


def of(kind: Kind, found: Iterable[Finding]) -> list[str]:
    return [finding.advice for finding in found if finding.kind is kind]


def space(**parameters: Mapping[str, object]) -> dict[str, Any]:
    """Sections of a spec."""
    return {"space": {name: dict(parameter) for name, parameter in parameters.items()}, "max_epochs": 8}


def measured(number: int, values: Sequence[float], state: State = State.PRUNED, **params: float) -> Trial:
    trial = Trial(number, params, number, state)
    trial.measurements = [Measurement(i, value, {}, 1.0) for i, value in enumerate(values, 1)]
    return trial


# the order


def test_no_trial_is_compared_with_another_at_another_epoch() -> None:
    rules = Rules(Direction.MAXIMIZE, 9, 20, grace_epochs=1, reduction_factor=3)
    far = [measured(i, [0.1 * i] * 3 + [0.9 - 0.1 * i] * 6, State.COMPLETE) for i in range(4)]  # their order turns after epoch 3
    near = [measured(4 + i, [0.9, 0.8, 0.05 * i]) for i in range(8)]
    one_epoch = [measured(12 + i, [1.0]) for i in range(4)]
    found = compared(rules, [*one_epoch, *near, *far])
    assert (found.best, found.epoch) == (5, 3)  # ten or more came to epoch 3, four to epoch 9
    assert [t.number for t in found.trials[-4:]] == [12, 13, 14, 15]  # 1.0 after one epoch is better than nobody
    assert found.losses[:8] == (-0.9,) * 8
    assert {t.number for t in found.top} <= {t.number for t in near}


def test_trials_of_the_finals_failed_ones_and_those_without_a_value_are_left_out() -> None:
    again = replace(measured(3, [0.9]), replicates=0)
    found = compared(Rules(Direction.MINIMIZE, 1, 9), [measured(0, [0.2]), measured(1, []), measured(2, [0.1], State.FAILED), again])
    assert [t.number for t in found.trials] == [0]


# edges


@pytest.mark.parametrize(
    ("parameter", "best", "change"),
    [
        (UNIT, 1.3, "space.a.high: 1 -> 1.2, if simulated takes that"),
        ({"type": "float", "low": 0.5, "high": 1.5}, 0.2, "space.a.low: 0.5 -> 0.25, if simulated takes that"),
        ({"type": "int", "low": 0, "high": 20}, 26, "space.a.high: 20 -> 25, if simulated takes that"),
        (UNIT, -0.3, None),  # nothing below zero is asked of an unknown trainer
        (UNIT, 0.5, None),
        ({"type": "categorical", "choices": [0, 1, 2, 3]}, 9, None),
        ({"type": "float", "low": 1.0, "high": 1.0}, 2, None),
    ],
)
@pytest.mark.parametrize("direction", list(Direction))
def test_an_optimum_at_an_edge(
    parameter: Mapping[str, object], best: float, change: str | None, direction: Direction, tmp_path: Path
) -> None:
    """Falling metrics are told the same as rising ones."""
    sections = space(a=parameter, b=UNIT, c=UNIT)
    what = spec(budget={"trials": 120}, pruner=UNPRUNED, objective={"metric": "value", "direction": direction.value}, **sections)
    width = 20 if parameter["type"] == "int" else 3 if parameter["type"] == "categorical" else 1
    rising = flat(lambda params: 1 - ((float(params["a"]) - best) / width) ** 2 - 0.2 * (float(params["b"]) - 0.5) ** 2)
    curve = rising if direction is Direction.MAXIMIZE else lambda params, seed: [-value for value in rising(params, seed)]
    found = of(Kind.EDGE, findings(searched(what, curve)))
    assert len(found) == (change is not None)
    assert all(advice.endswith(f": {change}") for advice in found)


def test_results_that_improve_towards_an_edge_at_which_the_best_are_not() -> None:
    what = spec(budget={"trials": 120}, pruner=UNPRUNED, **space(a=UNIT, b=UNIT))
    two_hills = flat(lambda p: max(1 - 6 * (float(p["a"]) - 0.2) ** 2, 0.8 - 3 * (1 - float(p["a"])) ** 2), sd=0.002)
    assert of(Kind.EDGE, findings(searched(what, two_hills))) == []


def test_a_grid_is_told_which_point_to_add() -> None:
    grids = [{**UNIT, "grid": [i / 4 for i in range(5)]}, {**UNIT, "grid": [0.2, 0.4, 0.6, 0.8]}, {**UNIT, "grid": [0.3, 0.5, 0.7]}]
    what = spec("grid", budget={"trials": 60}, pruner=UNPRUNED, **space(a=grids[0], b=grids[1], c=grids[2]))
    (advice,) = of(Kind.EDGE, findings(searched(what, flat(towards(a=0.5, b=1.2)))))
    assert advice.endswith("space.b.grid: add 0.95, if simulated takes that")


@pytest.mark.parametrize(
    ("parameter", "upper", "argument", "bound"),
    [
        (Float(0.0, 0.8), False, Argument("float", low=0, high=0.99), None),
        (Float(0.0, 0.8), True, Argument("float", low=0, high=0.99), 0.99),
        (Float(0.0, 0.99), True, Argument("float", low=0, high=0.99), None),
        (Float(1e-4, 1e-1, log=True), True, Argument("float", above=0, high=10), 0.6),
        (Float(1e-4, 1e-1, log=True), False, Argument("float", above=0, high=10), 2e-5),
        (Float(0.1, 0.5), False, Argument("float", above=0), None),
        (Int(1, 8), False, Argument("int", low=1), None),
        (Int(2, 8), False, Argument("int", low=1), 1),
        (Int(16, 256, log=True), True, Argument("int", low=1, high=300), 300),
        (Int(0, 8, step=4), True, None, 12),
        (Float(0.0, 1.0, step=0.25), True, None, 1.25),
        (Float(0.5, 1.0), False, None, 0.38),
    ],
)
def test_a_range_is_never_widened_beyond_what_is_legal(parameter: Parameter, upper: bool, argument: Argument | None, bound: float) -> None:
    found = widened(parameter, upper, argument)
    assert found == (bound if bound is None else pytest.approx(bound))
    assert found is None or argument is None or argument.takes(found)


# how often it is wrong


def made_up(sampler: str, seed: int, mattering: int, idle_ones: int) -> tuple[Spec, Compared]:
    """A study in which nothing but `mattering` parameters, with optima inside, has any effect."""
    names = [*(f"e{i}" for i in range(mattering)), *(f"n{i}" for i in range(idle_ones))]
    what = spec(sampler, budget={"trials": 60}, seed=seed, **{**space(**dict.fromkeys(names, UNIT)), "max_epochs": 27})
    effects = {name: parameter for name, parameter in what.space.items() if name[0] == "e"}
    typical = typical_curve(effects, 27, seed) if effects else lambda _params, seed: [1 + noise(seed + i, 0.005) for i in range(27)]
    return what, compared_of(what, lambda params, seed: [value + noise(seed) for value in typical(params, seed)])


def at_most(share: float, of_all: int) -> int:
    """As many as chance allows, but for once in a thousand times, where `share` is the truth."""
    return int(binom.ppf(0.999, of_all, share))


@pytest.mark.parametrize(("sampler", "studies"), [("random", 40), ("ladders", 10), ("tpe", 3)])
def test_edges_without_reason_are_rare(sampler: str, studies: int) -> None:
    """In less than 5 % of the studies, all parameters and both edges together; `test_findings_slow.py` makes more of them."""
    assert_edges_are_rare(sampler, studies)


def assert_edges_are_rare(sampler: str, studies: int) -> None:
    made = [made_up(sampler, seed, mattering=0, idle_ones=4) for seed in range(studies)]
    wrong = sum(bool(leaning(what.space, sampler, found)) for what, found in made)
    assert wrong <= at_most(0.05, studies)
    if sampler == "ladders":
        assert sum(crowds(what, found) for what, found in made) > max(1, wrong)  # this alone would not do


def crowds(what: Spec, found: Compared) -> bool:
    """Whether more of the best trials lie in an outer tenth than a blind draw puts there: what an adaptive sampler brings about itself."""
    at = [[position(p, t.params[name]) for t in found.top] for name, p in what.space.items()]
    inside = [sum(x >= 0.9 for x in xs) for xs in at] + [sum(x <= 0.1 for x in xs) for xs in at]
    return min(float(binom.sf(k - 1, found.best, 0.1)) for k in inside) < 0.05 / len(inside)


def test_what_matters_is_seldom_called_idle_and_what_does_not_is_often() -> None:
    made = [made_up("random", seed, mattering=1, idle_ones=2) for seed in range(40)]
    named = [{one.name for one in idle(what.space, "random", found)} for what, found in made]
    assert sum("e0" in names for names in named) <= at_most(0.05, 40)
    assert sum(len(names) for names in named) > 0.35 * 80  # 60 % and more were seen


def test_an_idle_parameter_may_be_fixed() -> None:
    kinds = {"type": "categorical", "choices": ["p", "q", "r"]}
    what = spec(budget={"trials": 120}, pruner=UNPRUNED, **space(a=UNIT, b=UNIT, kind=kinds), seed=2)
    study = searched(what, flat(lambda params: 1 - (float(params["a"]) - 0.4) ** 2 - 0.1 * (params["kind"] == "q")))
    (advice,) = of(Kind.IRRELEVANT, findings(study))
    assert study.best is not None
    assert advice.endswith(f"drop space.b and set trainer.settings.b: {study.best.params['b']:.4g}")


def test_what_spoils_a_part_of_the_range_is_not_idle() -> None:
    """The best are spread evenly enough, since `b` decides among them."""
    what = spec(budget={"trials": 100}, pruner=UNPRUNED, **space(a=UNIT, b=UNIT))
    found = compared_of(what, flat(lambda p: float(p["b"]) - 9 * max(0.0, 0.2 - float(p["a"]))))
    assert not idle(what.space, "random", found)


def test_a_short_search_calls_nothing_idle() -> None:
    what, found = made_up("random", 0, mattering=0, idle_ones=3)
    assert idle(what.space, "random", found)
    assert not idle(what.space, "random", Compared(found.trials[:39], found.losses[:39], 5, found.epoch))


@pytest.mark.parametrize(("trials", "claimed"), [(19, 0), (60, 1)])
def test_a_short_search_has_no_edges(trials: int, claimed: int) -> None:
    grid = {**UNIT, "grid": [0.0, 0.5, 1.0]}
    what = spec("grid", budget={"trials": 81}, pruner=UNPRUNED, **space(a=grid, b=grid, c=grid, d=grid))
    ordered = [t for t in compared_of(what, flat(towards(a=2.0, b=0.5))).trials if (t.number * 5) % 81 < trials]
    assert len(ordered) == trials
    assert len(leaning(what.space, "grid", Compared(tuple(ordered), (0.0,) * trials, max(5, trials // 10), 8))) == claimed


# divergence


@pytest.mark.parametrize(
    ("diverges", "change"),
    [
        (lambda p: p["rate"] > 0.05, r"space.rate.high: 1 -> 0.0"),
        (lambda p: p["rate"] < 1e-3, r"space.rate.low: 0.0001 -> 0.00"),
        (lambda p: p["x"] > 0.8, r"space.x.high: 1 -> 0."),
        (lambda p: hash(p["x"]) % 7 == 0, None),
        (lambda _: False, None),
        (lambda _: True, None),
        (lambda p: 0.05 < p["rate"] < 0.1, None),  # the best ones lie beyond
    ],
)
def test_trials_that_diverge_beyond_a_value(diverges: Callable[[Params], bool], change: str | None) -> None:
    beyond = diverges({"rate": 0.07, "x": 0.0}) and not diverges({"rate": 0.5, "x": 0.0})
    sound = flat(lambda p: float(p["rate"]) if beyond else 1 - (math.log10(float(p["rate"])) + 2) ** 2 / 20)
    what = spec(budget={"trials": 100}, pruner=UNPRUNED, max_epochs=8)
    study = searched(what, lambda p, seed: [math.nan] * 8 if diverges(p) else sound(p, seed))
    found = [finding for finding in findings(study) if finding.kind is Kind.DIVERGES]
    assert len(found) == (change is not None)
    for finding in found:
        assert f": {change}" in finding.advice
        assert "p < 0.001" in finding.evidence


@pytest.mark.parametrize(("best", "found"), [(2, 1), (38, 0)])
def test_no_bound_cuts_off_the_best(best: int, found: int) -> None:
    trials = [measured(i, [0.5], a=i / 40) for i in range(40)]
    broken = [t.number for t in trials if t.number > 28 and t.number != best]
    assert len(diverging({"a": Float(0.0, 1.0)}, trials, broken, [trials[best]])) == found


def test_a_parameter_that_only_went_along_is_not_blamed() -> None:
    """Whoever lowers the rate widens the layers, too, in this study's first points."""
    first = [{"rate": 10 ** (-4 * i / 59), "width": 1 + i, "x": (i * 37 % 60) / 60} for i in range(60)]
    what = spec(budget={"trials": 60}, pruner=UNPRUNED, max_epochs=8, start=first)
    sound = flat(towards(x=0.5))
    found = of(Kind.DIVERGES, findings(searched(what, lambda p, seed: [math.nan] * 8 if float(p["rate"]) > 0.1 else sound(p, seed))))
    assert len(found) == 1


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 12), st.integers(0, 12))
def test_the_exact_test_is_fishers(beyond: int, rest: int, diverged: int, others: int) -> None:
    diverged, others = min(diverged, beyond), min(others, rest)
    table = [[diverged, beyond - diverged], [others, rest - others]]
    expected = fisher_exact(table, alternative="greater").pvalue
    assert _fisher(diverged, beyond, diverged + others, beyond + rest) == pytest.approx(expected)


# levelling off


def test_a_search_whose_best_are_spread_has_not_levelled_off() -> None:
    steep = searched(spec(budget={"trials": 60}, **space(a=UNIT, b=UNIT, c=UNIT)), flat(towards(a=0.4, b=0.6, c=0.5), sd=0.002))
    level = searched(spec(budget={"trials": 60}, **space(a=UNIT, b=UNIT, c=UNIT)), flat(lambda _: 1.0, sd=0.002))
    (advice,) = of(Kind.NOT_LEVELLED, findings(steep))
    assert advice.endswith(("budget.trials: 60 -> 90", "budget.trials: 60 -> 120"))
    assert not of(Kind.NOT_LEVELLED, findings(level))


def test_a_budget_of_epochs_grows_in_epochs() -> None:
    what = spec(budget={"trials": 900, "epochs": 200}, seed=4, **space(a=UNIT, b=UNIT, c=UNIT))
    (advice,) = of(Kind.NOT_LEVELLED, findings(searched(what, flat(towards(a=0.4, b=0.6, c=0.5), sd=0.002))))
    assert advice.endswith(("budget.epochs: 200 -> 300", "budget.epochs: 200 -> 400"))


@pytest.mark.parametrize(("sd", "found"), [(0.001, 1), (1.0, 0)])
def test_a_gain_is_measured_against_the_noise_that_the_finals_show(sd: float, found: int, monkeypatch: pytest.MonkeyPatch) -> None:
    study = searched(spec(budget={"trials": 60}, **space(a=UNIT, b=UNIT, c=UNIT)), flat(towards(a=0.4, b=0.6, c=0.5), sd=0.002))
    monkeypatch.setattr(StoredStudy, "judged", SimpleNamespace(sd=sd))
    told = [finding for finding in findings(study) if finding.kind is Kind.NOT_LEVELLED]
    assert len(told) == found
    assert all(f"differ by {sd} (sd, from the finals)" in finding.evidence for finding in told)


@pytest.mark.parametrize(
    ("ahead", "claimed"),
    [(0.0, True), (3.0, False)],  # one that is so far ahead is hardly beaten
)
def test_a_lucky_best_is_not_expected_to_be_beaten(ahead: float, claimed: bool) -> None:
    losses = [-ahead, *(0.01 * i for i in range(1, 60))]
    assert (gain(losses, 0.001) is not None) == claimed
    assert gain(losses, 1.0) is None
    assert expected_gain(losses[:29], 10) is None


@given(st.lists(st.floats(0, 1), min_size=30, max_size=60), st.floats(0.1, 100), st.integers(1, 50))
def test_a_gain_is_in_the_units_of_the_values_and_grows_with_the_trials(values: list[float], factor: float, more: int) -> None:
    losses = sorted(values)
    once, scaled, longer = expected_gain(losses, more), expected_gain([factor * v for v in losses], more), expected_gain(losses, more + 1)
    assert once is not None
    assert longer is not None
    assert scaled == pytest.approx(factor * once, abs=1e-9 * factor)
    assert 0 <= once <= longer + 1e-12


def test_jitter_is_what_is_left_of_smooth_curves() -> None:
    draw = random.Random(1)
    assert jitter([[0.1 * i for i in range(20)]]) == pytest.approx(0)
    assert jitter([[0.1 * i + draw.gauss(0, 0.3) for i in range(4000)]]) == pytest.approx(0.3, rel=0.1)
    assert jitter([[1.0, 2.0]]) is None


# pruning


@pytest.mark.parametrize(("trials", "audit", "found"), [(80, 0.5, 1), (8, 0.5, 0), (80, 0.0, 0)])
def test_false_stops_are_told_where_they_are_known(trials: int, audit: float, found: int) -> None:
    """The order after one epoch is the reverse of that at the end."""
    what = spec(budget={"trials": trials}, pruner={"name": "asha", "rule": "stop", "audit": audit}, max_epochs=9)
    study = searched(what, lambda p, _: [1 - float(p["x"]), *(float(p["x"]) for _ in range(8))])
    told = [finding for finding in findings(study) if finding.kind is Kind.FALSE_STOPS]
    assert len(told) == found
    assert all("95 % interval" in finding.evidence for finding in told)


# nothing to say


@pytest.mark.parametrize("trials", [1, 2, 5])
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("sampler", ["random", "ladders", "sweep"])
def test_too_little_says_nothing(trials: int, fails: bool, sampler: str) -> None:
    choices = {"type": "categorical", "choices": ["p"]}
    numbers = {"type": "float", "low": 1.0, "high": 1.0, "grid": [1.0]}
    more: dict[str, Any] = {"start": [{"a": 1.0, "kind": "p", "n": 2}]} if sampler == "sweep" else {}
    what = spec(sampler, budget={"trials": trials}, **space(a=numbers, kind=choices, n={"type": "int", "low": 1, "high": 9}), **more)
    study = searched(what, lambda _, seed: [math.nan] if fails else [noise(seed)])
    assert findings(study) == []


def test_all_that_failed_or_is_categorical_or_not_begun_is_no_error() -> None:
    kinds = {"type": "categorical", "choices": ["p", "q"]}
    what = spec(budget={"trials": 60}, **space(kind=kinds))
    assert findings(searched(what, lambda _params, _seed: [math.nan])) == []
    study = searched(what, flat(lambda p: float(p["kind"] == "p")))
    told = findings(study)
    assert not [finding for finding in told if finding.kind in (Kind.EDGE, Kind.DIVERGES, Kind.IRRELEVANT)]
    assert findings(StoredStudy(study.folder, study.records[:1])) == []
