"""A search space as a cube: parameters to coordinates in [0, 1) and back, for models. Pure: no history, no random draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpo.space import Categorical, Float, Int, Parameter, Params, SearchSpace, Value, point, position

Array = NDArray[np.float64]

_FINE = 1e6  # with more cells than this a linear axis is as good as continuous
_BELOW_ONE = 1 - 2**-40


@dataclass(frozen=True, slots=True)
class Axis:
    """One parameter that varies; `choices` of a categorical one, else 0; `cells` of a discrete one, else 0."""

    name: str
    parameter: Parameter
    choices: int
    cells: int

    def coordinate(self, value: Value) -> float:
        """Where the value lies in [0, 1), the nearest bound if outside; the middle for what is no value of the parameter."""
        try:
            found = position(self.parameter, value)
        except (ValueError, TypeError, ArithmeticError):  # the last where no number lies between the bounds
            return 0.5
        return min(max(found, 0.0), _BELOW_ONE) if math.isfinite(found) else 0.5

    def snapped(self, u: Array) -> Array:
        """Coordinates moved to the centres of their cells."""
        if self.cells == 0:
            return u
        if isinstance(self.parameter, Int) and self.parameter.log:
            low, high = self.parameter.low, self.parameter.high
            bottom, top = math.log(low - 0.5), math.log(high + 0.5)
            i = np.clip(np.rint(np.exp(bottom + u * (top - bottom))), low, high)
            centre: Array = (0.5 * (np.log(i - 0.5) + np.log(i + 0.5)) - bottom) / (top - bottom)
            return centre
        cell: Array = (np.minimum(np.floor(u * self.cells), self.cells - 1) + 0.5) / self.cells
        return cell


class Cube:
    """The axes of a space, constants left out."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = dict(space)
        self.axes = tuple(_axis(name, parameter) for name, parameter in space.items() if not constant(parameter))
        self.choices = np.array([axis.choices for axis in self.axes], dtype=np.int64)
        self.owner = np.array([j for j, axis in enumerate(self.axes) for _ in range(axis.choices or 1)], dtype=np.int64)
        """Of each column of `features`, its axis."""

    @property
    def size(self) -> int:
        """How many axes vary."""
        return len(self.axes)

    def coordinates(self, params: Params) -> list[float]:
        """The point of the cube that stands for `params`, discrete values at the centres of their cells."""
        return [axis.coordinate(params[axis.name]) if axis.name in params else 0.5 for axis in self.axes]

    def snapped(self, points: Array) -> Array:
        """Points [m, size] inside the cube, each discrete coordinate at the centre of its cell."""
        inside = np.clip(points, 0.0, _BELOW_ONE)
        for j, axis in enumerate(self.axes):
            if axis.cells:
                inside[:, j] = axis.snapped(inside[:, j])
        return inside

    def params(self, u: Sequence[float] | Array) -> dict[str, Value]:
        """The parameters at a point of the cube, constants included."""
        inside = {axis.name: float(x) for axis, x in zip(self.axes, u, strict=True)}
        return {name: point(parameter, inside.get(name, 0.5)) for name, parameter in self._space.items()}

    def features(self, points: Array) -> Array:
        """Points [m, size] as rows whose squared distance is that of numbers, plus 1 for every choice that differs."""
        if not self.choices.any():
            return points
        columns = []
        for j, axis in enumerate(self.axes):
            if axis.choices:
                chosen = np.minimum((points[:, j] * axis.choices).astype(np.int64), axis.choices - 1)
                columns.append(np.eye(axis.choices)[chosen] * math.sqrt(0.5))
            else:
                columns.append(points[:, j : j + 1])
        return np.concatenate(columns, axis=1)


def constant(parameter: Parameter) -> bool:
    """Whether the parameter has one value only."""
    return len(parameter.choices) == 1 if isinstance(parameter, Categorical) else _cells(parameter) == 1


def _axis(name: str, parameter: Parameter) -> Axis:
    if isinstance(parameter, Categorical):
        return Axis(name, parameter, len(parameter.choices), len(parameter.choices))
    cells = _cells(parameter)
    coarse = cells <= _FINE or (isinstance(parameter, Int) and parameter.log)  # on a log axis the low ones' cells are large
    return Axis(name, parameter, 0, cells if coarse else 0)


def _cells(parameter: Float | Int) -> int:
    if parameter.low == parameter.high:
        return 1
    if isinstance(parameter, Int):
        return (parameter.high - parameter.low) // (parameter.step or 1) + 1
    return 0 if parameter.step is None or parameter.log else round((parameter.high - parameter.low) / parameter.step) + 1
