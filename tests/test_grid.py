"""A grid is visited whole, each point once, in an order that is known before; a sweep changes one parameter at a time."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.rules import Rules
from hpo.sampling.simple import GridSampler, SweepSampler, centre, shuffled, sweep_points, sweep_size
from hpo.space import Categorical, Float, Int, Parameter, Params, SearchSpace, grid, grid_size
from hpo.study import Study
from hpo.trial import Direction

values = st.integers(-50, 50)


@st.composite
def int_axis(draw: st.DrawFn) -> Int:
    low, step = draw(values), draw(st.integers(1, 3))
    return Int(low, low + step * draw(st.integers(0, 4)), step=step)


parameters = st.one_of(
    int_axis(),
    st.lists(values, min_size=1, max_size=5, unique=True).map(lambda grid: Int(-50, 50, grid=tuple(grid))),
    st.lists(st.floats(0, 1), min_size=1, max_size=4, unique=True).map(lambda grid: Float(0.0, 1.0, grid=tuple(grid))),
    st.lists(st.text(max_size=3), min_size=1, max_size=4, unique=True).map(lambda choices: Categorical(tuple(choices))),
)
spaces = st.lists(parameters, min_size=1, max_size=6).map(lambda found: {f"p{i}": parameter for i, parameter in enumerate(found)})
seeds = st.none() | st.integers(0, 2**32)


def points(sampler: GridSampler | SweepSampler) -> list[Params]:
    found = (sampler.suggest(number, []) for number in itertools.count())
    return list(itertools.takewhile(lambda point: point is not None, found))


def key(point: Params) -> tuple[object, ...]:
    return tuple(point.values())


@settings(max_examples=40)
@given(spaces.filter(lambda space: grid_size(space) <= 1_000), seeds)
def test_a_grid_is_exactly_its_product_without_repeats(space: SearchSpace, seed: int | None) -> None:
    found = points(GridSampler(space, seed))
    assert len(found) == grid_size(space)
    assert Counter(map(key, found)) == Counter(map(key, grid(space)))
    assert all(list(point) == list(space) for point in found)
    if seed is None:
        assert found == list(grid(space))


@settings(max_examples=40)
@given(spaces, seeds, st.data())
def test_a_grid_goes_on_from_any_number_without_a_memory(space: SearchSpace, seed: int | None, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, grid_size(space) - 1))
    assert GridSampler(space, seed).suggest(number, []) == points_from(space, seed, number)
    assert GridSampler(space, seed).suggest(grid_size(space), []) is None


def points_from(space: SearchSpace, seed: int | None, number: int) -> Params | None:
    """What a sampler answers that was asked for others before, in no order."""
    sampler = GridSampler(space, seed)
    for other in (number + 1, 0, number):
        sampler.suggest(other, [])
    return sampler.suggest(number, [])


@given(st.integers(1, 1_000), st.integers(0, 2**40))
@settings(max_examples=40)
def test_a_shuffled_order_is_a_permutation(size: int, seed: int) -> None:
    assert sorted(shuffled(index, size, seed) for index in range(size)) == list(range(size))


def test_every_point_of_a_shuffled_grid_is_as_likely_to_come_first() -> None:
    first = Counter(shuffled(0, 5, seed) for seed in range(1_000))
    assert all(150 <= first[index] <= 250 for index in range(5))  # 200 +- 4 standard deviations


def test_another_seed_gives_another_order() -> None:
    space = {"a": Int(1, 10), "b": Int(1, 10)}
    assert points(GridSampler(space, 1)) != points(GridSampler(space, 2))
    assert points(GridSampler(space, 1)) == points(GridSampler(space, 1))


def test_a_grid_of_many_millions_is_never_written_down() -> None:
    space = {f"p{i}": Int(0, 2**50) for i in range(6)}
    size = (2**50 + 1) ** 6
    assert grid_size(space) == size
    some = [GridSampler(space, 7).suggest(number, []) for number in (0, 1, size - 1)]
    assert len({key(point) for point in some}) == 3
    assert all(0 <= value <= 2**50 for point in some for value in point.values())
    assert GridSampler(space).suggest(size - 1, []) == dict.fromkeys(space, 2**50)


def test_a_study_over_a_grid_ends_with_its_last_point() -> None:
    study = Study(Rules(Direction.MAXIMIZE, max_epochs=1, max_trials=100), GridSampler({"a": Int(1, 3), "b": Categorical(("x", "y"))}, 4))
    while study.ask() is not None:
        pass
    assert len(study.trials) == len({key(trial.params) for trial in study.trials}) == 6


@pytest.mark.parametrize(
    ("parameter", "middle", "swept"),
    [
        (Float(0.0, 1.0), 0.5, (0.0, 0.25, 0.5, 0.75, 1.0)),
        (Float(1e-4, 1.0, log=True), 1e-2, (1e-4, 1e-3, 1e-2, 1e-1, 1.0)),
        (Float(0.0, 0.4, step=0.1), 0.2, (0.0, 0.1, 0.2, 0.3, 0.4)),
        (Float(0.0, 1.0, step=0.05), 0.5, (0.0, 0.25, 0.5, 0.75, 1.0)),
        (Float(0.0, 1.0, grid=(0.9, 0.1)), 0.5, (0.9, 0.1)),
        (Float(0.3, 0.3), 0.3, (0.3,)),
        (Int(1, 9), 5, (1, 2, 3, 4, 5, 6, 7, 8, 9)),
        (Int(1, 10), 5, (1, 3, 6, 8, 10)),  # evenly, as far as whole numbers go
        (Int(0, 40, step=10), 20, (0, 10, 20, 30, 40)),
        (Int(16, 4096, log=True), 256, (16, 64, 256, 1024, 4096)),
        (Int(7, 7), 7, (7,)),
        (Categorical(("relu", "tanh", "gelu")), "relu", ("relu", "tanh", "gelu")),
        (Categorical((True, False)), True, (True, False)),
    ],
)
def test_what_a_sweep_visits(parameter: Parameter, middle: object, swept: tuple[object, ...]) -> None:
    assert centre(parameter) == (pytest.approx(middle) if isinstance(middle, float) else middle)
    assert sweep_points(parameter) == (pytest.approx(swept) if isinstance(middle, float) else swept)
    assert type(centre(parameter)) is type(middle)


def test_a_sweep_begins_with_the_defaults_and_changes_one_parameter_at_a_time() -> None:
    space: SearchSpace = {"rate": Float(0.1, 0.3, step=0.1), "layers": Int(1, 3), "norm": Categorical((False, True))}
    found = points(SweepSampler(space, {"rate": 0.30000000000000004, "norm": False}))
    around = {"rate": 0.30000000000000004, "layers": 2, "norm": False}
    changed = [{name: value for name, value in point.items() if value != around[name]} for point in found]
    assert changed == [{}, {"rate": 0.1}, {"rate": 0.2}, {"layers": 1}, {"layers": 3}, {"norm": True}]


@settings(max_examples=40)
@given(spaces)
def test_a_sweep_repeats_nothing_and_is_as_long_as_it_says(space: SearchSpace) -> None:
    found = points(SweepSampler(space, {}))
    assert len(found) == sweep_size(space, {}) == len({key(point) for point in found})
    assert found[0] == {name: centre(parameter) for name, parameter in space.items()}
    assert {(name, point[name]) for point in found for name in space} >= {(n, v) for n, p in space.items() for v in sweep_points(p)}
