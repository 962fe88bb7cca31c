"""A contract for every sampler, first points, and the truth that Optuna's are told."""

from __future__ import annotations

import functools
import itertools
import math
import random
from collections.abc import Sequence

import optuna
import pytest
from optuna.trial import TrialState

from hpo.events import Asked, Event
from hpo.rules import NoFurther, Preparing, Promoter, Rules, Sampler
from hpo.sampling import make_sampler
from hpo.sampling.beside import BesideRandom
from hpo.sampling.simple import GridSampler, RandomSampler
from hpo.sampling.starting import starting_with
from hpo.sampling.with_optuna import OptunaSampler, misfits
from hpo.sections import SamplerChoice
from hpo.space import Categorical, Float, Int, Params, SearchSpace, Value, grid_points
from hpo.study import Study
from hpo.trial import Decision, Direction, Measurement, State, Trial

SPACE: SearchSpace = {
    "learning_rate": Float(1e-4, 1e-1, log=True, grid=(1e-3, 1e-2)),
    "width": Int(32, 1024, log=True, grid=(32, 64)),
    "dropout": Float(0.0, 0.8, step=0.2, grid=(0.0,)),
    "layers": Int(1, 4),
    "optimizer": Categorical(("adam", "sgd")),
}
CONSTANT: SearchSpace = {
    "rate": Float(0.5, 0.5, grid=(0.5,)),
    "log_rate": Float(0.1, 0.1, log=True, grid=(0.1,)),
    "layers": Int(3, 3),
    "units": Int(64, 64, log=True),
    "loss": Categorical(("cross_entropy",)),
}
WIDE: SearchSpace = {
    f"{kind}_{i}": parameter
    for i in range(4)
    for kind, parameter in {
        "float": Float(-1.0, 1.0, grid=(0.0,)),
        "log": Float(1e-6, 1.0, log=True, grid=(1e-3, 1e-2)),
        "int": Int(1, 5, grid=(1, 2)),
        "step": Float(0.0, 1.0, step=0.1, grid=(0.5,)),
        "choice": Categorical(("a", 1, True, 0.5), grid=("a", 1)),
    }.items()
}
SPACES: dict[str, SearchSpace] = {
    "mixed": SPACE,
    "one float": {"x": Float(0.0, 1.0, grid=(0.0, 0.25, 0.5, 1.0))},
    "one choice": {"x": Categorical(("a", "b", "c"))},
    "mixed with constants": {**CONSTANT, "x": Float(0.0, 1.0, grid=(0.0, 1.0)), "y": Int(1, 1000, log=True, grid=(1, 10))},
    "constants alone": CONSTANT,
    "20 parameters": WIDE,
}
LOOKING = ["tpe", "gp", "cmaes", "ladders"]  # those that look at results
COUNTING = ["grid", "sweep", "random", "qmc"]
NAMES = COUNTING + LOOKING


def sampler_of(name: str, space: SearchSpace = SPACE, seed: int = 0, start: Sequence[Params] = ()) -> Sampler:
    rules = Rules(Direction.MAXIMIZE, max_epochs=9, max_trials=100, seed=seed, promotes=True)
    return make_sampler(SamplerChoice(name), space, start, rules)


def legal(space: SearchSpace, point: Params) -> bool:
    def fits(value: Value, parameter: object) -> bool:
        match parameter:
            case Categorical(choices):
                return any(value == choice and type(value) is type(choice) for choice in choices)
            case Float(low, high, step=step):
                on_step = step is None or math.isclose((value - low) / step, round((value - low) / step), abs_tol=1e-6)
                return isinstance(value, float) and low <= value <= high and on_step
            case Int(low, high, step=step):
                return type(value) is int and low <= value <= high and (value - low) % (step or 1) == 0
        raise AssertionError(parameter)

    return list(point) == list(space) and all(fits(point[name], parameter) for name, parameter in space.items())


ENDS = [(1, State.PAUSED)] * 2 + [(3, State.PAUSED), (3, State.PRUNED)] + [(9, State.COMPLETE)] * 2 + [(2, State.FAILED)]


@functools.cache
def history(kind: str, count: int = 36, running: int = 4) -> tuple[Trial, ...]:
    """Trials over a space of SPACES as promotion leaves them: most wait, few completed, some failed, the last ones run."""
    space = SPACES[kind]
    draw, sampler, trials, so_far = random.Random(kind), RandomSampler(space, 5), [], 0
    for number in range(count):
        trial = Trial(number, sampler.suggest(number, []), number, ladder=draw.choice(["random", "tpe", "gp"]))
        epochs, trial.state = draw.choice(ENDS)
        if number >= count - running:
            trial.state, epochs = State.RUNNING, draw.choice([0, 0, 4])
        for epoch in range(1, epochs + 1):
            so_far += 1
            trial.measurements.append(Measurement(epoch, draw.choice([0.5, draw.random(), -1e34]) - 1 / epoch, {}, 1.0))
            trial.arrived.append(so_far)
        trial.ended_at = so_far if trial.state.finished else None
        trials.append(trial)
    return tuple(trials)


def value(params: Params, epoch: int) -> float:
    return -abs(math.log10(params["learning_rate"]) + 2.5) - 1 / epoch - 0.1 * params["dropout"]


def search(study: Study) -> Study:
    while (trial := study.next()) is not None:
        for epoch in range(trial.epoch + 1, study.rules.max_epochs + 1):
            if study.report(trial.number, [Measurement(epoch, value(trial.params, epoch), {}, 0.0)]) is not Decision.CONTINUE:
                break
    return study


def with_four_workers(study: Study, prepared: float) -> Study:
    """Searched to its end; after that share of the results, and of the trials that began, the sampler is prepared."""
    draw, moments, running = random.Random(0), random.Random(1), []
    while True:
        while len(running) < 4 and (trial := study.next()) is not None:
            running.append(trial)
            if moments.random() < prepared:
                study.prepare()
        if not running:
            return study
        trial = draw.choice(running)
        if draw.random() < 0.05:
            study.fail(trial.number, "error", "boom")
        else:
            study.report(trial.number, [Measurement(trial.epoch + 1, value(trial.params, trial.epoch + 1), {}, 0.0)])
        running = [one for one in running if one.state is State.RUNNING]
        if moments.random() < prepared:
            study.prepare()


def new_study(name: str, trials: int = 24, seed: int = 0, promotes: bool = True, start: Sequence[Params] = ()) -> Study:
    rules = Rules(Direction.MAXIMIZE, max_epochs=9, max_trials=trials, seed=seed, promotes=promotes)
    return Study(rules, make_sampler(SamplerChoice(name), SPACE, start, rules))


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("name", NAMES)
def test_points_are_legal_and_a_function_of_seed_number_and_history(name: str, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    space, trials = SPACES[kind], history(kind)
    sampler = sampler_of(name, space)
    for n in (0, 2, len(trials)):
        point = sampler.suggest(n, trials[:n])
        assert sampler.suggest(n, trials[:n]) == point  # asked twice
        assert sampler_of(name, space).suggest(n, trials[:n]) == point  # one that was never asked before
        assert legal(space, point) if point is not None else name in ("grid", "sweep")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", NAMES)
def test_64_trials_may_run_at_once(name: str) -> None:
    """Asked without a single result, then with 64 trials running beside those that ended."""
    sampler, trials = sampler_of(name), []
    for number in range(64):
        if (point := sampler.suggest(number, trials)) is None:
            assert name in ("grid", "sweep")
            return
        trials.append(Trial(number, point, number, ladder="random"))
    different = {tuple(trial.params.values()) for trial in trials}
    assert len(different) > 50
    many = history("mixed", 120, running=64)
    assert legal(SPACE, sampler_of(name).suggest(len(many), many))


@pytest.mark.parametrize("name", LOOKING)
def test_a_history_of_failures_alone_teaches_nothing_and_harms_nothing(name: str) -> None:
    failed = [Trial(n, RandomSampler(SPACE, 1).suggest(n, []), n, State.FAILED, ladder="random", ended_at=0) for n in range(20)]
    assert legal(SPACE, sampler_of(name).suggest(20, failed))


@pytest.mark.parametrize("name", LOOKING)
def test_what_was_cut_short_before_its_first_epoch_is_not_judged(name: str) -> None:
    """The study ended, and is resumed: of those parameters nothing is known, unlike of those that failed by themselves."""
    known, points = list(history("mixed", 40)), [RandomSampler(SPACE, 5).suggest(n, []) for n in range(20)]
    suggested = []
    for state in (State.PRUNED, State.FAILED):
        cut = [Trial(40 + n, p, n, state, ladder="random", ended_at=known[-1].ended_at) for n, p in enumerate(points)]
        suggested.append([sampler_of(name).suggest(60 + n, [*known, *cut]) for n in range(4)])
    assert (suggested[0] == suggested[1]) == (name in ("tpe", "cmaes"))  # to Optuna's own a failure says nothing


@pytest.mark.parametrize("name", LOOKING)
def test_values_at_the_edge_of_what_a_float_holds_break_no_sampler(name: str) -> None:
    values = (-1e308, 1e34, 1e308, 0.0)
    trials = [Trial(n, RandomSampler(SPACE, 1).suggest(n, []), n, State.COMPLETE, ladder="random", ended_at=n + 1) for n in range(16)]
    for trial in trials:
        trial.measurements.append(Measurement(1, values[trial.number % 4], {}, 1.0))
        trial.arrived.append(trial.number + 1)
    assert legal(SPACE, sampler_of(name).suggest(16, trials))


@pytest.mark.parametrize("promotes", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_search(name: str, promotes: bool) -> None:
    first, second = (search(new_study(name, 14, promotes=promotes)) for _ in range(2))
    assert first.trials == second.trials
    assert len(first.trials) == {"sweep": 10}.get(name, 14)
    assert all(legal(SPACE, trial.params) for trial in first.trials)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("grid", "sweep")])
def test_another_seed_gives_other_points(name: str) -> None:
    first, other = search(new_study(name, 8)), search(new_study(name, 8, seed=1))
    assert [t.params for t in first.trials] != [t.params for t in other.trials]


@pytest.mark.parametrize("promotes", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_a_sampler_that_is_prepared_at_any_moments_suggests_what_one_that_never_was_does(name: str, promotes: bool) -> None:
    left_alone, prepared = (with_four_workers(new_study(name, 24, promotes=promotes), share) for share in (0.0, 0.4))
    assert prepared.trials == left_alone.trials


class Noting(NoFurther):
    """Remembers how many trials it was prepared with."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def prepare(self, trials: Sequence[Trial]) -> None:
        self.seen.append(len(trials))


def test_a_sampler_is_prepared_behind_first_points_and_beside_random_ones_too() -> None:
    noting = Noting()
    for sampler in (starting_with(STARTS, noting), BesideRandom("noting", noting, SPACE, 0)):
        assert isinstance(sampler, Preparing)
        sampler.prepare(history("mixed"))
    assert noting.seen == [36, 36]
    assert {name for name in NAMES if isinstance(sampler_of(name), Preparing)} == {*LOOKING, "qmc"}  # which only imports


@pytest.mark.parametrize("name", LOOKING)
def test_without_its_memory_a_sampler_goes_on_as_it_would_have(name: str) -> None:
    """As in a resumed study: one that remembers is asked everything again, in order."""
    events: list[Event] = []
    sampler, fresh = sampler_of(name), sampler_of(name)
    live = search(Study(Rules(Direction.MAXIMIZE, 9, 14, promotes=True), sampler, events.extend))
    again = Study(live.rules, fresh)
    for event in events:
        if fresh.remembers and isinstance(event, Asked):
            fresh.suggest(event.trial, again.trials)
        again.apply(event)
    assert again.trials == live.trials
    assert fresh.suggest(14, again.trials) == sampler.suggest(14, live.trials)


@pytest.mark.parametrize("name", ["tpe", "gp", "ladders"])
def test_a_sampler_that_learned_finds_better_points_than_random(name: str) -> None:
    learned, blind = search(new_study(name, 36)), search(new_study("random", 36))

    def late(study: Study) -> float:
        return sum(value(t.params, 9) for t in study.trials[18:]) / 18

    assert late(learned) > late(blind)


class TestBesideRandom:
    """A sampler that learns, beside random points."""

    def sampler(self, name: str = "cmaes") -> BesideRandom:
        return BesideRandom(name, OptunaSampler(name, SPACE, Direction.MAXIMIZE, 0), SPACE, 0)

    def test_half_of_the_trials_are_random_and_compete_among_themselves(self) -> None:
        trials = history("mixed")
        ladders = [self.sampler().ladder(number, trials) for number in range(200)]
        assert set(ladders) == {"random", "cmaes"}
        assert 70 <= ladders.count("random") <= 130  # 100 +- 4 standard deviations

    def test_the_first_twelve_with_a_value_are_random(self) -> None:
        without = [Trial(number, {}, number) for number in range(100)]
        assert {self.sampler().ladder(number, without) for number in range(100)} == {"random"}

    def test_the_points_of_each_ladder_are_those_of_its_sampler(self) -> None:
        seen = set()
        for count in range(30, 40):
            trials, sampler = history("mixed", count), self.sampler("tpe")
            seen.add(ladder := sampler.ladder(count, trials))
            alone = sampler_of("qmc") if ladder == "random" else OptunaSampler("tpe", SPACE, Direction.MAXIMIZE, 0)
            assert sampler.suggest(count, trials) == alone.suggest(count, trials)
        assert seen == {"random", "tpe"}

    @pytest.mark.parametrize("name", ["tpe", "cmaes"])
    def test_replayed_in_order_it_gives_the_same_search(self, name: str) -> None:
        events: list[Event] = []
        live = search(Study(Rules(Direction.MAXIMIZE, 9, 40, promotes=True), self.sampler(name), events.extend))
        again, fresh = Study(live.rules, NoFurther()), self.sampler(name)
        for event in events:
            if isinstance(event, Asked):
                assert fresh.ladder(event.trial, again.trials) == event.ladder
                assert fresh.suggest(event.trial, again.trials) == event.params
            again.apply(event)
        assert {trial.ladder for trial in live.trials} == {"random", name}

    def test_of_those_that_wait_the_best_goes_on(self) -> None:
        assert self.sampler().choose([1, 2, 0], history("mixed"), 0) == 1


STARTS = [{name: grid_points(parameter)[i] for name, parameter in SPACE.items()} for i in (0, -1)]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("grid", "sweep")])
def test_first_points_come_first_and_the_sampler_goes_on_from_them(name: str) -> None:
    study = search(new_study(name, 16, start=STARTS))
    assert [dict(trial.params) for trial in study.trials[:2]] == STARTS
    assert len(study.trials) == 16
    assert all(legal(SPACE, trial.params) for trial in study.trials)


def test_a_grid_after_first_points_is_visited_whole() -> None:
    sampler = starting_with([{"x": 7}], GridSampler({"x": Int(1, 3)}))
    assert list(itertools.takewhile(bool, (sampler.suggest(n, []) for n in itertools.count()))) == [{"x": n} for n in (7, 1, 2, 3)]


def test_first_points_leave_a_sampler_what_it_is() -> None:
    assert not isinstance(starting_with([{"x": 7}], RandomSampler({"x": Int(1, 3)}, 0)), Promoter)
    ladders = sampler_of("ladders", start=STARTS)
    assert isinstance(ladders, Promoter)
    assert ladders.ladder(0, []) == "random"
    assert sampler_of("cmaes", start=STARTS).remembers
    assert not sampler_of("tpe", start=STARTS).remembers


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


def test_a_waiting_trial_is_pruned_to_optuna_until_it_goes_on() -> None:
    sampler = OptunaSampler("cmaes", SPACE, Direction.MAXIMIZE, 0)
    trial = Trial(0, sampler.suggest(0, []), 0)
    seen = []
    for state, epochs in [("running", 0), ("running", 1), ("paused", 1), ("running", 1), ("running", 2), ("paused", 3), ("complete", 5)]:
        trial.state = State(state)
        trial.measurements = [Measurement(e, [0.1, 0.3, 0.2, 0.6, 0.4][e - 1], {}, 0.0) for e in range(1, epochs + 1)]
        (told,) = sampler.history([trial])
        seen.append((told.state.name, told.value, len(told.intermediate_values)))
        assert told.params == trial.params
        assert misfits(SPACE, Direction.MAXIMIZE, [trial]) == []
    running = [("RUNNING", None, epochs) for epochs in (0, 1, 1, 2)]
    assert seen == [*running[:2], ("PRUNED", 0.1, 1), *running[2:], ("PRUNED", 0.2, 3), ("COMPLETE", 0.6, 5)]
    assert sampler._study.best_value == 0.6


def test_what_optuna_noted_about_a_suggestion_stays_with_its_trial() -> None:
    """CMA-ES keeps its state there: which generation a trial belongs to, and the distribution that it came from."""
    sampler = OptunaSampler("cmaes", SPACE, Direction.MAXIMIZE, 0)
    study = search(Study(Rules(Direction.MAXIMIZE, 2, 40, reduction_factor=None), sampler))
    noted = [trial.system_attrs.get("cma:generation") for trial in sampler.history(study.trials)]
    assert noted[1:] == sorted(noted[1:])
    assert noted[-1] >= 3  # eight trials a generation


def test_every_trial_of_optunas_is_one_of_ours() -> None:
    trials = history("mixed", 60)
    for name in ("tpe", "gp", "cmaes"):
        sampler = OptunaSampler(name, SPACE, Direction.MAXIMIZE, 0)
        sampler.suggest(60, trials)
        assert len(sampler.history(trials)) == 60  # the suggestion is none before the study takes it
    assert misfits(SPACE, Direction.MAXIMIZE, trials) == []
    assert optuna.logging.get_verbosity() == optuna.logging.ERROR
