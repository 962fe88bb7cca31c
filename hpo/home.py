"""The study home: the folder that holds the studies, and their names."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from hpo import lease
from hpo.events import Created
from hpo.journal import FILE_NAME, Journal, JournalExists
from hpo.journal_format import JournalError, decode
from hpo.lease import LeaseHeld, lock_file
from hpo.links import way_out
from hpo.places import Place, SharedPath, is_elsewhere, remove_all
from hpo.problem import hint
from hpo.storage import of_study

UNUSED = {FILE_NAME, lock_file(Path(FILE_NAME)).name}


class HomeError(Exception):
    """This study cannot be found or named so: choose another name."""


class NameTaken(HomeError):
    """There is a study in `folder` already: resume it, or choose another name."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"{folder} exists already; choose another --name, or leave --name out to get a free one")
        self.folder = folder


def study_home() -> Path:
    """$HPO_HOME, or `runs` in the current folder."""
    return Path(os.environ.get("HPO_HOME") or "runs")


def studies(home: Path) -> list[Path]:
    """The folders of all studies in `home`, oldest first; none that is called what a terminal would obey, for no study is."""
    found = [path.parent for path in home.glob(f"*/{FILE_NAME}") if path.is_file() and path.parent.name.isprintable()]
    return sorted(found, key=lambda folder: ((folder / FILE_NAME).stat().st_ctime_ns, folder.name))


def find(home: Path, name: str) -> Path:
    """The folder of the study `name`; HomeError if there is none, or what is in it would have us read or write elsewhere."""
    folder = _named(home, name)
    if found := way_out(folder):
        why = "is a link out of the study's folder, or neither file nor folder; what is written there would go elsewhere"
        raise HomeError(f"{found} {why}: remove it (to keep checkpoints in another place, there is checkpoints.storage)")
    return folder


def _named(home: Path, name: str) -> Path:
    names = [folder.name for folder in studies(home)]
    if name not in names:
        known = hint(name, names) if names else "there are none yet: start one with `hpo launch FILE`"
        raise HomeError(f"no study is called {name!r} in {home}; {known}")
    return home / name


def find_to_delete(home: Path, name: str) -> Path:
    """As `find`, but also an empty folder, which a launch that died at once may have left."""
    empty = [folder for folder in home.glob("*/") if folder.name == name and not any(folder.iterdir())]
    return empty[0] if empty else _named(home, name)


def begin(home: Path, name: str, *, exactly: bool) -> Journal:
    """The empty journal of a new study: `name`, or name-2, name-3 ... where that is taken and not demanded `exactly`.

    Raises NameTaken, HomeError or JournalError. What a launch left that died before its first line is no study.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(home, error) from error
    for attempt in range(1, 10_000):
        folder = home / (name if attempt == 1 else f"{name}-{attempt}")
        if _is_vacant(folder):
            with suppress(LeaseHeld, JournalExists):  # somebody else began it meanwhile
                return Journal.create(folder / FILE_NAME)
        if exactly:
            raise NameTaken(folder)
    raise HomeError(f"{home} holds 9,999 studies called {name}; choose another name")


def _is_vacant(folder: Path) -> bool:
    return not folder.exists() or (folder.is_dir() and {path.name for path in folder.iterdir()} <= UNUSED)


def is_running(folder: Path) -> bool:
    """Whether a process is writing the study's journal now."""
    return lease.is_held(folder / FILE_NAME)


def no_line(folder: Path) -> str:
    """What it means that the journal in `folder` holds no whole line, and what to do."""
    journal = folder / FILE_NAME
    if _is_vacant(folder):
        return f"{journal} holds no whole line: its launch died at once and nothing is lost; launch it again"
    return f"{journal} holds no whole line, but {folder} holds more: its beginning was lost; restore the file from a copy"


def original_of(folder: Path) -> Path | None:
    """The study beside `folder` of which this one is a copy, by its first line; None if it is none."""
    mine = _first_line(folder)
    others = [other for other in studies(folder.parent) if other.name != folder.name]
    return next((other for other in others if mine and _first_line(other) == mine), None)


def _first_line(folder: Path) -> bytes:
    with (folder / FILE_NAME).open("rb") as file:
        return file.readline()


def root_of(folder: Path) -> Place:
    """Where the checkpoints of the study in `folder` are, by the first line of its journal; `folder` where that is no line."""
    with suppress(OSError, ValueError):
        first = decode(_first_line(folder).removesuffix(b"\n"))[0].event
        if isinstance(first, Created):
            return of_study(folder, first)
    return folder


def kept_elsewhere(folder: Path) -> Place | None:
    """Where the checkpoints are that belong to the study in `folder` and are not in it; None if there are none."""
    try:
        root = root_of(folder)
    except JournalError:  # it names no place that may be removed
        return None
    return root if is_elsewhere(root) and original_of(folder) is None else None


def delete(folder: Path) -> list[Place]:
    """Remove a study's folder with its journal, and its checkpoints wherever they are; what was removed. MLflow's record stays.

    Those of a study of which `folder` is a copy are the other's. HomeError while it runs, or where something cannot be removed: the
    journal goes last, so that the same may be done again.
    """
    if is_running(folder):
        raise HomeError(f"study {folder.name} is running; stop it first: `hpo stop {folder.name}`")
    root = kept_elsewhere(folder)
    doomed = [*([root] if root else []), folder]
    for place in doomed:
        try:
            if isinstance(place, SharedPath):
                place.parent.stat()  # what is not mounted now would be there again later
            remove_all(place)
        except OSError as error:
            raise HomeError(f"{place} cannot be removed: {error.strerror}: {error.filename}; it may be somebody else's") from error
    return doomed


def _unusable(home: Path, error: OSError) -> HomeError:
    return HomeError(f"the study home {home} cannot be written: {error.strerror}; set HPO_HOME to a folder that can")
