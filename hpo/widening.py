"""By how much a range may be widened beyond an edge: what the trainer takes is the limit. Pure, but for reading declarations."""

from __future__ import annotations

import math

from hpo.arguments import Argument
from hpo.declarations import find_declared
from hpo.problem import SpecError
from hpo.space import Categorical, Float, Int, Parameter
from hpo.spec import Spec

SHARE = 0.25  # of the range, on its own axis, that is added


def declared_argument(spec: Spec, name: str) -> Argument | None:
    """What the trainer declares of a hyperparameter; None where it is not known: a function, one not installed, one that takes any."""
    try:
        declaration = find_declared(spec.trainer.name)
    except SpecError:
        return None
    return declaration.hyperparameters.get(name) if declaration else None


def widened(parameter: Parameter, upper: bool, argument: Argument | None) -> float | None:
    """A bound a quarter of the range further out, rounded and legal; None where the range ends where the legal values do.

    What is not declared keeps its sign: a range of positive numbers is not widened to zero or below, since few trainers mean that.
    """
    if isinstance(parameter, Categorical):
        return None
    edge = parameter.high if upper else parameter.low
    bound = _legal(_further(parameter, upper), edge, upper, argument)
    if isinstance(parameter, Int):
        bound = math.floor(bound) if upper else math.ceil(bound)
    if parameter.step is not None:
        bound = _on_step(parameter, edge, bound, upper)
    is_further = bound > edge if upper else bound < edge
    fits = (not parameter.log or bound > 0) and (argument is None or argument.takes(bound))
    return bound if is_further and fits else None


def _further(parameter: Float | Int, upper: bool) -> float:
    low, high = parameter.low, parameter.high
    if parameter.log:
        factor = (high / low) ** SHARE
        return _rounded(high * factor, 1) if upper else _rounded(low / factor, 1)
    least = parameter.step or (1 if isinstance(parameter, Int) else 0)
    added = max((high - low) * SHARE, least)
    bound = high + added if upper else low - added
    return bound if least else _rounded(bound, 2)


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")


def _legal(bound: float, edge: float, upper: bool, argument: Argument | None) -> float:
    if upper:
        limit = argument.high if argument else None
        return bound if limit is None else min(bound, limit)
    if argument is None:
        return max(bound, 0) if edge >= 0 else bound
    if argument.low is not None:
        return max(bound, argument.low)
    return edge if argument.above is not None and bound <= argument.above else bound


def _on_step(parameter: Float | Int, edge: float, bound: float, upper: bool) -> float:
    """The farthest value on the parameter's steps that is no farther than `bound`."""
    assert parameter.step is not None
    steps = math.floor(abs(bound - edge) / parameter.step + 1e-9)
    return edge + (steps if upper else -steps) * parameter.step
