"""The first points of a search: the trainer's defaults and the user's guesses, each a point of the space. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, assert_never

from hpo.problem import Path, bare, hint, shown
from hpo.scalars import quotes_hint
from hpo.space import Categorical, Float, Int, Parameter, Params, SearchSpace, Value, point, position
from hpo.spec_checks import off_range

if TYPE_CHECKING:
    from hpo.arguments import TrainerDeclaration

Mistakes = Iterator[tuple[Path, str]]
ALMOST_ONE = 1 - 2**-53
DEFAULTS = "defaults"  # the entry of `start` that stands for the trainer's own


def resolved(start: Sequence[Any], space: SearchSpace, declaration: TrainerDeclaration | None) -> tuple[Params, ...]:
    """The points of `start`, what they leave open filled in with the trainer's defaults, in the space's order; each once."""
    points: list[Params] = []
    for entry in start:
        given: Mapping[str, Value] = {} if entry == DEFAULTS else entry
        filled = {**_defaults(space, declaration), **given}
        point = {name: _of_type(parameter, filled[name]) for name, parameter in space.items() if name in filled}
        if point not in points:
            points.append(point)
    return tuple(points)


def sweep_centre(space: SearchSpace, declaration: TrainerDeclaration | None) -> Params:
    """The trainer's defaults as far as they are points of the space, which a sweep goes around unless it is told otherwise."""
    return {name: _of_type(space[name], value) for name, value in _defaults(space, declaration).items() if not off_axis(space[name], value)}


def start_mistakes(start: Sequence[Any], space: SearchSpace, declaration: TrainerDeclaration | None) -> Mistakes:
    """Entries that are no points of the space; what a trainer that is not known yet may fill in is left alone."""
    for i, entry in enumerate(start):
        path: Path = ("start", i)
        if not isinstance(entry, dict) and entry != DEFAULTS:
            yield path, f"found {shown(entry)}; a mapping from hyperparameters to values, or `{DEFAULTS}`, is needed"
            continue
        given = {} if entry == DEFAULTS else entry
        for name, value in given.items():
            if name not in space:
                yield (*path, name), f"is not searched; {hint(name, space)}"
            elif mistake := off_axis(space[name], value):
                yield (*path, name), mistake
        if declaration is not None:
            yield from _open_mistakes(path, entry, space, declaration)


def _open_mistakes(path: Path, entry: Any, space: SearchSpace, declaration: TrainerDeclaration) -> Mistakes:
    """What the trainer's defaults cannot fill in."""
    given, defaults = ({} if entry == DEFAULTS else entry), _defaults(space, declaration)
    for name in (name for name in space if name not in given):
        if name not in defaults:
            yield path, f"has no {name}, and {declaration.name} has no default for it; give it a value here"
        elif mistake := off_axis(space[name], defaults[name]):
            yield path, f"{declaration.name}'s default of {name} is no point of the space: {mistake}; give it a value here"


def _defaults(space: SearchSpace, declaration: TrainerDeclaration | None) -> dict[str, Value]:
    """The trainer's defaults of what is searched; a number that is none of the parameter's becomes the nearest that is."""
    arguments = declaration.arguments if declaration else {}
    found = {name: arguments[name].default for name in space if name in arguments}
    return {name: _nearest(space[name], default) for name, default in found.items() if default is not None}


def _nearest(parameter: Parameter, value: Value) -> Value:
    if isinstance(parameter, Categorical) or isinstance(value, bool | str):
        return value
    inside = min(max(value, parameter.low), parameter.high)
    if isinstance(parameter, Float) and parameter.step is None:
        return float(inside)
    return point(parameter, min(position(parameter, round(inside) if isinstance(parameter, Int) else inside), ALMOST_ONE))


def off_axis(parameter: Parameter, value: Any) -> str:
    """Why `value` is none of the parameter's; empty if it is one."""
    match parameter:
        case Categorical(choices):
            fits = any(type(value) is type(choice) and value == choice for choice in choices)
            return "" if fits else f"{shown(value)} is not among the choices; {hint(value, map(str, choices))}"
        case Int() if isinstance(value, bool) or not isinstance(value, int):
            needed = f"a whole number from {bare(parameter.low)} to {bare(parameter.high)} is needed"
            return f"found {shown(value)}; {needed}{quotes_hint(value)}"
        case Float() if isinstance(value, bool) or not isinstance(value, int | float):
            return f"found {shown(value)}; a number from {bare(parameter.low)} to {bare(parameter.high)} is needed{quotes_hint(value)}"
        case Float() | Int():
            return next(off_range(value, parameter), "")
        case _:
            assert_never(parameter)


def _of_type(parameter: Parameter, value: Value) -> Value:
    return float(value) if isinstance(parameter, Float) and not isinstance(value, str) else value
