"""What is wrong with a file or an option, where, and how to say it. Knows no spec and reads no file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]
LONGEST_SHOWN = 40
MOST_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stood: a file's line and column (from 1), or an option such as `--set a.b=c` (line 0)."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    @classmethod
    def option(cls, name: str, value: object) -> Place:
        """The place of an option's value, as it was typed: `--set a.b=c`."""
        return cls(f"{name} {value if str(value).isprintable() else quoted(str(value))}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake; as text `file:line:column: path: what was found, what is allowed`."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        place = str(Place(self.file, self.line, self.column))
        return ": ".join(part for part in (place, self.path, self.message) if part)


class SpecError(Exception):
    """Fix the file: `problems` holds every mistake that was found, in the file's order, the options' ones last.

    Its text has one line a problem, and of very many the first hundred.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        once = dict.fromkeys(problems)
        self.problems = tuple(sorted(once, key=lambda p: (p.line == 0, p.file, p.line, p.column)))
        lines = [str(problem) for problem in self.problems[:MOST_SHOWN]]
        more = len(self.problems) - len(lines)
        super().__init__("\n".join([*lines, f"... and {more} more"] if more else lines))

    @classmethod
    def at(cls, place: Place, path: str, message: str) -> SpecError:
        """The error of one problem."""
        return cls([Problem(place.file, place.line, place.column, path, message)])


def dotted(path: Path) -> str:
    """The path as people write it: `space.width.grid[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{_key(part)}"
    return text.removeprefix(".")


def _key(key: str) -> str:
    plain = key.isprintable() and 0 < len(key) <= 64 and not set(key) & set(" .:[]'\"`")
    return key if plain else quoted(key)


def quoted(text: str) -> str:
    """The text in quotes, safe to print and not long."""
    return repr(_cut(text))


def shown(value: Any) -> str:
    """What was found, as a few words that are safe to print."""
    match value:
        case None:
            words = "nothing (null)"
        case bool():
            words = "true" if value else "false"
        case str():
            words = f"the text {quoted(value)}"
        case int() | float():
            words = _cut(repr(value))
        case list() | tuple():
            words = "a list"
        case dict():
            words = "a mapping"
        case _:
            words = f"a {type(value).__name__}"
    return words


def bare(value: float) -> str:
    """A number as people write it: 0 and not 0.0."""
    return repr(value).removesuffix(".0")


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "…"


def hint(found: object, allowed: Iterable[str]) -> str:
    """`did you mean ...?` where one of `allowed` is close to `found`, else the list of what is allowed."""
    names = [name if name.isprintable() else quoted(name) for name in allowed]
    close: list[str] = []
    if isinstance(found, str) and len(found) <= 64:
        started = [name for name in names if len(found) >= 3 and name.startswith(found)]
        close = started[:3] or difflib.get_close_matches(found, names, n=1)
    if close:
        return f"did you mean {' or '.join(f'`{name}`' for name in close)}?"
    return f"allowed: {', '.join(names)}" if names else "nothing is allowed here"
