"""Reads .tar and .zip archives as streams, member by member, and checks them. Knows no place, unpacks nothing to disk."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

from hpo.data import DataError, SealedError
from hpo.datasets_known import Archive

MOST = 64 * 2**20  # bytes of one member; the largest that is wanted anywhere has 4 million
PIECE = 1 << 20
DAMAGE = (
    OSError,
    EOFError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)

Wanted = Callable[[str], bool]


def members(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    """Name and content of those regular files in an archive whose names are `wanted`, in its order.

    Raises DataError for an archive that is missing, damaged or cut short, whatever part of it is wanted, and for a
    wanted member that is a link, larger than `MOST` or named outside the archive.
    """
    read = _zip_members if path.suffix == ".zip" else _tar_members
    stream = read(path, wanted)
    while True:
        try:
            found = next(stream, None)
        except SealedError:
            raise
        except DAMAGE as error:
            raise DataError(f"{path}: expected a whole {''.join(path.suffixes[-2:])} archive, found: {error}") from error
        if found is None:
            return
        yield found


def check(archive: Archive, path: Path) -> None:
    """Raise DataError, with expected and found, if the file at `path` is not this archive."""
    if archive.members:
        found, what = _digest_of_members(path, archive.members), f"{archive.members} members"
    else:
        try:
            with path.open("rb") as file:
                found, what = hashlib.file_digest(file, "sha256").hexdigest(), f"{archive.size} bytes"
        except OSError as error:
            raise DataError(f"{path}: {error}") from error
    if found != archive.sha256:
        size = "" if archive.members else f"{path.stat().st_size} bytes "
        raise DataError(f"{path}: expected {what} with sha256 {archive.sha256}, found {size}with {found}")


def _digest_of_members(path: Path, suffix: str) -> str:
    digests = {}
    for name, content in members(path, lambda name: name.endswith(suffix)):
        digests[name.rpartition("/")[2]] = hashlib.sha256(content).hexdigest()
    return hashlib.sha256("".join(f"{name}\0{digests[name]}" for name in sorted(digests)).encode()).hexdigest()


def _tar_members(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    with _opened(path) as stream:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            while (member := tar.next()) is not None:
                vars(tar)["members"].clear()  # it would keep each of 100,000
                if not member.isdir() and wanted(member.name):
                    _refuse_odd(path, member.name, member.size, plain=member.isreg())
                    file = tar.extractfile(member)
                    yield member.name, file.read() if file else b""
        while stream.read(PIECE):  # the checksum of compressed data is at its end, behind the archive's
            pass


def _opened(path: Path) -> IO[bytes]:
    """The uncompressed bytes of a tar archive. Unlike tarfile's own stream, these notice an end that came too early."""
    match path.suffix:
        case ".gz":
            return cast(IO[bytes], gzip.open(path))
        case ".xz":
            return cast(IO[bytes], lzma.open(path))
        case _:
            return path.open("rb")


def _zip_members(path: Path, wanted: Wanted) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.is_dir() and wanted(member.filename):
                link = (member.external_attr >> 28) == 0o12
                _refuse_odd(path, member.filename, member.file_size, plain=not link)
                with archive.open(member) as file:
                    yield member.filename, file.read(MOST)


def _refuse_odd(path: Path, name: str, size: int, *, plain: bool) -> None:
    if name.startswith("/") or ".." in name.split("/"):
        raise DataError(f"{path}: member {name!r} lies outside the archive; expected the dataset's own")
    if not plain:
        raise DataError(f"{path}: member {name!r} is a link or a device; expected a file")
    if size > MOST:
        raise DataError(f"{path}: member {name!r} would have {size} bytes; expected at most {MOST}")
