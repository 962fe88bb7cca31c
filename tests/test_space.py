"""Points of a search space: bounds included, log axes, steps, grids."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.space import Categorical, Float, Int, Parameter, at, grid, grid_points, grid_size, point

NEARLY_ONE = math.nextafter(1, 0)
PARAMETERS = {
    "float": Float(-1.0, 2.0),
    "log": Float(1e-4, 1e-1, log=True),
    "step": Float(0.0, 0.9, step=0.3),
    "int": Int(1, 6),
    "log int": Int(1, 1024, log=True),
    "step int": Int(2, 11, step=3),
    "categorical": Categorical(("a", 2, True)),
    "constant": Float(0.5, 0.5),
}


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("float", -1.0, 2.0),
        ("log", 1e-4, 1e-1),
        ("step", 0.0, 0.9),
        ("int", 1, 6),
        ("log int", 1, 1024),
        ("step int", 2, 11),
        ("categorical", "a", True),
        ("constant", 0.5, 0.5),
    ],
)
def test_both_bounds_are_reached(name: str, first: object, last: object) -> None:
    assert point(PARAMETERS[name], 0.0) == pytest.approx(first)
    assert point(PARAMETERS[name], NEARLY_ONE) == pytest.approx(last)


@given(st.sampled_from(sorted(PARAMETERS)), st.floats(0, NEARLY_ONE))
def test_every_point_is_legal_and_of_its_type(name: str, u: float) -> None:
    parameter, value = PARAMETERS[name], point(PARAMETERS[name], u)
    match parameter:
        case Categorical(choices):
            assert value in choices
        case Int(low, high, step=step):
            assert type(value) is int
            assert low <= value <= high
            assert (value - low) % (step or 1) == 0
        case Float(low, high, step=step):
            assert isinstance(value, float)
            assert low <= value <= high
            if step:
                assert (value - low) / step == pytest.approx(round((value - low) / step))


def test_a_log_axis_gives_each_decade_its_share() -> None:
    values = [point(PARAMETERS["log"], (i + 0.5) / 300) for i in range(300)]
    assert [sum(low <= v < 10 * low for v in values) for low in (1e-4, 1e-3, 1e-2)] == [100, 100, 100]


def test_no_integer_of_a_log_axis_is_starved() -> None:
    small = Int(1, 4, log=True)
    values = [point(small, i / 1000) for i in range(1000)]
    shares = [values.count(i) / 1000 for i in (1, 2, 3, 4)]
    assert shares == sorted(shares, reverse=True)  # as their share of the axis
    assert min(shares) > 0.1


@pytest.mark.parametrize(
    ("parameter", "points"),
    [
        (Float(0, 1), ()),
        (Float(0, 1, grid=(0.1, 0.5)), (0.1, 0.5)),
        (Int(1, 3), (1, 2, 3)),
        (Int(1, 10, step=4), (1, 5, 9)),
        (Int(1, 3, grid=(2,)), (2,)),
        (Categorical(("a", "b")), ("a", "b")),
        (Categorical(("a", "b"), grid=("b",)), ("b",)),
    ],
)
def test_a_grid_has_the_given_points_or_every_value(parameter: Parameter, points: tuple[object, ...]) -> None:
    assert grid_points(parameter) == points


def test_the_grid_is_the_product_and_its_size_is_known_before() -> None:
    space = {"a": Int(1, 2), "b": Categorical(("x", "y", "z"))}
    found = list(grid(space))
    assert len(found) == grid_size(space) == 6
    assert found[:2] == [{"a": 1, "b": "x"}, {"a": 1, "b": "y"}]
    assert len({tuple(p.values()) for p in found}) == 6


def test_a_point_of_the_unit_cube_names_every_parameter() -> None:
    assert at({"a": Int(0, 9), "b": Categorical(("x", "y"))}, [0.35, 0.5]) == {"a": 3, "b": "y"}
