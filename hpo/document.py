"""A document as plain data that knows where every key and value stood, and what is wrong with it so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hpo.problem import Path, Place, Problem, dotted


@dataclass(slots=True)
class Document:
    """Plain data (`data`: dicts, lists and scalars), the place of every key and value by path, and what is wrong so far.

    `broken` holds the paths of values that could not be read as what they should be; one complaint about each is enough.
    """

    file: str
    data: Any = None
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    broken: set[Path] = field(default_factory=set)

    def at(self, path: Path) -> Any:
        """The value at `path`, or None where there is none."""
        found = self.data
        for part in path:
            if isinstance(part, int):
                found = found[part] if isinstance(found, list) and part < len(found) else None
            else:
                found = found.get(part) if isinstance(found, dict) else None
        return found

    def complain(self, path: Path, message: str, *, on_key: bool = False) -> None:
        """Note a mistake at the value (or the key) of `path`; what is absent is placed at the key that should hold it."""
        if path in self.broken and not on_key:
            return
        place = self._place(path, on_key=on_key)
        self.problems.append(Problem(place.file, place.line, place.column, dotted(path), message))

    def reject(self, path: Path, message: str) -> None:
        """Complain about the value at `path`, and about it no more."""
        self.complain(path, message)
        self.broken.add(path)

    def _place(self, path: Path, *, on_key: bool) -> Place:
        first, second = (self.keys, self.values) if on_key else (self.values, self.keys)
        while path and path not in first and path not in second:
            path, first, second = path[:-1], self.keys, self.values
        return first.get(path) or second.get(path) or Place(self.file)

    def put(self, path: Path, value: Any, place: Place, values: dict[Path, Place] | None = None) -> bool:
        """Set the value at `path`, making mappings on the way; False if something on the way is no mapping."""
        parent = self.data
        for part in path[:-1]:
            if not isinstance(parent, dict):
                return False
            parent = parent.setdefault(part, {})
        if not isinstance(parent, dict):
            return False
        parent[path[-1]] = value
        for places in (self.keys, self.values):
            for old in [old for old in places if old[: len(path)] == path]:
                del places[old]
        for depth in range(1, len(path) + 1):
            self.keys.setdefault(path[:depth], place)
        self.values |= {path: place, **{path + below: at for below, at in (values or {}).items()}}
        return True
