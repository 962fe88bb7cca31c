"""Plain data into the frozen dataclasses of the edge, with every mistake said in words. The only place that knows pydantic.

A dataclass is its own schema: fields without a default are required, others are refused, nothing is coerced. A field
that ends in `_s` holds seconds; its key in the file has no `_s` and its value a unit (`time: 30m`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from hpo.document import Document
from hpo.durations import seconds
from hpo.problem import Path, bare, hint, shown
from hpo.scalars import quotes_hint

LARGEST_INT = 2**53  # beyond it neighbours become equal as floats, in samplers and in JSON readers


def key_of(field: str) -> str:
    """A dataclass field's key in a file."""
    return field.removesuffix("_s")


def keys_of(*kinds: Any) -> list[str]:
    """The keys that these dataclasses have in a file, each once."""
    return list(dict.fromkeys(key_of(f.name) for kind in kinds for f in dataclasses.fields(kind)))


def _text_without_edges(text: str) -> str:
    if not text.strip() or text != text.strip() or not text.isprintable():
        raise ValueError(f"found {shown(text)}; printable text without blanks around it is needed")
    return text


Seconds = Annotated[float, BeforeValidator(seconds)]
AtLeastOne = Annotated[int, Field(ge=1)]
AtLeastTwo = Annotated[int, Field(ge=2)]
Scalar: Any = bool | int | float | str | None
Rule = AfterValidator  # `Annotated[Text, Rule(function)]`: the function returns the value or raises ValueError with the message
NotNegative = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Text = Annotated[str, AfterValidator(_text_without_edges)]

_CONFIG = ConfigDict(strict=True, extra="forbid", alias_generator=key_of)
_NEEDED = {
    "float_type": "a number",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "dataclass_type": "a mapping",
}


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    # The tuple carries the config to stdlib dataclasses, which take none of their own.
    return TypeAdapter(tuple[kind], config=_CONFIG)


class Reader:
    """Reads parts of one document into types; what is wrong goes to the document's problems."""

    def __init__(self, document: Document, homes: Mapping[str, str] | None = None) -> None:
        """`homes` says for a key where it belongs: `under budget`."""
        self.document, self.homes = document, homes or {}

    def report(self, mistakes: Iterable[tuple[Path, str]], *, on_keys: bool = False) -> None:
        """Complain about each mistake; later reports leave the values alone that this one was about."""
        found = list(mistakes)
        for path, message in found:
            self.document.complain(path, message, on_key=on_keys)
        self.document.broken.update(path for path, _ in found)

    def sound(self, path: Path) -> bool:
        """Whether everything at `path` and below could be read."""
        return not any(broken[: len(path)] == path for broken in self.document.broken)

    def read(self, kind: Any, path: Path) -> Any:
        """The value at `path` as `kind`, None if anything in it is wrong."""
        found = self.document.at(path)
        self._reject_numbers(found, path)
        try:
            value = _adapter(kind).validate_json(json.dumps([found]))[0]
        except ValidationError as error:
            self._report(error, kind, path)
            return None
        return value if self.sound(path) else None

    def read_one_of(self, kinds: Mapping[str, Any], tag: str, path: Path) -> Any:
        """The value at `path` as the kind that its key `tag` names, None if anything in it is wrong."""
        found = self.mapping(path)
        if found is None:
            return None
        if tag not in found:
            self.document.complain((*path, tag), f"missing; allowed: {', '.join(kinds)}")
        elif not isinstance(found[tag], str) or found[tag] not in kinds:
            self.document.reject((*path, tag), f"found {shown(found[tag])}; {hint(found[tag], kinds)}")
        else:
            return self.read(kinds[found[tag]], path)
        self.known_keys(path, keys_of(*kinds.values()))
        return None

    def mapping(self, path: Path) -> dict[str, Any] | None:
        """The mapping at `path`, None if something else is there."""
        found = self.document.at(path)
        if isinstance(found, dict):
            return found
        self.document.reject(path, f"found {shown(found)}; a mapping is needed")
        return None

    def known_keys(self, path: Path, allowed: Iterable[str], required: Iterable[str] = ()) -> None:
        """Complain about keys at `path` that are not `allowed`, and about `required` ones that are absent."""
        found = self.document.at(path)
        for key in found:
            if key not in allowed:
                self._unknown_key((*path, key), allowed)
        for key in required:
            if key not in found:
                self.document.complain((*path, key), "missing; it has no default")

    def _unknown_key(self, path: Path, allowed: Iterable[str]) -> None:
        home = self.homes.get(str(path[-1]), "")
        if {f"under {path[0]}", f"under {path[0]}.<hyperparameter>"} & set(home.split(" or ")):
            home = ""
        message = f"misplaced key; it belongs {home}" if home else f"unknown key; {hint(path[-1], allowed)}"
        self.document.complain(path, message, on_key=True)

    def _reject_numbers(self, found: Any, path: Path) -> None:
        match found:
            case dict():
                for key, value in found.items():
                    self._reject_numbers(value, (*path, key))
            case list():
                for i, value in enumerate(found):
                    self._reject_numbers(value, (*path, i))
            case float() if not math.isfinite(found):
                self.document.reject(path, f"found {shown(found)}; a finite number is needed")
            case int() if abs(found) > LARGEST_INT:
                self.document.reject(path, f"found {shown(found)}; whole numbers go to 2^53")

    def _report(self, error: ValidationError, kind: Any, path: Path) -> None:
        grouped: dict[Path, list[Any]] = {}
        for detail in error.errors(include_url=False):
            grouped.setdefault(self._path_of(detail, path), []).append(detail)
        for place, details in grouped.items():
            match details[0]["type"]:
                case "unexpected_keyword_argument":
                    self._unknown_key(place, keys_of(kind))
                case "missing":
                    self.document.complain(place, "missing; it has no default")
                case _:
                    self.document.reject(place, _message(details))

    def _path_of(self, detail: Any, path: Path) -> Path:
        """Where in the document: pydantic's own path also names the members of a union."""
        for part in detail["loc"][1:]:
            below = self.document.at(path)
            inside = part in below if isinstance(below, dict) else isinstance(below, list) and isinstance(part, int)
            if inside or detail["type"] == "missing":
                path = (*path, part)
        return path


def _message(details: list[Any]) -> str:
    found, ctx = details[0]["input"], details[0].get("ctx", {})
    match details[0]["type"]:
        case "value_error":
            return str(ctx["error"])
        case "greater_than_equal":
            return f"found {shown(found)}; at least {ctx['ge']} is needed"
        case "greater_than":
            return f"found {shown(found)}; a number above {bare(ctx['gt'])} is needed"
    choices = [name for detail in details for name in re.findall(r"'([^']*)'", detail.get("ctx", {}).get("expected", ""))]
    needed = [_NEEDED[detail["type"]] for detail in details if detail["type"] in _NEEDED]
    if not needed:
        return f"found {shown(found)}; {hint(found, choices)}"
    if set(needed) >= {"a number", "text", "true or false"}:
        needed = ["a single value (number, text, true or false)"]
    return f"found {shown(found)}; {' or '.join([*needed, *(f'`{c}`' for c in choices)])} is needed{_quotes(found, needed)}"


def _quotes(found: Any, needed: list[str]) -> str:
    if needed == ["text"] and isinstance(found, (bool, int, float)):
        return ": write it in quotes"
    return quotes_hint(found) if "text" not in needed else ""
