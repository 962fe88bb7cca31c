"""Samplers that look at no results: grid, sweep, random and quasi-random. Pure functions of seed and trial number."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from typing import assert_never

from hpo.space import Categorical, Float, Int, Parameter, Params, SearchSpace, Value, at, grid_points, grid_size
from hpo.trial import Trial, trial_seed

_FEW = 9  # a discrete parameter with at most so many values is swept over all of them
_SPREAD = 5  # of any other, so many


class GridSampler:
    """Every point of the grid once, then nothing; `grid_size(space)` says how many that is.

    In order the last parameter varies fastest; with `shuffle_seed` the order is a permutation drawn by that seed. No
    list of points is kept, so a grid may have millions.
    """

    remembers = False

    def __init__(self, space: SearchSpace, shuffle_seed: int | None = None) -> None:
        self._axes = {name: _axis(parameter) for name, parameter in space.items()}
        self._size, self._shuffle_seed = grid_size(space), shuffle_seed

    def suggest(self, number: int, trials: Sequence[Trial]) -> Params | None:  # noqa: ARG002
        if number >= self._size:
            return None
        index = number if self._shuffle_seed is None else shuffled(number, self._size, self._shuffle_seed)
        values: dict[str, Value] = {}
        for name, axis in reversed(self._axes.items()):
            index, digit = divmod(index, len(axis))
            values[name] = axis[digit]
        return {name: values[name] for name in self._axes}


def shuffled(index: int, size: int, seed: int) -> int:
    """The place of `index` in a permutation of range(size) that `seed` draws; in constant time and memory.

    A Feistel network permutes the numbers of an even count of bits, at most four times `size`; what lands beyond the range
    is sent through it again. Source: Black and Rogaway 2002, "Ciphers with Arbitrary Finite Domains" (cycle walking).
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for turn in range(8):
            mixed = hashlib.blake2b(f"grid/{seed}/{turn}/{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(mixed) & mask)
        index = left << half | right
        if index < size:
            return index


def _axis(parameter: Parameter) -> Sequence[Value]:
    if isinstance(parameter, Int) and parameter.grid is None:
        return range(parameter.low, parameter.high + 1, parameter.step or 1)  # not a tuple: there may be 2^53
    return grid_points(parameter)


class SweepSampler:
    """One parameter at a time: the defaults, then each parameter in order over its `sweep_points`, the others at their default.

    A parameter without a default stands at its `centre`. No point comes twice; after the last there is none.
    """

    remembers = False

    def __init__(self, space: SearchSpace, defaults: Params) -> None:
        self._centre = {name: defaults.get(name, centre(parameter)) for name, parameter in space.items()}
        self._steps = _sweep_steps(space, self._centre)

    def suggest(self, number: int, trials: Sequence[Trial]) -> Params | None:  # noqa: ARG002
        if number > len(self._steps):
            return None
        return self._centre | dict(self._steps[number - 1 : number])


def sweep_size(space: SearchSpace, defaults: Params) -> int:
    """How many points a sweep around `defaults` has, the defaults themselves among them."""
    return 1 + len(_sweep_steps(space, {name: defaults.get(name, centre(parameter)) for name, parameter in space.items()}))


def _sweep_steps(space: SearchSpace, around: Params) -> list[tuple[str, Value]]:
    return [(name, v) for name, parameter in space.items() for v in sweep_points(parameter) if not _same(v, around[name])]


def _same(a: Value, b: Value) -> bool:
    if isinstance(a, bool) or isinstance(b, bool) or isinstance(a, str) or isinstance(b, str):
        return type(a) is type(b) and a == b
    return math.isclose(a, b, rel_tol=1e-9)  # 3 * 0.1 is 0.3


def centre(parameter: Parameter) -> Value:
    """The middle of the parameter's own axis (the lower of two); the first choice of a categorical."""
    match parameter:
        case Categorical(choices):
            return choices[0]
        case Float(low, high, log=True):
            return _between(low, high, 0.5, log=True)
        case Float(low, high, step=None):
            return _between(low, high, 0.5, log=False)
        case Int(low, high, log=True):
            return round(_between(low, high, 0.5, log=True))
        case Float() | Int():
            return _on_steps(parameter, (_steps(parameter) - 1) // 2)
        case _:
            assert_never(parameter)


def sweep_points(parameter: Parameter) -> tuple[Value, ...]:
    """The values that a sweep visits, in order.

    `grid` where given; every choice of a categorical; every value of a discrete parameter that has at most nine; else
    five evenly spaced on the parameter's own axis, both bounds among them.
    """
    if parameter.grid is not None:
        return parameter.grid
    match parameter:
        case Categorical(choices):
            return choices
        case (Float(step=None) | Float(log=True)) as axis:
            points: list[Value] = [_between(axis.low, axis.high, i / (_SPREAD - 1), log=axis.log) for i in range(_SPREAD)]
        case (Float() | Int()) as steps if (count := _steps(steps)) <= _FEW:
            points = [_on_steps(steps, i) for i in range(count)]
        case Int(low, high, log=True):
            points = [round(_between(low, high, i / (_SPREAD - 1), log=True)) for i in range(_SPREAD)]
        case Float() | Int():
            points = [_on_steps(parameter, (i * (_steps(parameter) - 1) + 2) // (_SPREAD - 1)) for i in range(_SPREAD)]
        case _:
            assert_never(parameter)
    return tuple(dict.fromkeys(points))


def _steps(parameter: Float | Int) -> int:
    if isinstance(parameter, Int):
        return (parameter.high - parameter.low) // (parameter.step or 1) + 1
    return round((parameter.high - parameter.low) / (parameter.step or 1)) + 1


def _on_steps(parameter: Float | Int, index: int) -> int | float:
    return min(parameter.low + index * (parameter.step or 1), parameter.high)


def _between(low: float, high: float, u: float, *, log: bool) -> float:
    if u in (0, 1):
        return high if u else low  # exactly: logarithm and back may lie beyond the bound
    if log:
        return min(max(math.exp(math.log(low) + u * (math.log(high) - math.log(low))), low), high)
    return min(low + u * (high - low), high)


class RandomSampler:
    """Independent uniform draws, on a log axis where the parameter says so."""

    remembers = False

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space, self._seed = space, seed

    def suggest(self, number: int, trials: Sequence[Trial]) -> Params:  # noqa: ARG002
        draw = random.Random(f"random/{trial_seed(self._seed, number)}")
        return at(self._space, [draw.random() for _ in self._space])


class QuasiRandomSampler:
    """A scrambled Sobol sequence: covers the space more evenly than random draws.

    A point costs half a millisecond, the ten thousandth like the first. Source: Owen 1998, "Scrambling Sobol' and
    Niederreiter-Xing points"; SciPy's implementation.
    """

    remembers = False

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self._space, self._seed = space, seed

    def suggest(self, number: int, trials: Sequence[Trial]) -> Params:  # noqa: ARG002
        from scipy.stats import qmc

        sequence = qmc.Sobol(len(self._space), scramble=True, rng=self._seed)
        if number > 0:
            sequence.fast_forward(number)
        return at(self._space, [float(u) for u in sequence.random(1)[0]])

    def prepare(self, trials: Sequence[Trial]) -> None:  # noqa: ARG002
        """Import what makes the points, which takes half a second."""
        from scipy.stats import qmc  # noqa: F401
