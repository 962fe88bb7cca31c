"""Which datasets there are, where their files lie, and the seal on the test files. Fetching is `hpo/fetch.py`'s."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import os
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class DataError(Exception):
    """A dataset is missing, damaged or cannot be fetched; the message says what to do."""


class SealedError(PermissionError):
    """Somebody opened a test file where only training and validation data may be read."""


@dataclass(frozen=True, slots=True)
class File:
    """One file of a dataset, kept as `<name>.gz`; `sha256` and `size` (bytes) are those of the uncompressed content."""

    name: str
    size: int
    sha256: str

    @property
    def sealed(self) -> bool:
        """Whether it belongs to the test split, which no trial may read."""
        return self.name.startswith("t10k-")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset: its files, the official address they lie under, and Debian's package of it."""

    name: str
    files: tuple[File, ...]
    address: str
    licence: str
    package: str | None = None
    package_folder: str | None = None
    python_package: str | None = None  # comes with this one, nothing to fetch


def _idx_files(*sha256s: str) -> tuple[File, ...]:
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    sizes = (47_040_016, 60_008, 7_840_016, 10_008)
    return tuple(File(*file) for file in zip(names, sizes, sha256s, strict=True))


DATASETS: dict[str, Dataset] = {
    "fashion-mnist": Dataset(
        name="fashion-mnist",
        files=_idx_files(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        address="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        licence="MIT",
        package="dataset-fashion-mnist",
        package_folder="/usr/share/datasets/fashion-mnist",
    ),
    "mnist": Dataset(
        name="mnist",
        files=_idx_files(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        address="https://ossci-datasets.s3.amazonaws.com/mnist/",
        licence="CC BY-SA 3.0",
    ),
    "digits": Dataset(
        name="digits",
        files=(),
        address="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        licence="CC BY 4.0",
        python_package="sklearn",
    ),
}


def dataset(name: str) -> Dataset:
    """The dataset called `name`; raises DataError with the known names."""
    try:
        return DATASETS[name]
    except KeyError:
        raise DataError(f"dataset {name!r} is not known; known are {', '.join(DATASETS)}") from None


def cache() -> Path:
    """The user's cache folder for datasets: `$XDG_CACHE_HOME/hpo` (if absolute), else `~/.cache/hpo`. It need not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path("~/.cache").expanduser()) / "hpo"


def locate(name: str) -> Path:
    """The folder that holds every file of the dataset, none of them opened; digits lies in scikit-learn's own.

    Looks in `$HPO_DATA/<name>`, the user's cache, and where Debian's package puts it. Raises DataError, naming all
    ways to get the dataset, where it is in none of them.
    """
    wanted = dataset(name)
    for folder in _places(wanted):
        if _holds(folder, wanted):
            return folder
    raise DataError(f"{name} is not on this machine. {_ways(wanted)}")


def _holds(folder: Path, wanted: Dataset) -> bool:
    return all((folder / f"{file.name}.gz").is_file() for file in wanted.files)


def _places(wanted: Dataset) -> Iterator[Path]:
    if wanted.python_package:
        spec = importlib.util.find_spec(wanted.python_package)
        if spec and spec.submodule_search_locations:
            yield Path(spec.submodule_search_locations[0])
        return
    if os.environ.get("HPO_DATA"):
        yield Path(os.environ["HPO_DATA"]) / wanted.name
    yield cache() / wanted.name
    if wanted.package_folder:
        yield Path(wanted.package_folder)


def _ways(wanted: Dataset) -> str:
    if wanted.python_package:
        return f"It comes with the Python package {wanted.python_package}: install that."
    ways = [
        f"set HPO_DATA to a folder that has it under {wanted.name}/ (now {os.environ.get('HPO_DATA') or 'not set'})",
        f"run `hpo data get {wanted.name}` (fetches it into {cache() / wanted.name})",
        f"download {', '.join(f'{file.name}.gz' for file in wanted.files)} from {wanted.address} into either",
    ]
    if wanted.package:
        ways.insert(2, f"on Debian or Ubuntu, `apt-get install {wanted.package}` (puts it into {wanted.package_folder})")
    return "Ways to get it:" + "".join(f"\n  - {way}" for way in ways)


def get(name: str, progress: bool = False) -> Path:
    """The folder of the dataset, every file checked; fetched into the user's cache where this machine does not have it.

    With `progress` a bar is drawn on stderr if that is a terminal. Raises DataError, naming what was tried and all
    ways to get the dataset, and for a damaged file outside the cache (in the cache it is fetched again).
    """
    wanted, own = dataset(name), cache() / name
    folder = next((place for place in _places(wanted) if _holds(place, wanted)), None)
    if folder is not None:
        try:
            for file in wanted.files:
                read(folder, file)
            return folder
        except DataError:
            if folder != own:
                raise
    if wanted.python_package:
        return locate(name)
    from hpo.fetch import fetch

    try:
        return fetch(wanted, own, progress and sys.stderr.isatty())
    except DataError as error:
        raise DataError(f"{name} could not be fetched: {error}\n{_ways(wanted)}") from error


def read(folder: Path, file: File) -> bytes:
    """The uncompressed content of one file; raises DataError with path, expected and found if it is not the original."""
    path = folder / f"{file.name}.gz"
    try:
        with gzip.open(path) as source:
            content = source.read(file.size + 1)
    except SealedError:
        raise
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: expected gzip data of {file.size} bytes uncompressed, found: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        size = f"{len(content)} bytes" if len(content) <= file.size else f"more than {file.size} bytes"
        raise DataError(f"{path}: expected {file.size} bytes with sha256 {file.sha256}, found {size} with {found}")
    return content


_sealed: list[str] = []  # not empty once this process is sealed: an audit hook can never be taken out again


def seal() -> None:
    """From now on nothing in this process can open, rename or link a test file of a known dataset: it raises SealedError.

    What counts is the file's name, wherever it lies. It is a guard against mistakes, not against a hostile trainer:
    child processes that do not fork and libraries that open files from C are not seen.
    """
    if _sealed:
        return
    _sealed.extend(file.name for known in DATASETS.values() for file in known.files if file.sealed)
    sys.addaudithook(_refuse_sealed)


def _refuse_sealed(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in ("open", "os.rename", "os.link", "os.symlink"):
        return
    path = arguments[0]
    if not isinstance(path, str | bytes | os.PathLike):
        return
    name = os.fsdecode(path).rpartition("/")[2]
    if name.startswith(tuple(_sealed)):
        raise SealedError(f"{os.fsdecode(path)}: the test split is sealed; trials see training and validation data only")
