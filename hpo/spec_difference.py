"""What differs between two specs as plain data, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hpo.problem import Path, dotted, shown


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """One line for each value that differs: `budget.trials: 40 there, 60 here`."""
    old, new = dict(_leaves((), there)), dict(_leaves((), here))
    return [
        f"{dotted(path)}: {_words(old, path)} there, {_words(new, path)} here"
        for path in dict.fromkeys([*old, *new])
        if _words(old, path) != _words(new, path)
    ]


def _leaves(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from _leaves((*path, key), below)
    elif isinstance(value, list | tuple):
        for index, below in enumerate(value):
            yield from _leaves((*path, index), below)
    else:
        yield path, value


def _words(leaves: Mapping[Path, Any], path: Path) -> str:
    return shown(leaves[path]) if path in leaves else "not given"
