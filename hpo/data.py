"""Where datasets lie, whether they are whole, and the seal on test parts.

What they are says `hpo/datasets_known.py`; fetching is `hpo/fetch.py`'s.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import importlib.util
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.datasets_known import DATASETS, Archive, Dataset, File
from hpo.problem import hint

__all__ = [
    "DATASETS", "Archive", "DataError", "Dataset", "File", "Found", "SealedError",
    "archive", "cache", "dataset", "find", "get", "locate", "members", "read", "refuse_if_sealed", "seal", "sealed", "ways",
]  # fmt: skip

REPLACE = "replace it, or remove it and run `hpo data get {name}`"


class DataError(Exception):
    """A dataset is missing, damaged or cannot be fetched; the message says what to do."""


class SealedError(PermissionError):
    """Somebody opened a test file where only training and validation data may be read."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where a dataset is: its folder, what kind of place that is, and which optional files are not there."""

    folder: Path
    place: str
    lacks: tuple[File, ...] = ()


def dataset(name: str) -> Dataset:
    """The dataset called `name`; raises DataError with the known names."""
    try:
        return DATASETS[name]
    except KeyError:
        raise DataError(f"dataset {name!r} is not known; {hint(name, DATASETS)}") from None


def cache() -> Path:
    """The user's cache folder for datasets: `$XDG_CACHE_HOME/hpo` (if absolute), else `~/.cache/hpo`. It need not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path("~/.cache").expanduser()) / "hpo"


def find(name: str) -> Found | None:
    """Where the dataset is on this machine, by the names of its files alone; None where it is not.

    Looks in `$HPO_DATA/<name>`, the user's cache, and where Debian's package puts it.
    """
    wanted = dataset(name)
    for place, folder in _places(wanted):
        if _holds(folder, wanted):
            lacks = tuple(file for file in wanted.files if file.optional and not kept_as(folder, file).is_file())
            return Found(folder, place, lacks)
    return None


def locate(name: str) -> Path:
    """The folder that `find` finds; raises DataError, naming all ways to get the dataset, where there is none."""
    found = find(name)
    if found is None:
        raise DataError(f"{name} is not on this machine. {ways(dataset(name))}")
    return found.folder


def _holds(folder: Path, wanted: Dataset) -> bool:
    """Whether the folder has all that the dataset needs, none of it opened."""
    if wanted.archives:
        return any((folder / kept.name).is_file() for kept in wanted.archives)
    return all(kept_as(folder, file).is_file() for file in wanted.files if not file.optional)


def kept_as(folder: Path, file: File) -> Path:
    """The place of a file in a dataset's folder."""
    return folder / f"{file.name}.gz"


def _places(wanted: Dataset) -> Iterator[tuple[str, Path]]:
    if wanted.python_package:
        spec = importlib.util.find_spec(wanted.python_package)
        if spec and spec.submodule_search_locations:
            yield "Python package", Path(spec.submodule_search_locations[0])
        return
    if os.environ.get("HPO_DATA"):
        yield "$HPO_DATA", Path(os.environ["HPO_DATA"]) / wanted.name
    yield "cache", cache() / wanted.name
    if wanted.package_folder:
        yield "system package", Path(wanted.package_folder)


def ways(wanted: Dataset) -> str:
    """How to get the dataset, one way a line."""
    if wanted.python_package:
        return f"It comes with the Python package {wanted.python_package}: install that."
    own = cache() / wanted.name
    listed = [
        f"set HPO_DATA to a folder that has it under {wanted.name}/ (now {os.environ.get('HPO_DATA') or 'not set'})",
        f"run `hpo data get {wanted.name}` (fetches it into {own})",
    ]
    if wanted.package:
        listed.append(f"on Debian or Ubuntu, `apt-get install {wanted.package}` (puts it into {wanted.package_folder})")
    if wanted.archives:
        names = " or ".join(kept.name for kept in wanted.archives)
        address = next(kept.address for kept in wanted.archives if kept.address)
        listed.append(f"put {names} into either, the last from {address}")
    elif wanted.bundle:
        listed.append(f"download {wanted.bundle.address} into {own}, then run `hpo data get {wanted.name}`, which unpacks it")
    else:
        listed.append(f"download {', '.join(f'{file.name}.gz' for file in wanted.files)} from {wanted.address} into either")
    return "Ways to get it:" + "".join(f"\n  - {way}" for way in listed)


def get(name: str, progress: bool = False) -> Path:
    """The folder of the dataset, every file checked; fetched into the user's cache where this machine does not have it.

    With `progress` a bar is drawn on stderr if that is a terminal. Raises DataError, naming what was tried and all
    ways to get the dataset, and for a damaged file outside the cache (in the cache it is fetched again).
    """
    wanted, own, found = dataset(name), cache() / name, find(name)
    if found is not None:
        try:
            _check(found, wanted)
            return found.folder
        except DataError:
            if found.folder != own:
                raise
    if wanted.python_package:
        return locate(name)
    from hpo.fetch import fetch

    try:
        return fetch(wanted, own, progress and sys.stderr.isatty())
    except DataError as error:
        raise DataError(f"{name} could not be fetched: {error}\n{ways(wanted)}") from error


def _check(found: Found, wanted: Dataset) -> None:
    if wanted.archives:
        archive(wanted.name)
    for file in wanted.files:
        if file not in found.lacks:
            read(found.folder, file)


def read(folder: Path, file: File) -> bytes:
    """The uncompressed content of one file; raises DataError with path, expected and found if it is not the original."""
    path = kept_as(folder, file)
    if file.optional and not path.is_file():
        raise DataError(f"{path} is not there ({file.optional}): put it there, uncompressed {file.size} bytes with sha256 {file.sha256}")
    try:
        return content(path, file)
    except DataError as error:
        raise DataError(f"{error}; {REPLACE.format(name=folder.name)}") from error


def content(path: Path, file: File) -> bytes:
    """As `read`, of a file at any place."""
    try:
        with gzip.open(path) as source:
            found = source.read(file.size + 1)
    except SealedError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: expected gzip data of {file.size} bytes uncompressed, found: {error}") from error
    checksum = hashlib.sha256(found).hexdigest()
    if checksum != file.sha256:
        size = f"{len(found)} bytes" if len(found) <= file.size else f"more than {file.size} bytes"
        raise DataError(f"{path}: expected {file.size} bytes with sha256 {file.sha256}, found {size} with {checksum}")
    return found


def archive(name: str) -> Path:
    """Whichever archive of the dataset is on this machine, checked; raises DataError with path, expected and found."""
    from hpo.archives import check

    folder, wanted = locate(name), dataset(name)
    kept = next(kept for kept in wanted.archives if (folder / kept.name).is_file())
    try:
        check(kept, folder / kept.name)
    except DataError as error:
        raise DataError(f"{error}; {REPLACE.format(name=name)}") from error
    return folder / kept.name


def members(path: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Name and content of those files in an archive whose names are `wanted`, in its order, one in memory at a time.

    Raises DataError for a damaged archive, and SealedError, in a sealed process, where a sealed member is wanted.
    """
    from hpo.archives import members as streamed

    sealed = tuple(kept.sealed for known in DATASETS.values() for kept in known.archives if kept.sealed)
    for name, member in streamed(path, wanted):
        if name.startswith(sealed):
            refuse_if_sealed(f"{path}: {name}")
        yield name, member


_sealed: list[str] = []  # names of test files while this process is sealed; an audit hook can never be taken out again


def seal() -> None:
    """From now on nothing in this process can open, rename or link a test file of a known dataset: it raises SealedError.

    What counts is the file's name, wherever it lies; of an archive, which holds all parts, the name of the member. It is
    a guard against mistakes, not against a hostile trainer: child processes that do not fork and libraries that open
    files from C are not seen.
    """
    if not _sealed:
        _sealed.extend(file.name for known in DATASETS.values() for file in known.files if file.sealed)
        _watch()


@contextmanager
def sealed() -> Iterator[None]:
    """Within, this process is sealed; afterwards only if it was before."""
    before = list(_sealed)
    seal()
    try:
        yield
    finally:
        _sealed[:] = before


@functools.cache
def _watch() -> None:
    sys.addaudithook(_refuse_sealed)


def refuse_if_sealed(what: str) -> None:
    """Raise SealedError if this process is sealed; who reads a test part says here `what` it is, before it does."""
    if _sealed:
        raise SealedError(f"{what}: the test split is sealed; trials see training and validation data only")


def _refuse_sealed(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in ("open", "os.rename", "os.link", "os.symlink"):
        return
    path = arguments[0]
    if not _sealed or not isinstance(path, str | bytes | os.PathLike):
        return
    if os.fsdecode(path).rpartition("/")[2].startswith(tuple(_sealed)):
        refuse_if_sealed(os.fsdecode(path))
