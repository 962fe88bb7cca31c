"""What a trainer function takes, read from its signature; files of declarations are `declarations`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from hpo.arguments import DEFAULT_MAX_EPOCHS, Argument, TrainerDeclaration
from hpo.document import Document
from hpo.problem import SpecError

MAX_EPOCHS = Argument("int", low=1, default=DEFAULT_MAX_EPOCHS, summary="epochs of a trial that nothing stops")
_TYPES: dict[Any, Literal["float", "int", "text", "bool"]] = {float: "float", int: "int", str: "text", bool: "bool"}


def declaration_from_signature(function: Callable[..., Any]) -> TrainerDeclaration:
    """What a trainer function takes, read from `def train(trial, *, learning_rate: float, width: int = 64)`.

    Its keyword-only arguments are hyperparameters without a range, required where they have no default. A
    `Literal["a", "b"]` is a categorical, and `int | None = None` may be null. The setting `max_epochs` is 10 unless the
    spec gives it. SpecError says what is wrong with the function.
    """
    entry = f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', repr(function))}"
    document = Document(f"--trainer {entry}")
    arguments = _signature_arguments(function, document)
    if document.problems:
        raise SpecError(document.problems)
    return TrainerDeclaration(entry, entry, (inspect.getdoc(function) or "").partition("\n")[0], {}, arguments, {"max_epochs": MAX_EPOCHS})


def _signature_arguments(function: Callable[..., Any], document: Document) -> dict[str, Argument]:
    if not inspect.isgeneratorfunction(function):
        document.complain((), "is not a generator function; a trainer yields a mapping of metrics after every epoch")
        return {}
    try:
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    except Exception as error:  # annotations are the user's code: whatever they raise is theirs to mend
        document.complain((), f"has annotations that cannot be read ({type(error).__name__}: {error})")
        return {}
    if not parameters or parameters[0].kind not in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
        document.complain((), "takes no trial; its first argument is the trial: def train(trial, *, learning_rate: float)")
    arguments = {}
    for parameter in parameters[1:] if parameters else []:
        if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
            document.complain((str(parameter),), "is not keyword-only; write `*` after the trial and name every hyperparameter")
        elif argument := _signature_argument(parameter, document):
            arguments[parameter.name] = argument
    return arguments


def _signature_argument(parameter: inspect.Parameter, document: Document) -> Argument | None:
    """The argument, None if its annotation is none that a value of a spec could have."""
    kind, nullable = _without_none(parameter.annotation)
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    is_plain = isinstance(kind, type) and kind in _TYPES  # what is no class, as an Annotated, need not have a hash
    if not is_plain and not (choices and all(isinstance(choice, (str, int)) for choice in choices)):
        document.complain(
            (parameter.name,), "needs one of the annotations float, int, str, bool, Literal[...], or one of these with `| None`"
        )
        return None
    required = parameter.default is inspect.Parameter.empty
    default = None if required else parameter.default
    argument = Argument("categorical" if choices else _TYPES[kind], choices=choices, default=default, required=required)
    if nullable and (required or default is not None):
        document.complain((parameter.name,), "may be None, so None has to be its default")
    elif isinstance(default, float) and math.isinf(default):
        document.complain(
            (parameter.name,), f"has the default {default!r}; a finite number is needed, or `float | None = None` for no limit"
        )
    elif not (required or nullable or argument.takes(default)):
        document.complain((parameter.name,), f"has the default {default!r}; {argument.legal} is needed")
    return argument


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """`X` of `X | None`, and whether there was a None."""
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else ()
    if NoneType not in members or len(members) != 2:
        return annotation, False
    return next(member for member in members if member is not NoneType), True
