"""What a trainer declares that it takes, and whether a study's settings and ranges fit that. Pure: no files, no libraries."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, assert_never

from hpo.problem import Path, bare, dotted, hint, quoted, shown
from hpo.scalars import quotes_hint
from hpo.space import Categorical, Float, Int, Parameter, Value
from hpo.trial import Direction

if TYPE_CHECKING:
    from hpo.spec import Spec

Mistakes = Iterator[tuple[Path, str]]
DEFAULT_MAX_EPOCHS = 10  # of a trainer that declares none


@dataclass(frozen=True, slots=True)
class Argument:
    """A keyword of a trainer, hyperparameter or setting: its type, its legal range and its default.

    `low` and `high` are included in the range, `above` is an excluded lower bound. A text matches all of the regular
    expression `pattern`; `example` is one that does, for messages. An argument that is not `required` and whose default
    is None may be null: the trainer then chooses.
    """

    type: Literal["float", "int", "bool", "text", "categorical"]
    low: float | None = None
    above: float | None = None
    high: float | None = None
    choices: tuple[Value, ...] = ()
    pattern: str | None = None
    example: str | None = None
    default: Value | None = None
    required: bool = False
    summary: str = ""

    @property
    def nullable(self) -> bool:
        return not self.required and self.default is None

    @property
    def legal(self) -> str:
        """What it takes, in words: `a number above 0 and at most 10`."""
        kind = {"float": "a number", "int": "a whole number", "bool": "true or false", "text": "text"}
        if self.type == "categorical":
            names = [quoted(choice) if isinstance(choice, str) else shown(choice) for choice in self.choices]
            return f"one of {', '.join([*names, *(['null'] if self.nullable else [])])}"
        if self.low is not None and self.high is not None:
            limits = f" from {bare(self.low)} to {bare(self.high)}"
        else:
            bounds = (("at least", self.low), ("above", self.above), ("at most", self.high))
            limits = ", ".join(f" {words} {bare(bound)}" for words, bound in bounds if bound is not None).replace(",  ", ", ")
        if self.example is not None:
            limits = f" like {self.example}"
        return f"{kind[self.type]}{limits}" + (" or null" if self.nullable else "")

    def takes(self, value: Any) -> bool:
        """Whether `value` has the type and lies in the legal range; NaN never does."""
        match self.type:
            case "categorical":
                return any(type(value) is type(choice) and value == choice for choice in self.choices)
            case "bool":
                return isinstance(value, bool)
            case "text":
                return isinstance(value, str) and (self.pattern is None or re.fullmatch(self.pattern, value) is not None)
            case "float" | "int":
                fitting = isinstance(value, int) or (self.type == "float" and isinstance(value, float))
                return fitting and not isinstance(value, bool) and self._in_range(value)
            case _:
                assert_never(self.type)

    def _in_range(self, value: float) -> bool:
        if self.above is not None and not value > self.above:
            return False
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high) and not math.isnan(value)


@dataclass(frozen=True, slots=True)
class TrainerDeclaration:
    """A trainer as data: where its function is (`pkg.mod:function`), what it takes and which metrics it yields.

    `metrics` is empty where they are not known before the first epoch (a function given by `--trainer`). `check` is the
    function (`pkg.mod:function`, light to import) that finds what contradicts itself among legal values: it is given the
    trainer's name, the settings and the space, and yields (path, message). One that `takes_any` hyperparameter lists none.
    """

    name: str
    entry: str
    summary: str = ""
    metrics: dict[str, Direction] = field(default_factory=dict)
    hyperparameters: dict[str, Argument] = field(default_factory=dict)
    settings: dict[str, Argument] = field(default_factory=dict)
    check: str = ""
    takes_any: bool = False

    @property
    def arguments(self) -> dict[str, Argument]:
        """Hyperparameters and settings together: everything that `trainer.settings` may fix."""
        return {**self.hyperparameters, **self.settings}

    @property
    def max_epochs(self) -> int:
        """The declared default of the setting `max_epochs`, which every trainer has."""
        declared = self.settings.get("max_epochs")
        default = declared.default if declared else None
        return default if isinstance(default, int) else DEFAULT_MAX_EPOCHS


def check_space(spec: Spec, declaration: TrainerDeclaration) -> list[tuple[str, str]]:
    """What in a spec does not fit the trainer, as (path, message); empty if it can be launched."""
    settings, space = spec.trainer.settings, spec.space
    found = [*name_mistakes(settings, space, declaration), *value_mistakes(settings, space, declaration)]
    return [(dotted(path), message) for path, message in found]


def name_mistakes(settings: Collection[str], space: Collection[str], declaration: TrainerDeclaration) -> Mistakes:
    """Names that the trainer does not know, that stand where they may not, or that it needs and are nowhere."""
    hyperparameters, arguments = declaration.hyperparameters, declaration.arguments
    for name in settings:
        if name not in arguments:
            yield ("trainer", "settings", name), f"{declaration.name} has no such setting or hyperparameter; {hint(name, arguments)}"
    for name in space:
        path = ("space", name)
        if name in declaration.settings:
            yield path, "is a setting, not a hyperparameter; fix it in trainer.settings"
        elif name not in hyperparameters and not declaration.takes_any:
            yield path, f"{declaration.name} has no such hyperparameter; {hint(name, hyperparameters)}"
        elif name in settings:
            yield path, "is fixed in trainer.settings and searched here; keep one of the two"
    for name, argument in arguments.items():
        if argument.required and name not in settings and name not in space:
            where = "fix it there" if name in declaration.settings else "fix it there or search it in space"
            yield ("trainer", "settings"), f"{declaration.name} needs {name} ({argument.legal}); {where}"


def value_mistakes(settings: Mapping[str, Any], space: Mapping[str, Parameter | None], declaration: TrainerDeclaration) -> Mistakes:
    """Settings and ranges outside what the trainer takes; a parameter that is None cannot be read and is left alone."""
    arguments = declaration.arguments
    for name, value in settings.items():
        argument = arguments.get(name)
        if argument and not (argument.takes(value) or (value is None and argument.nullable)):
            yield ("trainer", "settings", name), _refusal(name, argument, value)
    for name, parameter in space.items():
        if parameter is not None and name in declaration.hyperparameters:
            found = _range_misfits(name, declaration.hyperparameters[name], parameter)
            yield from ((("space", name, *below), message) for below, message in found)


def _refusal(name: str, argument: Argument, value: Any) -> str:
    choices = [choice for choice in argument.choices if isinstance(choice, str)]
    suggestion = hint(value, choices) if choices else ""
    if suggestion.startswith("did you mean"):
        return f"found {shown(value)}; {suggestion}"
    return f"found {shown(value)}; {name} takes {argument.legal}{_quotes(argument, value)}"


def _quotes(argument: Argument, value: Any) -> str:
    """How to write the value so that the argument takes it, where quotes are what it lacks or has too many."""
    if argument.type != "text":
        return quotes_hint(value)
    return f": write it in quotes, '{value}'" if isinstance(value, (int, float)) and argument.takes(str(value)) else ""


def _range_misfits(name: str, argument: Argument, parameter: Parameter) -> Mistakes:
    match parameter:
        case Categorical(choices):
            for i, choice in enumerate(choices):
                if not argument.takes(choice):
                    yield ("choices", i), _refusal(name, argument, choice)
        case Float() | Int():
            if argument.type not in ("float", parameter.type):
                wanted = "int" if argument.type == "int" else "categorical"
                yield ("type",), f"found {parameter.type}; {name} takes {argument.legal}: use type {wanted}"
                return
            bounds = (("low", parameter.low), ("high", parameter.high))
            legal = f"{name} takes {argument.legal}"
            yield from (((key,), f"found {bare(bound)}; {legal}") for key, bound in bounds if not argument.takes(bound))
        case _:
            assert_never(parameter)
