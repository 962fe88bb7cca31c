"""What may be searched: parameters, their ranges and their points. Pure: no files, no libraries."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

Value = bool | int | float | str
Params = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Float:
    """A real number in [low, high], both included; on a log axis if `log`, on multiples of `step` from `low` if given."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    grid: tuple[float, ...] | None = None
    type: Literal["float"] = "float"


@dataclass(frozen=True, slots=True)
class Int:
    """A whole number in [low, high], both included; on a log axis if `log`, on multiples of `step` from `low`."""

    low: int
    high: int
    log: bool = False
    step: int | None = None
    grid: tuple[int, ...] | None = None
    type: Literal["int"] = "int"


@dataclass(frozen=True, slots=True)
class Categorical:
    """One of `choices`, which have no order."""

    choices: tuple[Value, ...]
    grid: tuple[Value, ...] | None = None
    type: Literal["categorical"] = "categorical"


Parameter = Float | Int | Categorical
SearchSpace = Mapping[str, Parameter]


def point(parameter: Parameter, u: float) -> Value:
    """The value at position `u` in [0, 1) of the parameter's own axis.

    Every value of a discrete parameter owns an equal cell of a linear axis; on a log axis the cell of the integer i
    is [i - 1/2, i + 1/2), so that both bounds are reached and no integer is starved.
    """
    match parameter:
        case Categorical(choices):
            return choices[min(int(u * len(choices)), len(choices) - 1)]
        case Float(low, high, log=True):
            return min(max(math.exp(math.log(low) + u * (math.log(high) - math.log(low))), low), high)
        case Float(low, high, step=None):
            return min(low + u * (high - low), high)
        case Float(low, high, step=float(step)):
            count = round((high - low) / step) + 1
            return min(low + step * min(int(u * count), count - 1), high)
        case Int(low, high, log=True):
            bottom, top = math.log(low - 0.5), math.log(high + 0.5)
            return min(max(round(math.exp(bottom + u * (top - bottom))), low), high)
        case Int(low, high):
            step_i = parameter.step or 1
            count = (high - low) // step_i + 1
            return low + step_i * min(int(u * count), count - 1)
        case Float():
            raise AssertionError(parameter)
        case _:
            assert_never(parameter)


def position(parameter: Parameter, value: Value) -> float:  # noqa: PLR0911 - one for each kind
    """Where `value` lies on the parameter's own axis, [0, 1]: the inverse of `point`, at the centre of a discrete value's cell.

    A number between or outside the parameter's values lies between or outside them, too. ValueError for what is no choice.
    """
    match parameter:
        case Categorical(choices):
            return (_index(choices, value) + 0.5) / len(choices)
        case Float(low, high) | Int(low, high) if low == high:
            return 0.5
        case Float(low, high, log=True):
            return (math.log(float(value)) - math.log(low)) / (math.log(high) - math.log(low))
        case Float(low, high, step=None):
            return (float(value) / 2 - low / 2) / (high / 2 - low / 2)  # halves: high - low may be too large for a float
        case Float(low, high, step=float(step)):
            return (round((float(value) - low) / step) + 0.5) / (round((high - low) / step) + 1)
        case Int(low, high, log=True):
            bottom, top = math.log(low - 0.5), math.log(high + 0.5)
            return (0.5 * (math.log(float(value) - 0.5) + math.log(float(value) + 0.5)) - bottom) / (top - bottom)
        case Int(low, high):
            step_i = parameter.step or 1
            return ((int(value) - low) // step_i + 0.5) / ((high - low) // step_i + 1)
        case Float():
            raise AssertionError(parameter)
        case _:
            assert_never(parameter)


def _index(choices: tuple[Value, ...], value: Value) -> int:
    same = [i for i, choice in enumerate(choices) if choice == value]  # True == 1: of equal ones that of the value's own type
    return next((i for i in same if type(choices[i]) is type(value)), same[0]) if same else choices.index(value)


def at(space: SearchSpace, unit: Sequence[float]) -> dict[str, Value]:
    """The parameters at a point of the unit cube, one coordinate in [0, 1) for each parameter in order."""
    return {name: point(parameter, u) for (name, parameter), u in zip(space.items(), unit, strict=True)}


def grid_points(parameter: Parameter) -> tuple[Value, ...]:
    """The values that a grid search visits: `grid` where given, else every value; empty for a float without a grid."""
    if parameter.grid is not None:
        return parameter.grid
    match parameter:
        case Categorical(choices):
            return choices
        case Int(low, high):
            return tuple(range(low, high + 1, parameter.step or 1))
        case Float():
            return ()
        case _:
            assert_never(parameter)


def grid_size(space: SearchSpace) -> int:
    """How many points the grid of the whole space has."""
    return math.prod(_grid_length(parameter) for parameter in space.values())


def _grid_length(parameter: Parameter) -> int:
    if isinstance(parameter, Int) and parameter.grid is None:
        return len(range(parameter.low, parameter.high + 1, parameter.step or 1))  # not its points: they may be 2^53
    return len(grid_points(parameter))


def grid(space: SearchSpace) -> Iterator[dict[str, Value]]:
    """Every point of the grid, the last parameter varying fastest."""
    for values in itertools.product(*(grid_points(parameter) for parameter in space.values())):
        yield dict(zip(space, values, strict=True))
