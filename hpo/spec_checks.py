"""Which values of a spec contradict each other: ranges, steps, points, and one section against another. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, assert_never

from hpo.asha import rungs
from hpo.problem import Path, bare, shown
from hpo.rules import CLOSEST_RUNG
from hpo.space import Categorical, Float, Int, Parameter, SearchSpace, Value, grid_size

if TYPE_CHECKING:
    from hpo.sections import Asha, Budget, SamplerChoice

Mistakes = Iterator[tuple[Path, str]]
MAX_VALUES = 2**53


def parameter_mistakes(parameter: Parameter) -> Mistakes:
    """What is wrong with one parameter of the space, by paths below it."""
    match parameter:
        case Categorical(choices):
            if not choices:
                yield ("choices",), "found an empty list; at least one choice is needed"
            yield from _repeated("choices", choices)
            yield from _point_mistakes(parameter)
        case Float() | Int():
            yield from _range_mistakes(parameter)
            if parameter.low <= parameter.high:
                yield from _point_mistakes(parameter)
        case _:
            assert_never(parameter)


def _range_mistakes(parameter: Float | Int) -> Mistakes:
    low, high, step = parameter.low, parameter.high, parameter.step
    if low > high:
        yield ("low",), f"{bare(low)} is above high ({bare(high)}); low may be at most high"
    elif not math.isfinite(high - low):
        yield ("high",), f"{bare(low)} to {bare(high)} is wider than a floating-point number can hold"
    if parameter.log and low <= 0:
        yield (
            ("low",),
            f"{bare(low)} has no logarithm; with `log: true`, low must be {'at least 1' if parameter.type == 'int' else 'above 0'}",
        )
    if step is None:
        return
    if parameter.log:
        yield ("step",), "a log axis has no steps; drop `step` or `log: true`"
    elif step <= 0:
        yield ("step",), f"found {bare(step)}; a step is above 0"
    elif low <= high and math.isfinite(high - low):
        yield from _step_mistakes(low, high, step)


def _step_mistakes(low: float, high: float, step: float) -> Mistakes:
    if (high - low) / step > MAX_VALUES:
        yield ("step",), f"found {bare(step)}; from {bare(low)} to {bare(high)} that makes more than 2^53 values"
    elif not _on_step(high, low, step):
        below = math.floor((high - low) / step)
        fits = [f"{low + count * step:.6g}" for count in (below, below + 1)]
        yield ("step",), f"{bare(step)} does not divide {bare(low)} to {bare(high)}; with it, high may be {' or '.join(fits)}"


def _on_step(value: float, low: float, step: float) -> bool:
    if isinstance(value, int) and isinstance(low, int) and isinstance(step, int):
        return (value - low) % step == 0
    count = (value - low) / step
    return abs(count - round(count)) <= 1e-9 + 1e-15 * abs(count)


def _point_mistakes(parameter: Parameter) -> Mistakes:
    if parameter.grid is None:
        return
    if not parameter.grid:
        yield ("grid",), "found an empty list; give points or drop `grid`"
    yield from _repeated("grid", parameter.grid)
    match parameter:
        case Categorical(choices, points):
            known = {(type(choice), choice) for choice in choices}
            for i, point in enumerate(points or ()):
                if (type(point), point) not in known:
                    yield ("grid", i), f"{shown(point)} is not among the choices"
        case Float() | Int():
            for i, number in enumerate(parameter.grid):
                yield from ((("grid", i), message) for message in off_range(number, parameter))
        case _:
            assert_never(parameter)


def off_range(number: float, parameter: Float | Int) -> Iterator[str]:
    """Why a number is none of the parameter's, if so."""
    low, high, step = parameter.low, parameter.high, parameter.step
    if not low <= number <= high:
        yield f"{shown(number)} is outside the range {bare(low)} to {bare(high)}"
    elif step and step > 0 and not parameter.log and not _on_step(number, low, step):
        yield f"{shown(number)} is not on a step; points are {bare(low)} plus multiples of {bare(step)}"


def _repeated(key: str, values: Sequence[Value]) -> Mistakes:
    first: dict[Value, int] = {}
    for i, value in enumerate(values):
        if value in first:
            yield (key, i), f"{shown(value)} equals {key}[{first[value]}] ({shown(values[first[value]])}); every value stands once"
        first.setdefault(value, i)


def grid_mistakes(space: SearchSpace, budget: Budget | None) -> Mistakes:
    """Why the grid sampler cannot run over this space; without a budget its size is left alone."""
    without = [name for name, parameter in space.items() if isinstance(parameter, Float) and parameter.grid is None]
    for name in without:
        yield ("space", name), "a float has no points of its own; the grid sampler needs `grid: [...]` here"
    if budget and not without and (size := grid_size(space)) > budget.trials:
        allowed = f"allow {size}, give fewer points, or use another sampler"
        yield ("budget", "trials"), f"the grid has {size} points and the budget {budget.trials} trials; {allowed}"


def pruner_mistakes(pruner: Asha, sampler: str, max_epochs: int | None) -> Mistakes:
    """What a pruner cannot do: with this sampler, or in so few epochs (None: not known)."""
    if sampler == "ladders" and pruner.rule == "stop":
        yield ("pruner", "rule"), "the ladders sampler compares what waits at the rungs; use `rule: promote`, or another sampler"
    if max_epochs is not None:
        yield from epoch_mistakes(pruner.grace_epochs, max_epochs)
        most = len(rungs(pruner.grace_epochs, pruner.factor, max_epochs, CLOSEST_RUNG if pruner.rule == "promote" else 1.0)) + 1
        if pruner.brackets > most >= 1:
            why = f"each bracket skips one rung more, and with {most - 1} rungs at most {most} differ"
            yield ("pruner", "brackets"), f"found {pruner.brackets}; {why}"


def sampler_mistakes(sampler: SamplerChoice, start: Sequence[object]) -> Mistakes:
    """What a sampler cannot do: with first points where it visits points of its own, each once; in an order that it has none of."""
    if sampler.name == "grid" and start:
        yield ("start",), "a grid has points of its own, each visited once; drop `start`, or use another sampler"
    if sampler.name == "sweep" and len(start) > 1:
        yield ("start", 1), "a sweep goes around one point, the first of `start`; give one"
    if sampler.shuffle and sampler.name != "grid":
        yield ("sampler", "shuffle"), f"is for a grid; {sampler.name} has no order to shuffle"


def epoch_mistakes(grace_epochs: int, max_epochs: int) -> Mistakes:
    """Whether a trial can reach its first rung."""
    if grace_epochs > max_epochs:
        yield ("pruner", "grace_epochs"), f"{grace_epochs} is above max_epochs ({max_epochs}); no trial would ever reach a rung"
