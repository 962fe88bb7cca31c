"""What a launch would do, computed and simulated, and the made-up curves that the latter runs on."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from click.testing import CliRunner

from hpo import show_plan
from hpo.capacity import Capacity
from hpo.cli import cli
from hpo.engine.simulate import simulate
from hpo.forecast import MOST_EPOCHS, forecast
from hpo.plan import expected_spending, plan
from hpo.problem import SpecError
from hpo.rules import Rules
from hpo.sampling.simple import RandomSampler
from hpo.space import Categorical, Float, Int, Params, SearchSpace
from hpo.spec import load_spec
from hpo.specified import rules_of
from hpo.trial import Direction
from hpo.typical import NOISE, best_possible, train, typical_curve
from tests.conftest import ROOT
from tests.simulations import simulated, spec

FASHION = ROOT / "search_spaces" / "fashion.yaml"
HERE = [Capacity(2, 0)]
SPACE: SearchSpace = {"x": Float(0.0, 1.0), "rate": Float(1e-4, 1.0, log=True), "kind": Categorical(("a", "b", "c")), "n": Int(1, 9)}


def test_a_plan_counts_trials_rungs_and_epochs() -> None:
    found = plan(
        load_spec(
            FASHION, overrides=["sampler.name=random", "pruner.reduction_factor=3", "pruner.rule=stop", "budget.epochs=null"], trials=40
        ),
        HERE,
    )
    assert (found.trials, found.rungs, found.epochs_worst, found.placement.slots) == (40, (1, 3, 9), 1080, 2)
    assert 40 < found.epochs_expected < 200
    grid = plan(load_spec(FASHION, overrides=["sampler.name=grid", "pruner.rule=stop"], trials=40), HERE)
    assert grid.trials == grid.grid_points == 36


@pytest.mark.parametrize(
    ("trials", "max_epochs", "changed", "epochs", "complete"),
    [
        (10, 27, {"reduction_factor": None}, 270, 10),  # without rungs every trial trains to the end
        (1, 27, {}, 27, 1),  # nobody to lose against
        (2, 2, {}, 4, 2),  # 2 epochs, then 1 + 1/2 trials go on: 3.5
        (64, 64, {"promotes": True, "reduction_factor": 4}, 64 + 16 * 3 + 4 * 12 + 48, 1),  # floor(n / 4) at each rung; 1 finishes
        (7, 9, {"promotes": True, "reduction_factor": 4}, 7 + 3 + 5, 1),  # the last rung is 4; one is trained to its end in any case
        (100, 2, {"promotes": True, "reduction_factor": 4, "grace_epochs": 1}, 125, 25),
        (9, 3, {"audit": 0.999, "reduction_factor": 3}, 27, 9),  # all that would stop are audited
        (3, 27, {"promotes": True, "reduction_factor": 4}, 3 + 26, 1),  # too few for a place: one goes on from the first rung
    ],
)
def test_expected_spending(trials: int, max_epochs: int, changed: dict[str, Any], epochs: int, complete: int) -> None:
    rules = Rules(Direction.MAXIMIZE, max_epochs, trials, **changed)
    found = expected_spending(rules)
    assert (found.trials, found.epochs, found.complete) == (trials, epochs, complete)


def test_very_many_trials_are_not_counted_one_by_one() -> None:
    exact, many = (Rules(Direction.MAXIMIZE, 27, trials, brackets=2) for trials in (9_000, 9_000_000_000))
    few, huge = expected_spending(exact), expected_spending(many)
    assert huge.epochs / 9_000_000_000 == pytest.approx(few.epochs / 9_000, rel=0.02)
    assert huge.complete / 9_000_000_000 == pytest.approx(few.complete / 9_000, rel=0.02)


def test_a_budget_of_less_than_a_training_finishes_none() -> None:
    found = expected_spending(Rules(Direction.MAXIMIZE, 27, 60, promotes=True, reduction_factor=4, epoch_budget=26))
    assert (found.epochs, found.complete) == (26, 0)


@pytest.mark.parametrize(("trials", "shown"), [(9, "9 (of 13 points)"), (60, "13 (all points of the sampler)")])
def test_a_sweep_says_how_many_of_its_points_are_tried(trials: int, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    space = {"x": {"type": "float", "low": 0.0, "high": 1.0}, "n": {"type": "int", "low": 1, "high": 9}}
    what = spec("sweep", budget={"trials": trials}, space=space)
    show_plan.plan(plan(what, HERE))
    assert shown in capsys.readouterr().out
    assert forecast(what, 2).notes == ()


def blind(params: Params, seed: int) -> list[float]:
    draw = random.Random(seed)
    return [draw.random() for _ in range(27)]


@pytest.mark.parametrize("rule", ["stop", "promote"])
@pytest.mark.parametrize("audit", [0.0, 0.1])
@pytest.mark.parametrize("brackets", [1, 2])
def test_what_is_expected_is_what_blind_rungs_spend(rule: str, audit: float, brackets: int) -> None:
    pruner = {"name": "asha", "rule": rule, "audit": audit, "brackets": brackets, "reduction_factor": 3}
    what = spec(budget={"trials": 90}, pruner=pruner)
    spent = [simulated(replace(what, seed=seed), blind).study.epochs for seed in range(4)]
    assert expected_spending(rules_of(what)).epochs == pytest.approx(fmean(spent), rel=0.2)


def test_where_epochs_run_out_the_plan_says_for_how_many_trials_they_suffice() -> None:
    rules = Rules(Direction.MAXIMIZE, 27, 1000, epoch_budget=300)
    found = expected_spending(rules)
    assert found.epochs == 300
    assert expected_spending(replace(rules, max_trials=found.trials - 1, epoch_budget=None)).epochs < 300
    assert expected_spending(replace(rules, max_trials=found.trials, epoch_budget=None)).epochs >= 300
    planned = plan(spec(budget={"trials": 1000, "epochs": 300}), HERE)
    assert (planned.epochs_worst, planned.epoch_limit) == (300, 300)


def test_a_plan_is_shown_with_its_rule_brackets_audit_and_limit(capsys: pytest.CaptureFixture[str]) -> None:
    pruner = {"name": "asha", "rule": "promote", "audit": 0.1, "brackets": 2}
    found = plan(spec("ladders", budget={"trials": 500, "epochs": 200}, pruner=pruner), HERE)
    show_plan.plan(found)
    shown = " ".join(capsys.readouterr().out.split())
    assert f"about {found.expected.trials} of 500, until 200 epochs are spent" in shown
    assert "after epochs 1, 4: the best 1/4 go on, the others wait" in shown
    assert f"{found.brackets[0]} trials skip none, {found.brackets[1]} trials skip 1 of the lowest rungs" in shown
    assert "10% of those outside the best train on" in shown
    assert sum(found.brackets) == 500


def test_a_forecast_is_the_same_every_time_and_within_the_budget(capsys: pytest.CaptureFixture[str]) -> None:
    what = spec(budget={"trials": 30, "epochs": 150}, objective={"metric": "loss", "direction": "minimize"})
    found = forecast(what, 2)
    assert found == forecast(what, 2)
    assert found.search.epochs <= 152  # the slots' last epochs
    assert found.search.started <= 30
    assert found.search.reached[1] >= found.search.reached[3] >= found.search.complete
    assert found.search.epochs / 2 <= found.search.time <= found.search.epochs
    assert 0.5 < found.search.best < found.possible + 4 * NOISE < 1
    assert found.random.epochs == pytest.approx(found.search.epochs, abs=2)
    assert found.notes == ()
    show_plan.forecast(found)
    assert "the curves are made up" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("sampler", "budget", "note"),
    [
        ("gp", {"trials": 10}, "sampler tpe in place of gp, which takes long for each suggestion"),
        ("random", {"trials": 10, "time": "10m"}, "no limit of time: how long an epoch takes is not known before"),
        ("random", {"trials": 100_000}, "of 100000 trials"),
    ],
)
def test_what_is_simulated_otherwise_is_said(sampler: str, budget: dict[str, object], note: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.forecast.SECONDS", 0.5)
    found = forecast(spec(sampler, 9, budget), 4)
    assert any(note in said for said in found.notes)
    assert found.search.epochs <= MOST_EPOCHS


def test_a_stopper_without_a_curve_is_left_out_of_a_forecast_and_refused_by_a_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.forecast.SECONDS", 0.2)
    watching = spec("random", 9, {"trials": 10}, stopper={"name": "gl"})
    assert "no stopper gl: how val_loss goes is not known before" in forecast(watching, 4).notes
    with pytest.raises(ValueError, match="stopper gl: it watches val_loss; of a simulated trial only value is known"):
        simulate(watching, typical_curve(watching.space, 9, 0))
    with pytest.raises(ValueError, match="seed: found -1; at least 0 is needed"):
        simulate(spec("random", 9, {"trials": 10}), typical_curve(watching.space, 9, 0), seed=-1)


def test_typical_curves_agree_with_their_ends_as_real_ones_do() -> None:
    """LCBench: .7, .8 and .9 after 1, 4 and 9 epochs of 51, on the mean of its tasks."""
    from scipy.stats import spearmanr

    space = {f"x{i}": Float(0.0, 1.0) for i in range(4)}
    found: dict[int, list[float]] = {1: [], 4: [], 9: []}
    for task in range(5):
        curve, sampler = typical_curve(space, 51, task), RandomSampler(space, task)
        curves = [curve(sampler.suggest(i, []), i) for i in range(200)]
        for epoch, values in found.items():
            values.append(spearmanr([c[epoch - 1] for c in curves], [max(c) for c in curves]).statistic)
    assert [fmean(values) for values in found.values()] == pytest.approx([0.75, 0.83, 0.92], abs=0.08)


def test_no_typical_curve_exceeds_the_best_possible_but_by_noise() -> None:
    for task in range(5):
        curve, sampler = typical_curve(SPACE, 27, task), RandomSampler(SPACE, task)
        best = max(max(curve(sampler.suggest(i, []), i)) for i in range(200))
        assert best < best_possible(SPACE, task) + 5 * NOISE
        assert best > best_possible(SPACE, task) - 0.25


class Handle:
    """A trial that goes on from `state`."""

    number, device, max_epochs, folder = 0, "cpu", 6, Path()

    def __init__(self, seed: int, state: dict[str, Any] | None = None) -> None:
        self.seed, self.state, self.saved = seed, state, dict[str, Any]()

    def save(self, **state: Any) -> None:
        self.saved = state

    def restored(self) -> dict[str, Any] | None:
        return self.state


def trained(seed: int, state: dict[str, Any] | None = None, **params: Any) -> Iterator[tuple[dict[str, float], dict[str, Any]]]:
    trial = Handle(seed, state)
    for metrics in train(trial, **params):
        yield metrics, trial.saved


def test_the_trainer_simulated_goes_on_where_it_was_and_depends_on_parameters_and_seed_alone() -> None:
    params = {"rate": 0.01, "width": 64, "kind": "relu", "flag": True, "nothing": 0}
    whole = list(trained(1, **params))
    assert [state["epoch"] for _, state in whole] == [1, 2, 3, 4, 5, 6]
    assert list(trained(1, whole[2][1], **params)) == whole[3:]
    assert list(trained(2, **params)) != whole
    assert list(trained(1, **params | {"rate": 0.5})) != whole
    for metrics, _ in whole:
        assert metrics["value"] == metrics["accuracy"] == metrics["val_accuracy"]
        assert metrics["loss"] == metrics["val_loss"] == metrics["error"] == pytest.approx(1 - metrics["value"])
        assert all(math.isfinite(value) for value in metrics.values())


SIMULATED = """
name: tried
trainer: {name: simulated, settings: {max_epochs: 9}}
objective: {metric: val_loss, direction: minimize}
space: {rate: {type: float, low: 1.0e-4, high: 0.1, log: true}, kind: {type: categorical, choices: [a, b]}}
sampler: {name: random}
budget: {trials: 20}
"""


def test_the_command_line_plans_and_simulates_a_budget_of_epochs(tmp_path: Path) -> None:
    file = tmp_path / "tried.yaml"
    file.write_text(SIMULATED)
    words = ["plan", str(file), "--epochs", "40", "--simulate"]
    plain = json.loads(CliRunner().invoke(cli, [*words, "--json"]).output)
    assert (plain["epoch_limit"], plain["epochs_worst"]) == (40, 40)
    assert plain["forecast"]["search"]["epochs"] <= 40 + plain["placement"]["slots"]
    shown = CliRunner().invoke(cli, words).output
    assert "at most 40" in shown
    assert "5 searches on made-up curves" in shown
    assert "forecast" not in json.loads(CliRunner().invoke(cli, [*words[:-1], "--json"]).output)
    valid = CliRunner().invoke(cli, ["validate", str(file), "--epochs", "40", "--json"])
    assert json.loads(valid.output)["spec"]["budget"]["epochs"] == 40
    with pytest.raises(SpecError, match=r"--epochs 0: budget.epochs: found 0; at least 1 is needed"):
        load_spec(file, epochs=0)


OWN = """
name: own
trainer: {settings: {max_epochs: 9}}
objective: {metric: val_accuracy, direction: maximize}
space: {rate: {type: float, low: 1.0e-4, high: 0.1, log: true}, width: {type: int, low: 1, high: 9}}
start: [defaults, {rate: 0.05}]
budget: {trials: 8}
"""


def test_first_points_take_what_they_leave_open_from_a_trainer_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_trainer_with_defaults.py").write_text("def train(trial, *, rate: float = 0.01, width: int = 3):\n    yield {}\n")
    file = tmp_path / "own.yaml"
    file.write_text(OWN)
    words = ["plan", str(file), "--trainer", "a_trainer_with_defaults:train", "--simulate"]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    with pytest.raises(ValueError, match=r"start\[0\]: has no rate, width, and the trainer's defaults are not known here"):
        simulate(load_spec(file, trainer_override="a_trainer_with_defaults:train"), blind)
