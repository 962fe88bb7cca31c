"""The ladders sampler: legal points from any history, the same ones from a fresh object, nothing learned from nonsense."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.rules import Rules
from hpo.sampling.cube import Cube
from hpo.sampling.gp import NotPositive
from hpo.sampling.ladder_choice import Ladders
from hpo.sampling.ladder_history import Entry, History, comparable, grain, observations, standardised, target_rung
from hpo.sampling.ladder_view import misfits
from hpo.sampling.ladders import LaddersSampler
from hpo.sampling.optuna_ladders import MultiFidelitySampler
from hpo.space import Categorical, Float, Int, Parameter, Params, SearchSpace, Value, at, point, position
from hpo.trial import Direction, Measurement, State, Trial

SPACE: SearchSpace = {
    "learning_rate": Float(1e-4, 1e-1, log=True),
    "width": Int(32, 1024, log=True),
    "dropout": Float(0.0, 0.8, step=0.2),
    "layers": Int(1, 4),
    "momentum": Float(0.0, 1.0),
    "optimizer": Categorical(("adam", "sgd", "lion")),
    "epsilon": Float(1e-8, 1e-8),
}
RUNGS, END = (1, 4), 9


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


@st.composite
def parameters(draw: st.DrawFn) -> Parameter:
    kind = draw(st.sampled_from(["float", "log", "step", "int", "log int", "int step", "choice", "constant"]))
    low, extent = draw(numbers(-100, 100)), draw(numbers(0.5, 1000))
    made: dict[str, Parameter] = {
        "float": Float(low, low + extent),
        "log": Float(10 ** (low / 10), 10 ** (low / 10) * (1 + extent), log=True),
        "step": Float(round(low), round(low) + 0.25 * draw(st.integers(1, 40)), step=0.25),
        "int": Int(round(low), round(low) + draw(st.integers(1, 2**40))),
        "log int": Int(draw(st.integers(1, 20)), draw(st.integers(21, 2**30)), log=True),
        "int step": Int(round(low), round(low) + 3 * draw(st.integers(1, 9)), step=3),
        "choice": Categorical(tuple(f"c{i}" for i in range(draw(st.integers(1, 6))))),
        "constant": Int(7, 7),
    }
    return made[kind]


def legal(parameter: Parameter, value: Value) -> bool:
    match parameter:
        case Categorical(choices):
            return value in choices
        case Int(low, high):
            return isinstance(value, int) and low <= value <= high and (value - low) % (parameter.step or 1) == 0
        case Float(low, high, step=step):
            steps = 0.0 if step is None else (value - low) / step
            return isinstance(value, float) and low <= value <= high and steps == pytest.approx(round(steps))
    raise AssertionError(parameter)


@settings(max_examples=300, deadline=None)
@given(parameters(), numbers(0, 1 - 1e-9))
def test_a_position_is_the_inverse_of_a_point(parameter: Parameter, u: float) -> None:
    value = point(parameter, u)
    found = position(parameter, value)
    assert 0 <= found <= 1
    again = point(parameter, min(found, 1 - 1e-12))
    assert again == (pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value)


@settings(max_examples=100, deadline=None)
@given(st.lists(parameters(), min_size=1, max_size=6), st.integers(0, 99))
def test_a_snapped_point_stands_for_the_same_parameters_and_lies_where_they_do(space: list[Parameter], seed: int) -> None:
    cube = Cube({f"p{i}": parameter for i, parameter in enumerate(space)})
    drawn = np.random.default_rng(seed).random((1, cube.size))
    snapped = cube.snapped(drawn.copy())[0]
    assert cube.params(snapped) == cube.params(drawn[0])
    assert cube.coordinates(cube.params(snapped)) == pytest.approx(list(snapped), abs=1e-6)


def test_a_position_knows_true_from_one_and_refuses_what_is_no_choice() -> None:
    assert position(Categorical((1, True)), True) == 0.75
    with pytest.raises(ValueError, match="not in tuple"):
        position(Categorical(("a", "b")), "c")


# ---------------------------------------------------------------- a study in small


def quality(params: Params, epoch: int) -> float:
    return -abs(math.log10(params["learning_rate"]) + 2.5) - params["dropout"] - (params["optimizer"] == "sgd") - 1 / epoch


def plain(params: Params, epoch: int, number: int) -> float | None:
    return quality(params, epoch)


def diverging(params: Params, epoch: int, number: int) -> float | None:
    """A third fails at some epoch, before the first even; others are absurd or all the same."""
    match number % 6:
        case 0:
            return None if epoch > number % 5 else 0.5
        case 1:
            return 1e34 * (-1) ** number
        case 2:
            return [1e308, -1e308, 1e-320][epoch % 3]
        case 3:
            return 0.5
        case _:
            return quality(params, epoch)


class Small:
    """Four workers, promotion by the sampler's own choice; `step` is one thing that happens."""

    def __init__(self, make: Callable[[], LaddersSampler], curve: Callable[[Params, int, int], float | None], seed: int) -> None:
        self.make, self.curve, self.rng = make, curve, np.random.default_rng(seed)
        self.sampler = make()
        self.trials: list[Trial] = []
        self.seen, self.turn = 0, 0
        self.promoted: set[tuple[int, int]] = set()

    def paused(self) -> list[int]:
        for rung in (4, 1):
            for ladder in ("random", "tpe", "gp"):
                came = [t for t in self.trials if t.ladder == ladder and t.epoch >= rung]
                waiting = [t for t in came if t.state is State.PAUSED and t.epoch == rung]
                if waiting and sum((t.number, rung) in self.promoted for t in came) < len(came) // 4:
                    return [t.number for t in waiting]
        return []

    def step(self) -> None:
        running = [t for t in self.trials if t.state is State.RUNNING]
        if len(running) < 4:
            self.start()
        else:
            self.train(running[int(self.rng.integers(len(running)))])

    def start(self) -> None:
        if waiting := self.paused():
            chosen = self.trials[self.sampler.choose(waiting, self.trials, self.turn)]
            assert chosen.number in waiting
            self.turn += 1
            self.promoted.add((chosen.number, chosen.epoch))
            chosen.state = State.RUNNING
            return
        number = len(self.trials)
        ladder, params = self.sampler.ladder(number, self.trials), self.sampler.suggest(number, self.trials)
        self.trials.append(Trial(number, params, number, ladder=ladder))

    def train(self, trial: Trial) -> None:
        value = self.curve(trial.params, trial.epoch + 1, trial.number)
        if value is None:
            trial.state, trial.ended_at = State.FAILED, self.seen
            return
        self.seen += 1
        trial.measurements.append(Measurement(trial.epoch + 1, value, {}, 1.0))
        trial.arrived.append(self.seen)
        if trial.epoch == END or (trial.epoch > 1 and self.rng.random() < 0.02):  # some end by themselves
            trial.state, trial.ended_at = State.COMPLETE, self.seen
        elif trial.epoch in RUNGS:
            trial.state = State.PAUSED


def sampler(space: SearchSpace = SPACE, seed: int = 0, direction: Direction = Direction.MAXIMIZE) -> LaddersSampler:
    return LaddersSampler(space, direction, seed, RUNGS, END)


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([plain, diverging]), st.sampled_from(list(Direction)))
def test_a_fresh_sampler_answers_like_the_old_one_at_any_time(seed: int, curve: Callable[..., float | None], direction: Direction) -> None:
    small = Small(lambda: sampler(seed=seed, direction=direction), curve, seed)
    for happened in range(360):
        small.step()
        if small.rng.random() < 0.3:
            small.sampler.prepare(small.trials)
        if happened % 40 == 7:
            fresh, number = small.make(), len(small.trials)
            assert small.sampler.suggest(number, small.trials) == fresh.suggest(number, small.trials)
            assert small.sampler.suggest(number, small.trials) == fresh.suggest(number, small.trials)  # asked twice
            assert small.sampler.ladder(number, small.trials) == fresh.ladder(number, small.trials)
            if waiting := [t.number for t in small.trials if t.state is State.PAUSED and t.epoch == 1]:
                for turn in range(4):
                    again = small.make()
                    assert small.sampler.choose(waiting, small.trials, turn) == again.choose(waiting[::-1], small.trials, turn)
    assert {t.ladder for t in small.trials} == {"random", "tpe", "gp"}


def test_a_sampler_that_is_shown_another_history_answers_as_if_it_had_seen_no_other() -> None:
    one, other = Small(sampler, plain, 0), Small(sampler, plain, 1)
    for _ in range(200):
        one.step()
        other.step()
    expected = sampler().suggest(99, other.trials)
    assert one.sampler.suggest(99, other.trials) == expected
    assert one.sampler.suggest(99, other.trials[:5]) == sampler().suggest(99, other.trials[:5])


@settings(max_examples=12, deadline=None)
@given(st.lists(parameters(), min_size=1, max_size=20), st.integers(0, 10**6))
def test_every_point_is_legal_in_any_space_and_after_any_values(space: list[Parameter], seed: int) -> None:
    named = {f"p{i}": parameter for i, parameter in enumerate(space)}
    rng = np.random.default_rng(seed)

    def absurd(params: Params, epoch: int, number: int) -> float | None:
        choices = (None, 1e34, -1e34, 1e308, -1e308, 0.0, 1.0, *rng.standard_normal(3))
        value = choices[int(rng.integers(len(choices)))]
        return None if value is None else float(value)

    small = Small(lambda: sampler(named, seed), absurd, seed)
    for _ in range(150):
        small.step()
    for trial in small.trials:
        assert trial.params.keys() == named.keys()
        assert all(legal(named[name], value) for name, value in trial.params.items()), trial.params


@pytest.mark.parametrize(
    "values", [[], [math.nan] * 40, [math.inf, -math.inf] * 20, [0.5] * 40, [1e308, -1e308] * 20, [math.nan] * 39 + [1.0]]
)
def test_a_model_without_anything_to_learn_from_still_gives_points(values: list[float]) -> None:
    history = History(3, 2)
    ladders = Ladders(Cube({name: Float(0.0, 1.0) for name in "abc"}), history, 0)
    for i, value in enumerate(values):
        row = history.append([0.5, 0.5, 0.5])
        history.enter(row, Entry(i % 2, value, i))
    history.latest = len(values) + 1
    for number in range(20):
        assert ladders.point(number, number).shape == (3,)
    if values:
        assert 0 <= ladders.promoted(np.arange(0, len(values), 2), 1) < len(values) / 2


def test_a_covariance_without_a_factor_falls_back_on_tpe(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Small(sampler, plain, 0)
    for _ in range(200):
        small.step()

    def refuse(*_: object) -> None:
        raise NotPositive

    monkeypatch.setattr("hpo.sampling.ladder_model.Posterior", refuse)
    fresh = sampler()
    assert "gp" in {fresh.ladder(number, small.trials) for number in range(100, 120)}
    for number in range(100, 120):
        assert fresh.suggest(number, small.trials).keys() == SPACE.keys()
    waiting = [t.number for t in small.trials if t.state is State.PAUSED and t.epoch == 1]
    assert fresh.choose(waiting, small.trials, 0) in waiting


def test_the_ladders_learn() -> None:
    small = Small(sampler, plain, 0)
    while len(small.trials) < 150:
        small.step()
    late = {ladder: np.mean([quality(t.params, 9) for t in small.trials[75:] if t.ladder == ladder]) for ladder in ("random", "tpe", "gp")}
    assert late["gp"] > late["random"] + 0.4
    assert late["tpe"] > late["random"] + 0.4


# ---------------------------------------------------------------- what the history makes of a trial


def row_of(trial: Trial) -> list[float]:
    """The entries [3] of a trial, NaN for none; a failure is -1."""
    made = sampler()
    made.suggest(1, [trial])
    gain, seen = made._history.gain[0], made._history.seen[0]
    return [-1.0 if s and math.isnan(g) else g for g, s in zip(gain, seen, strict=True)]


@pytest.mark.parametrize(
    ("values", "state", "entries"),
    [
        ([], State.RUNNING, [math.nan] * 3),
        ([0.1], State.PAUSED, [0.1, math.nan, math.nan]),
        ([0.1, 0.2, 0.3, 0.4, 0.5], State.RUNNING, [0.1, 0.4, math.nan]),
        ([0.1, 0.2, 0.3], State.FAILED, [0.1, -1.0, math.nan]),
        ([], State.FAILED, [-1.0, math.nan, math.nan]),
        ([0.1, 0.6, 0.3], State.COMPLETE, [0.1, 0.6, 0.6]),  # it stopped itself: its best value stands for the rungs behind
        ([0.1, 0.2, 0.3, 0.4], State.PRUNED, [0.1, 0.4, math.nan]),
        ([k / 10 for k in range(9)], State.COMPLETE, [0.0, 0.3, 0.8]),
    ],
)
def test_the_entries_of_a_trial(values: list[float], state: State, entries: list[float]) -> None:
    trial = Trial(0, at(SPACE, [0.5] * 7), 0, state=state, measurements=[Measurement(i + 1, v, {}, 0.0) for i, v in enumerate(values)])
    trial.arrived = list(range(1, len(values) + 1))
    trial.ended_at = len(values) if state.finished else None
    assert row_of(trial) == pytest.approx(entries, nan_ok=True)


def test_verify_compares_values_that_are_too_large_for_sums_as_the_ladders_hold_them() -> None:
    trial = Trial(0, at(SPACE, [0.5] * 7), 0, measurements=[Measurement(1, -1e308, {}, 0.0)], arrived=[1])
    assert misfits(SPACE, Rules(Direction.MAXIMIZE, END, 1, reduction_factor=4, promotes=True), [trial]) == []


def test_where_no_number_lies_between_the_bounds_a_point_is_still_found() -> None:
    for narrow in (Float(0.0, 5e-324), Float(1e16, 1.0000000000000002e16, log=True)):
        assert Cube({"x": narrow}).coordinates({"x": narrow.low}) == [0.5]


def test_values_are_made_comparable_by_the_gains_of_those_that_went_on() -> None:
    gain = np.array([[0.0, 1.0, 3.0], [1.0, 3.0, np.nan], [2.0, np.nan, np.nan], [np.nan, 5.0, np.nan]])
    assert comparable(gain) == pytest.approx(gain + np.array([3.5, 2.0, 0.0]), nan_ok=True)


def test_one_absurd_value_does_not_flatten_the_others() -> None:
    z = standardised(np.array([0.1, 0.2, 0.3, 0.4, 0.5, -1e34, np.nan]))
    assert (np.diff(z[:5]) > 0.1).all()
    assert z[5] == z[6] == z.min()


def test_the_best_rank_by_rung_then_value_failures_last() -> None:
    history = History(1, 2)
    for rung, value in [(0, 5.0), (1, 1.0), (1, 2.0), (1, math.nan), (0, math.nan), (0, 5.0)]:
        history.enter(history.append([0.5]), Entry(rung, value, 1))
    history.append([0.5])
    assert list(history.ranked()) == [2, 1, 3, 0, 5, 4]
    assert list(history.awaited) == [6]
    assert target_rung(history) == 0
    assert len(observations(history, up_to=0)) == 0


def test_the_grain_is_how_far_equal_values_reach() -> None:
    x = np.linspace(0, 1, 101)[:, None]
    assert grain(x, np.floor(x * 5)) == pytest.approx(1e-4, rel=1e-6)
    assert grain(x, x) == 0.0
    assert grain(x[:1], x[:1]) == 0.0


# ---------------------------------------------------------------- for Optuna's users


@pytest.fixture
def quiet() -> Iterator[None]:
    """Optuna without a line for each trial."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield
    optuna.logging.set_verbosity(before)


def objective(trial: optuna.Trial) -> float:
    x, width = trial.suggest_float("x", 1e-3, 1.0, log=True), trial.suggest_int("width", 1, 9, step=2)
    kind = trial.suggest_categorical("kind", [None, "a", 3])
    trial.suggest_float("constant", 2.0, 2.0)
    value = 0.0
    for step in range(9):
        value = abs(math.log10(x) + 1) + abs(width - 5) / 8 + (kind == "a") + 1 / (step + 1)
        trial.report(math.nan if trial.number % 7 == 3 and step > 2 else value, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    if trial.number % 11 == 5:
        raise ArithmeticError
    return value


def optuna_study(seed: int | None, trials: int, n_jobs: int = 1) -> optuna.Study:
    study = optuna.create_study(sampler=MultiFidelitySampler(seed=seed), pruner=optuna.pruners.SuccessiveHalvingPruner(reduction_factor=4))
    study.optimize(objective, n_trials=trials, n_jobs=n_jobs, catch=(ArithmeticError,))
    return study


@pytest.mark.usefixtures("quiet")
def test_in_optuna_it_learns_from_pruned_trials_and_repeats_itself() -> None:
    first, again = optuna_study(1, 60), optuna_study(1, 60)
    assert [t.params for t in first.trials] == [t.params for t in again.trials]
    assert {t.state.name for t in first.trials} == {"COMPLETE", "PRUNED", "FAIL"}
    assert [t.params for t in optuna_study(2, 5).trials] != [t.params for t in first.trials[:5]]

    def far(trials: list[optuna.trial.FrozenTrial]) -> float:
        return float(np.median([abs(math.log10(t.params["x"]) + 1) for t in trials]))

    assert far(first.trials[30:]) < far(first.trials[:12])


@pytest.mark.usefixtures("quiet")
def test_in_optuna_it_serves_several_threads_and_a_changing_space() -> None:
    study = optuna_study(None, 30, n_jobs=2)
    assert len(study.trials) == 30
    study.optimize(lambda trial: trial.suggest_float("x", 1e-3, 1.0, log=True) + trial.suggest_float("new", 0, 1), n_trials=15)
    assert all("new" in t.params for t in study.trials[30:])


@pytest.mark.usefixtures("quiet")
def test_in_optuna_two_objectives_and_impossible_resources_are_refused() -> None:
    with pytest.raises(ValueError, match="max_resource 2"):
        MultiFidelitySampler(min_resource=3, max_resource=2)
    two = optuna.create_study(directions=["minimize", "minimize"], sampler=MultiFidelitySampler(seed=0))
    with pytest.raises(ValueError, match="2 objectives"):
        two.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 0.0), n_trials=3)


@pytest.mark.usefixtures("quiet")
def test_threads_that_ask_at_once_get_different_points() -> None:
    study = optuna_study(0, 20)
    with ThreadPoolExecutor(4) as pool:
        asked = list(pool.map(lambda _: study.ask().suggest_float("x", 1e-3, 1.0, log=True), range(12)))
    assert len(set(asked)) == 12
