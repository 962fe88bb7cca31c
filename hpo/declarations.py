"""Which trainers exist and what they take: built-ins and installed plug-ins (for a function, see `signatures`).

Both declare themselves in a file `hpo_trainers.yaml` of their top-level package; it is found and read without importing
the package, so that naming a trainer costs neither torch nor anyone's code. A name that starts with `_` is a group of
metrics, hyperparameters and settings that trainers include.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from hpo.arguments import DEFAULT_MAX_EPOCHS, Argument, TrainerDeclaration, check_space
from hpo.document import Document
from hpo.problem import Path, Place, Problem, SpecError, hint, quoted, shown
from hpo.schema import Reader, keys_of
from hpo.signatures import MAX_EPOCHS, declaration_from_signature
from hpo.space import Parameter
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
    "contradictions",
    "declaration_from_signature",
    "declared",
    "find_declared",
    "plugin_mistakes",
    "plugin_problems",
]

GROUP = "hpo.trainers"
RESOURCE = "hpo_trainers.yaml"
OURS = "trainers"  # the package of the built-in ones
PARTS = ("metrics", "hyperparameters", "settings")


def contradictions(
    settings: Mapping[str, Any], space: Mapping[str, Parameter | None], declaration: TrainerDeclaration
) -> Iterator[tuple[Path, str]]:
    """What a trainer's check finds in settings and ranges that are legal each by itself, if it is one of ours."""
    if is_ours(declaration.check):
        yield from _checked(settings, space, declaration)


def plugin_mistakes(
    settings: Mapping[str, Any], space: Mapping[str, Parameter | None], declaration: TrainerDeclaration
) -> Iterator[tuple[Path, str]]:
    """As `contradictions`, of a plug-in's own check. It is others' code: for those who import the trainer next, not to read a spec."""
    if not is_ours(declaration.check):
        yield from _checked(settings, space, declaration)


def _checked(
    settings: Mapping[str, Any], space: Mapping[str, Parameter | None], declaration: TrainerDeclaration
) -> Iterator[tuple[Path, str]]:
    if declaration.check:
        module, _, function = declaration.check.partition(":")
        yield from getattr(importlib.import_module(module), function)(declaration.name, settings, space)


def is_ours(entry: str) -> bool:
    """Whether code at this place comes with hpo: whoever imports it runs nobody else's."""
    return entry.partition(".")[0] == OURS


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
    file = _resource(OURS)
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
        return [name for name in document.data if not _is_group(name)]
    document.reject((), f"found {shown(document.data)}; a mapping from trainer names to declarations is needed")
    return []


def _is_group(name: str) -> bool:
    return name.startswith("_")


def _declaration(document: Document, name: str, entry: str | None = None) -> TrainerDeclaration | None:
    reader = Reader(document)
    raw = reader.mapping((name,))
    if raw is None:
        return None
    reader.known_keys((name,), ["includes", *(key for key in keys_of(TrainerDeclaration) if key != "name")])
    groups = _groups(reader, (name, "includes")) if "includes" in raw else []
    trainer = TrainerDeclaration(
        name,
        entry or reader.read(str, (name, "entry")) or "",
        (reader.read(str, (name, "summary")) or "") if "summary" in raw else "",
        _merged(reader, name, groups, "metrics"),
        _merged(reader, name, groups, "hyperparameters"),
        {"max_epochs": MAX_EPOCHS, **_merged(reader, name, groups, "settings")},
        (reader.read(str, (name, "check")) or "") if "check" in raw else "",
        takes_any=bool("takes_any" in raw and reader.read(bool, (name, "takes_any"))),
    )
    reader.report(((name, *path), message) for path, message in _contradictions(trainer))
    return trainer


def _groups(reader: Reader, path: Path) -> list[str]:
    """The groups that a trainer includes and that exist."""
    named: tuple[str, ...] = reader.read(tuple[str, ...], path) or ()
    existing = [name for name in reader.document.data if _is_group(name)]
    for i, group in enumerate(named):
        if group not in existing:
            reader.document.reject((*path, i), f"no group is called {quoted(group)}; {hint(group, existing)}")
        elif group in named[:i]:
            reader.document.reject((*path, i), f"{quoted(group)} is included already; keep one")
    found = [group for group in dict.fromkeys(named) if group in existing and reader.mapping((group,)) is not None]
    for group in found:
        reader.known_keys((group,), PARTS)
    return found


def _merged(reader: Reader, name: str, groups: list[str], part: str) -> dict[str, Any]:
    """The metrics, hyperparameters or settings of a trainer: its own and those of its groups, each name once."""
    merged: dict[str, Any] = {}
    homes: dict[str, str] = {}
    for home in (name, *groups):
        for key, value in _part(reader, (home, part)).items():
            if key in homes:
                where = f"{name} itself" if homes[key] == name else f"{homes[key]}, which {name} includes too,"
                reader.document.complain((home, part, key), f"{where} declares it as well; keep one", on_key=True)
            homes.setdefault(key, home)
            merged.setdefault(key, value)
    return merged


def _part(reader: Reader, path: Path) -> dict[str, Any]:
    if path[-1] not in reader.document.at(path[:-1]):
        return {}
    if path[-1] == "metrics":
        return reader.read(dict[str, Direction], path) or {}
    raw = reader.mapping(path) or {}
    for argument in raw.values():
        if isinstance(argument, dict):
            argument["required"] = "default" not in argument
    read = {name: reader.read(Argument, (*path, name)) for name in raw}
    found = {name: argument for name, argument in read.items() if argument is not None}
    for name, argument in found.items():
        reader.report(((*path, name, *below), message) for below, message in _argument_mistakes(name, argument))
    return found


def _argument_mistakes(name: str, argument: Argument) -> Iterator[tuple[Path, str]]:
    if not name.isidentifier():
        yield (), "is not the name of a Python argument"
    if argument.type == "categorical" and not argument.choices:
        yield (), "a categorical needs choices"
    elif mistake := _pattern_mistake(argument):
        yield mistake
    elif argument.default is not None and not argument.takes(argument.default):
        yield ("default",), f"found {shown(argument.default)}, outside what is declared: {argument.legal}"


def _pattern_mistake(argument: Argument) -> tuple[Path, str] | None:
    """What is wrong with how a text is described; an example is needed, since nobody reads regular expressions."""
    if argument.pattern is None and argument.example is None:
        return None
    if argument.type != "text":
        return ("pattern",), f"is for text, not for {argument.type}; drop it and `example`"
    if argument.pattern is None or argument.example is None:
        return (), "`pattern` and `example` come together; give both"
    try:
        fits = argument.takes(argument.example)
    except (re.error, RecursionError, OverflowError) as error:
        return ("pattern",), f"is no regular expression ({error})"
    return None if fits else (("example",), f"found {shown(argument.example)}, which does not match the pattern")


def _contradictions(trainer: TrainerDeclaration) -> Iterator[tuple[Path, str]]:
    for name in trainer.hyperparameters.keys() & trainer.settings.keys():
        yield ("settings", name), "is declared as a hyperparameter too; keep one"
    max_epochs = trainer.settings["max_epochs"]
    if max_epochs.type != "int" or max_epochs.default is None or not max_epochs.takes(1) or max_epochs.takes(0):
        yield ("settings", "max_epochs"), "is the number of epochs: {type: int, low: 1, default: ...} is needed"
