"""Whether all that hpo reads and writes in a study's folder lies in it. Looks at names and kinds of files, opens none.

Somebody else's folder may hold a link in the place of a log or of the lock, and what is written there would go into a file of the
user's. What a trainer keeps in its trial's folder under names of its own is its own business.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

_ROOMS = re.compile(r"trials|finals|dropped-[0-9]+")
_OURS = re.compile(r"(?:damaged-)?(?:best|last)(?:-.*)?|[a-z]+(?:-.*)?\.log(?:\..*)?")  # in a trial's folder


def way_out(study: Path) -> Path | None:
    """The first thing in a study's folder, among those that hpo uses, that is a link out of it, or neither file nor folder."""
    root = study.resolve()
    return next((Path(entry.path) for entry in _used(study) if _leads_out(entry, root)), None)


def _used(study: Path) -> Iterator[os.DirEntry[str]]:
    for entry in _entries(study):
        yield entry
        if entry.is_dir() and _ROOMS.fullmatch(entry.name):
            for trial in _trials(entry):
                yield trial
                for own in _entries(trial):
                    if _OURS.fullmatch(own.name):
                        yield own
                        yield from _below(own)
        elif entry.is_dir():
            yield from _below(entry)


def _trials(room: os.DirEntry[str]) -> Iterator[os.DirEntry[str]]:
    for entry in _entries(room):
        yield entry
        if _ROOMS.fullmatch(entry.name):  # dropped-3/trials/00001
            yield from _trials(entry)


def _below(folder: os.DirEntry[str]) -> Iterator[os.DirEntry[str]]:
    for entry in _entries(folder):
        yield entry
        yield from _below(entry)


def _entries(folder: Path | os.DirEntry[str]) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing where that is none, or a link."""
    if folder.is_symlink() and isinstance(folder, os.DirEntry):
        return []
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError:
        return []


def _leads_out(entry: os.DirEntry[str], root: Path) -> bool:
    if entry.is_symlink():
        return not Path(entry.path).resolve().is_relative_to(root)
    try:
        kind = entry.stat(follow_symlinks=False).st_mode
    except FileNotFoundError:  # gone this moment: the study runs
        return False
    return not (stat.S_ISREG(kind) or stat.S_ISDIR(kind))
