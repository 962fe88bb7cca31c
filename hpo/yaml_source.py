"""YAML text to plain data that remembers where every key and value stood. Knows no spec, and runs nothing a file names.

Scalars follow the core schema of YAML 1.2 (`1e-4` is a number, `010` is 10, `on` is text). Tags, anchors, aliases and
repeated keys are mistakes; size, depth and number of nodes are bounded, so that no file costs more than milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path as FilePath
from typing import Any, NoReturn

import yaml

from hpo.document import Document
from hpo.problem import Path, Place, Problem, SpecError, dotted, quoted, shown
from hpo.scalars import resolve

MAX_BYTES = 256 * 1024
MAX_DEPTH = 16
MAX_NODES = 10_000

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def read_document(file: str | FilePath) -> Document:
    """The document of a file; SpecError if it cannot be read as one YAML document at all."""
    place = Place(str(file))
    try:
        with FilePath(file).open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SpecError.at(place, "", "not found; give the path of a YAML file") from None
    except IsADirectoryError:
        raise SpecError.at(place, "", "is a directory; give the path of a YAML file") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise SpecError.at(place, "", f"cannot be read ({reason}); give the path of a YAML file") from None
    return parse_document(content, str(file))


def parse_document(text: str | bytes, file: str) -> Document:
    """The document of a text; mistakes that leave the rest readable are in its `problems`, others raise SpecError."""
    if len(text) > MAX_BYTES:
        raise SpecError.at(Place(file), "", f"is longer than {MAX_BYTES // 1024} KiB; no spec is")
    text = _decoded(text, file) if isinstance(text, bytes) else text
    text = text.removeprefix("\ufeff")
    document = Document(file)
    composer = _Composer(document, lambda line, column: Place(file, line, column))
    composer.refuse_unprintable(text)
    document.data = composer.document(text)
    if document.data is None:
        composer.fail(Place(file, 1, 1), (), "is empty; a mapping is needed")
    return document


def override(document: Document, assignment: str) -> None:
    """Apply `a.b=c` to the document, `c` read as YAML; its mistakes are placed at `--set a.b=c`."""
    place = Place.option("--set", assignment)
    key, equals, text = assignment.partition("=")
    parts = tuple(key.strip().split("."))
    if not equals or not all(parts):
        document.problems.append(Problem(place.file, 0, 0, "", "is not KEY=VALUE, such as `--set budget.trials=20`"))
        return
    value = Document(place.file)
    try:
        composer = _Composer(value, lambda _line, _column: place)
        composer.refuse_unprintable(text)
        value.data = composer.document(text)
    except SpecError as error:
        document.problems.extend(error.problems)
        return
    document.problems.extend(value.problems)
    if isinstance(document.data, dict) and not document.put(parts, value.data, place, value.values):
        document.problems.append(Problem(place.file, 0, 0, key, "cannot be set: one of the keys before its last holds no mapping"))


def _decoded(content: bytes, file: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        before = content[: error.start].decode()
        found = f"is not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start}"
        raise SpecError.at(Place(file, *_position(before)), "", f"{found}; save the file as UTF-8") from None


def _position(before: str) -> tuple[int, int]:
    """Line and column, from 1, of what follows `before`."""
    return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


class _Composer:
    """Builds data from the parser's events, so that a bound stops the reading and not only the result."""

    def __init__(self, document: Document, place: Callable[[int, int], Place]) -> None:
        self.into, self.place, self.nodes = document, place, 0
        self.events: Iterator[Any] = iter(())

    def fail(self, place: Place, path: Path, message: str) -> NoReturn:
        """Give up on the document: what was found before, and this."""
        raise SpecError([*self.into.problems, Problem(place.file, place.line, place.column, dotted(path), message)])

    def _at(self, mark: Any) -> Place:
        return self.place(mark.line + 1, mark.column + 1)

    def refuse_unprintable(self, text: str) -> None:
        found = _UNPRINTABLE.search(text)
        if found:
            place = self.place(*_position(text[: found.start()]))
            self.fail(place, (), f"found the character U+{ord(found[0]):04X}; text without control characters is needed")

    def document(self, text: str) -> Any:
        """The data of the one document in `text`; None if it is empty."""
        self.events = yaml.parse(text, Loader=_Loader)
        try:
            next(self.events)
            if isinstance(next(self.events), yaml.StreamEndEvent):
                return None
            data = self._node(next(self.events), ())
            next(self.events)
            after = next(self.events)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self.fail(self._at(mark), (), _syntax(error, text))
        except yaml.YAMLError as error:
            self.fail(Place(self.into.file, 1, 1), (), f"is not YAML: {error}")
        if not isinstance(after, yaml.StreamEndEvent):
            self._note(after, (), "a second document starts here; a file holds one")
        return data

    def _note(self, event: Any, path: Path, message: str) -> None:
        place = self._at(event.start_mark)
        self.into.problems.append(Problem(place.file, place.line, place.column, dotted(path), message))

    def _reject(self, event: Any, path: Path, message: str) -> None:
        self._note(event, path, message)
        self.into.broken.add(path)

    def _node(self, event: Any, path: Path) -> Any:
        place = self._at(event.start_mark)
        self.into.values.setdefault(path, place)
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self.fail(place, path, f"more than {MAX_NODES} values; no spec has so many")
        if len(path) > MAX_DEPTH:
            self.fail(place, path, f"nested deeper than {MAX_DEPTH} levels; no spec is")
        if isinstance(event, yaml.AliasEvent):
            self._reject(event, path, f"found the alias *{event.anchor}; aliases are not allowed, write the value out")
            return None
        self._refuse_extras(event, path)
        match event:
            case yaml.MappingStartEvent():
                return self._mapping(path)
            case yaml.SequenceStartEvent():
                return self._sequence(path)
        return self._scalar(event, path)

    def _refuse_extras(self, event: Any, path: Path) -> None:
        if event.anchor is not None:
            self._note(event, path, f"found the anchor &{event.anchor}; anchors are not allowed, write each value where it is used")
        if event.tag is not None:
            self._reject(event, path, f"found the tag {quoted(event.tag)}; tags are not allowed, write the plain value")

    def _scalar(self, event: Any, path: Path) -> Any:
        text: str = event.value
        if found := _UNPRINTABLE.search(text):  # written as an escape: "\x1b"
            self._reject(event, path, f"found the character U+{ord(found[0]):04X}; text without control characters is needed")
            return _UNPRINTABLE.sub("\ufffd", text)
        if not event.implicit[0]:
            return text
        try:
            return resolve(text)
        except ValueError as error:
            self._reject(event, path, str(error))
            return text

    def _sequence(self, path: Path) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            items.append(self._node(event, (*path, len(items))))
        return items

    def _mapping(self, path: Path) -> dict[str, Any]:
        items: dict[str, Any] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._key(event, path)
            below = (*path, key)
            if key in items:
                first = self.into.keys[below]
                self._note(event, below, f"duplicate key; it is already given at {first.line}:{first.column}")
            self.into.keys.setdefault(below, self._at(event.start_mark))
            value = self._node(next(self.events), below)
            items.setdefault(key, value)
        return items

    def _key(self, event: Any, path: Path) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            self.fail(self._at(event.start_mark), path, "found a list, mapping or alias as a key; a key is text")
        self._refuse_extras(event, path)
        key = self._scalar(event, path)
        if not isinstance(key, str):
            self._note(event, path, f"found {shown(key)} as a key; a key is text")
        return str(event.value)


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark
    reason = str(error.problem)
    lines = text.splitlines()
    if mark and mark.line < len(lines) and lines[mark.line][mark.column : mark.column + 1] == "\t":
        reason = "a tab cannot indent; use spaces"
    context = f" ({error.context} from {error.context_mark.line + 1}:{error.context_mark.column + 1})" if error.context_mark else ""
    return f"is not YAML: {reason}{context}"
