"""Where checkpoints and logs lie: a folder of this machine, one that other machines write too, or objects. Knows no trial."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PosixPath
from typing import assert_never

from hpo import objects
from hpo.objects import ObjectPath, StorageError


class SharedPath(PosixPath):
    """A path that other machines write too, through NFS perhaps, whose clients remember for up to a minute what a folder holds."""


@contextmanager
def shared_errors(path: Place, *, absence: bool = False) -> Iterator[None]:
    """What a shared folder refuses is a StorageError: no trial's fault. That something is not there is one with `absence` only."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        is_answer = isinstance(error, FileNotFoundError | NotADirectoryError) and not absence
        if isinstance(path, SharedPath) and not is_answer:
            raise StorageError(error.errno, error.strerror, error.filename or str(path)) from error
        raise


Place = Path | ObjectPath


LOOK = ".look-"
OWN = re.compile(r"(.+)-[0-9a-f]{12}")  # what a study's own folder in a storage is called


def place(text: str) -> Place:
    """What `str` made text of: a URI's objects, or else a folder."""
    return ObjectPath(text) if "://" in text else Path(text)


def is_elsewhere(place: Place) -> bool:
    """Whether what is there takes a network to reach, and other machines write it, too."""
    return isinstance(place, ObjectPath | SharedPath)


def refuse_unmounted(folder: Path) -> None:
    """StorageError where a shared folder would have to be made that is a study's own, or above it.

    These are made when a study is launched. Where they are missing the storage is not mounted, and what we made would lie on this
    machine's own disk.
    """
    if isinstance(folder, SharedPath) and OWN.fullmatch(folder.name):
        message = f"is not there; is the storage mounted on {os.uname().nodename}?"
        raise StorageError(errno.ENOENT, message, str(folder))


def names(folder: Place) -> list[str]:
    """The names of what is in a folder by now, in order; none where there is no folder."""
    match folder:
        case ObjectPath():
            return objects.names(folder)
        case Path():
            if isinstance(folder, SharedPath):
                ask_anew(folder)
            try:
                with shared_errors(folder):
                    return sorted(name for name in os.listdir(folder) if not name.startswith(LOOK))  # noqa: PTH208  # no paths are wanted
            except (FileNotFoundError, NotADirectoryError):
                return []
        case _:
            assert_never(folder)


def ask_anew(folder: Path) -> None:
    """Change the folder, so that a client of NFS asks the server what is in it: what it remembers may be a minute old."""
    look = folder / f"{LOOK}{os.uname().nodename}"  # always the same, so that one that a crash left is removed by the next
    for change in (look.mkdir, look.rmdir):
        with suppress(OSError):  # there is no such folder yet, it may only be read, or another thread looks, too
            change()


def remove(paths: Iterable[Place]) -> None:
    """Remove what is at these paths of one kind, and below them where they are folders of a disk; what is not there is no error."""
    found = list(paths)
    objects.remove(path for path in found if isinstance(path, ObjectPath))
    for path in found:
        if isinstance(path, Path):
            shutil.rmtree(path, ignore_errors=True)


def remove_all(folder: Place) -> None:
    """Remove a folder with all that is below it; OSError where that is refused."""
    match folder:
        case ObjectPath():
            objects.remove(objects.below(folder))
        case Path():
            with suppress(FileNotFoundError):
                shutil.rmtree(folder)
        case _:
            assert_never(folder)


def move(source: Place, target: Place) -> None:
    """Have all that is at `source`, and below it, at `target`, which is free. Objects are copied first, each, and then removed."""
    match source, target:
        case ObjectPath(), ObjectPath():
            found = [source] if objects.size(source) is not None else objects.below(source)
            for path in found:
                objects.copy(path, ObjectPath(target.uri + path.uri.removeprefix(source.uri)))
            objects.remove(found)
        case Path(), Path():
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
        case _:
            raise ValueError(f"{source} and {target} are places of two kinds")
