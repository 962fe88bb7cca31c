"""A contract for every sampler, and the truth that Optuna's are told."""

from __future__ import annotations

import math

import pytest
from optuna.trial import TrialState

from hpo.sampling import make_sampler
from hpo.sampling.with_optuna import OptunaSampler
from hpo.space import Categorical, Float, Int, SearchSpace
from hpo.study import Rules, Study
from hpo.trial import Decision, Direction, Measurement

SPACE: SearchSpace = {
    "learning_rate": Float(1e-4, 1e-1, log=True, grid=(1e-3, 1e-2)),
    "width": Int(32, 1024, log=True, grid=(32, 64)),
    "dropout": Float(0.0, 0.8, step=0.2, grid=(0.0,)),
    "layers": Int(1, 4),
    "optimizer": Categorical(("adam", "sgd")),
}
NAMES = ["grid", "random", "qmc", "tpe", "gp", "cmaes"]


def value(params: dict[str, object], epoch: int) -> float:
    return -abs(math.log10(params["learning_rate"]) + 2.5) - 1 / epoch - 0.1 * params["dropout"]


def search(study: Study) -> Study:
    while (trial := study.ask()) is not None:
        for epoch in range(1, study.rules.max_epochs + 1):
            if study.report(trial.number, [Measurement(epoch, value(trial.params, epoch), {}, 0.0)]) is Decision.STOP:
                break
    return study


def new_study(name: str, trials: int = 24, seed: int = 0) -> Study:
    rules = Rules(Direction.MAXIMIZE, max_epochs=9, max_trials=trials, seed=seed)
    return Study(rules, make_sampler(name, SPACE, Direction.MAXIMIZE, seed))


@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_gives_legal_points_and_the_same_ones_again(name: str) -> None:
    first, second = search(new_study(name)), search(new_study(name))
    assert [t.params for t in first.trials] == [t.params for t in second.trials]
    assert len(first.trials) == 24
    for trial in first.trials:
        assert trial.params.keys() == SPACE.keys()
        assert 1e-4 <= trial.params["learning_rate"] <= 1e-1
        assert isinstance(trial.params["width"], int)
        assert 32 <= trial.params["width"] <= 1024
        assert trial.params["dropout"] in (0.0, 0.2, 0.4, pytest.approx(0.6), 0.8)
        assert trial.params["layers"] in (1, 2, 3, 4)
        assert trial.params["optimizer"] in ("adam", "sgd")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "grid"])
def test_another_seed_gives_other_points(name: str) -> None:
    first, other = search(new_study(name, 8)), search(new_study(name, 8, seed=1))
    assert [t.params for t in first.trials] != [t.params for t in other.trials]


@pytest.mark.parametrize("name", NAMES)
def test_asked_twice_a_sampler_answers_the_same(name: str) -> None:
    sampler = make_sampler(name, SPACE, Direction.MAXIMIZE, 3)
    assert sampler.suggest(0, []) == sampler.suggest(0, [])


@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_a_sampler_that_learned_finds_better_points_than_random(name: str) -> None:
    learned, blind = search(new_study(name, 40)), search(new_study("random", 40))

    def late(study: Study) -> float:
        return sum(value(t.params, 9) for t in study.trials[20:]) / 20

    assert late(learned) > late(blind)


def test_the_grid_is_visited_once_and_then_exhausted() -> None:
    study = search(new_study("grid", 100))
    points = [tuple(t.params.values()) for t in study.trials]
    assert len(points) == len(set(points)) == 2 * 2 * 1 * 4 * 2


def test_optuna_is_told_the_truth() -> None:
    sampler = OptunaSampler("tpe", SPACE, Direction.MAXIMIZE, 0)
    study = Study(Rules(Direction.MAXIMIZE, 3, 10), sampler)
    for values in ((0.9, 0.7, 0.8), (0.5,), (0.95,)):  # complete; pruned at the first rung; still running
        trial = study.ask()
        study.report(trial.number, [Measurement(e, v, {}, 0.0) for e, v in enumerate(values, start=1)])
    study.fail(study.ask().number, "metric", "val was nan")
    study.fail(study.ask().number, "error", "boom")
    told = sampler.history(study.trials)
    assert [t.state for t in told] == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.FAIL, TrialState.FAIL]
    assert [t.intermediate_values for t in told] == [{1: 0.9, 2: 0.7, 3: 0.8}, {1: 0.5}, {1: 0.95}, {}, {}]
    assert told[0].value == 0.9  # of its best epoch
    assert [dict(t.params) for t in told] == [dict(t.params) for t in study.trials]


def test_a_history_from_a_journal_gives_the_suggestion_that_the_live_one_gives() -> None:
    live = search(new_study("tpe", 20))
    live.rules = Rules(Direction.MAXIMIZE, 9, 21)
    fresh = make_sampler("tpe", SPACE, Direction.MAXIMIZE, 0)
    assert fresh.suggest(20, live.trials) == live.ask().params
