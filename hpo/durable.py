"""Files and folders that are there whole or not at all, and that no power cut takes back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hpo.objects import StorageError
from hpo.places import refuse_unmounted


def make_folder(path: Path) -> None:
    """Make the folder `path` and what is missing above it; no power cut takes it back."""
    if not path.is_dir():
        refuse_unmounted(path)
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def replace_file(file: Path, content: bytes) -> None:
    """Put `content`, which is on the disk by then, in the place of `file` in one step."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")  # in the same folder: the rename stays on one file system
    with bytes_named(file, len(content)):
        try:
            with temporary.open("wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(file)
        finally:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def bytes_named(file: Path, size: int) -> Iterator[None]:
    """An OSError from inside says which file of which size could not be written."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise OSError(error.errno, f"{size:,} bytes could not be written: {error.strerror}", str(file)) from error


def sync_folder(folder: Path) -> None:
    """Have what was made, renamed and removed in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
