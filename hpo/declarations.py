"""Which trainers exist and what they take: built-ins, installed plug-ins, and a function's signature.

Built-ins and plug-ins declare themselves in a file `hpo_trainers.yaml` of their top-level package; it is found and read
without importing the package, so that naming a trainer costs neither torch nor anyone's code.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from hpo.arguments import DEFAULT_MAX_EPOCHS, Argument, TrainerDeclaration, check_space
from hpo.document import Document
from hpo.problem import Path, Place, Problem, SpecError, quoted, shown
from hpo.schema import Reader, keys_of
from hpo.trial import Direction
from hpo.yaml_source import read_document

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "DEFAULT_MAX_EPOCHS",
    "Argument",
    "TrainerDeclaration",
    "builtins",
    "check_space",
    "declaration_from_signature",
    "declared",
    "find_declared",
    "plugin_problems",
]

GROUP = "hpo.trainers"
RESOURCE = "hpo_trainers.yaml"
_MAX_EPOCHS = Argument("int", low=1, default=DEFAULT_MAX_EPOCHS, summary="epochs of a trial that nothing stops")
_ANNOTATIONS: dict[Any, Any] = {float: "float", int: "int", str: "text", bool: "bool"}


def declared() -> dict[str, TrainerDeclaration]:
    """Every trainer that can be named in a spec, by name; a broken plug-in is left out (see `plugin_problems`)."""
    return {**builtins(), **_plugins()[0]}


def plugin_problems() -> tuple[Problem, ...]:
    """What is wrong with installed plug-ins, placed at their declaration file or at their entry point."""
    return tuple(problem for error in _plugins()[1].values() for problem in error.problems)


def find_declared(name: str) -> TrainerDeclaration | None:
    """The trainer of that name, None if there is none; plug-ins are looked at only if no built-in has the name.

    Raises SpecError if the plug-in of that name is broken.
    """
    ours = builtins()
    if name in ours:
        return ours[name]
    plugins, broken = _plugins()
    if name in broken and name not in plugins:
        raise broken[name]
    return plugins.get(name)


def builtins() -> dict[str, TrainerDeclaration]:
    """The trainers that come with hpo. SpecError if their file is broken."""
    file = _resource("trainers")
    document = read_document(file)
    found = {name: _declaration(document, name) for name in _names(document)}
    if document.problems:
        raise SpecError(document.problems)
    return {name: trainer for name, trainer in found.items() if trainer}


def _plugins() -> tuple[dict[str, TrainerDeclaration], dict[str, SpecError]]:
    """Installed plug-ins by name: those that can be used, and why others cannot."""
    from importlib.metadata import entry_points

    found: dict[str, TrainerDeclaration] = {}
    broken: dict[str, SpecError] = {}
    taken = set(builtins())
    for point in sorted(set(entry_points(group=GROUP)), key=lambda point: (point.name, point.value)):
        place = Place(f"plug-in {point.dist.name if point.dist else point.value}")
        if point.name in taken:
            broken[point.name] = SpecError.at(place, point.name, "another trainer has this name; that one is used")
            continue
        taken.add(point.name)
        try:
            found[point.name] = _plugin(point)
        except LookupError as error:
            broken[point.name] = SpecError.at(place, point.name, str(error))
        except SpecError as error:
            broken[point.name] = SpecError(dataclasses.replace(p, file=f"{place}: {p.file}") for p in error.problems)
    return found, broken


def _plugin(point: EntryPoint) -> TrainerDeclaration:
    """The declaration of an entry point; LookupError or SpecError says what is wrong with it."""
    module, colon, function = point.value.partition(":")
    if not (colon and function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise LookupError(f"its entry point is {shown(point.value)}; `package.module:function` is needed")
    document = read_document(_resource(module.split(".", maxsplit=1)[0]))
    if point.name in _names(document):
        trainer = _declaration(document, point.name, point.value)
        if trainer and not document.problems:
            return trainer
    else:
        document.complain((), f"declares no trainer {quoted(point.name)}, which the entry point names")
    raise SpecError(document.problems)


def _resource(package: str) -> FilePath:
    """The declaration file of an installed top-level package, found without importing it; LookupError says what is missing."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise LookupError(f"its package {package!r} is not installed")
    for folder in spec.submodule_search_locations or ():
        if (FilePath(folder) / RESOURCE).is_file():
            return FilePath(folder) / RESOURCE
    raise LookupError(f"its package {package!r} has no file {RESOURCE}, where a trainer is declared")


def _names(document: Document) -> list[str]:
    if isinstance(document.data, dict):
        return list(document.data)
    document.reject((), f"found {shown(document.data)}; a mapping from trainer names to declarations is needed")
    return []


def _declaration(document: Document, name: str, entry: str | None = None) -> TrainerDeclaration | None:
    reader = Reader(document)
    raw = reader.mapping((name,))
    if raw is None:
        return None
    reader.known_keys((name,), [key for key in keys_of(TrainerDeclaration) if key != "name"])
    for key, empty in (("summary", ""), ("metrics", {}), ("hyperparameters", {}), ("settings", {})):
        raw.setdefault(key, empty)
    trainer = TrainerDeclaration(
        name,
        entry or reader.read(str, (name, "entry")) or "",
        reader.read(str, (name, "summary")) or "",
        reader.read(dict[str, Direction], (name, "metrics")) or {},
        _arguments(reader, (name, "hyperparameters")),
        {"max_epochs": _MAX_EPOCHS, **_arguments(reader, (name, "settings"))},
    )
    reader.report(((name, *path), message) for path, message in _contradictions(trainer))
    return trainer


def _arguments(reader: Reader, path: Path) -> dict[str, Argument]:
    raw = reader.mapping(path) or {}
    for argument in raw.values():
        if isinstance(argument, dict):
            argument["required"] = "default" not in argument
    read = {name: reader.read(Argument, (*path, name)) for name in raw}
    return {name: argument for name, argument in read.items() if argument is not None}


def _contradictions(trainer: TrainerDeclaration) -> Iterator[tuple[Path, str]]:
    for group, arguments in (("hyperparameters", trainer.hyperparameters), ("settings", trainer.settings)):
        for name, argument in arguments.items():
            path: Path = (group, name)
            if not name.isidentifier():
                yield path, "is not the name of a Python argument"
            if argument.type == "categorical" and not argument.choices:
                yield path, "a categorical needs choices"
            elif argument.default is not None and not argument.takes(argument.default):
                yield (*path, "default"), f"found {shown(argument.default)}, outside what is declared: {argument.legal}"
    for name in trainer.hyperparameters.keys() & trainer.settings.keys():
        yield ("settings", name), "is declared as a hyperparameter too; keep one"
    max_epochs = trainer.settings["max_epochs"]
    if max_epochs.type != "int" or max_epochs.default is None or not max_epochs.takes(1) or max_epochs.takes(0):
        yield ("settings", "max_epochs"), "is the number of epochs: {type: int, low: 1, default: ...} is needed"


def declaration_from_signature(function: Callable[..., Any]) -> TrainerDeclaration:
    """What a trainer function takes, read from `def train(trial, *, learning_rate: float, width: int = 64)`.

    Its keyword-only arguments are hyperparameters without a range, required where they have no default; the setting
    `max_epochs` is 10 unless the spec gives it. SpecError says what is wrong with the function.
    """
    entry = f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', repr(function))}"
    document = Document(f"--trainer {entry}")
    arguments = _signature_arguments(function, document)
    if document.problems:
        raise SpecError(document.problems)
    return TrainerDeclaration(entry, entry, (inspect.getdoc(function) or "").partition("\n")[0], {}, arguments, {"max_epochs": _MAX_EPOCHS})


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
        elif parameter.annotation not in _ANNOTATIONS:
            document.complain((parameter.name,), "needs one of the annotations float, int, str, bool")
        else:
            arguments[parameter.name] = _signature_argument(parameter, document)
    return arguments


def _signature_argument(parameter: inspect.Parameter, document: Document) -> Argument:
    required = parameter.default is inspect.Parameter.empty
    default = None if required else parameter.default
    argument = Argument(_ANNOTATIONS[parameter.annotation], default=default, required=required)
    if not required and not argument.takes(default):
        document.complain((parameter.name,), f"has the default {default!r}; {argument.legal} is needed")
    return argument
