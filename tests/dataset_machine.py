"""A machine with the datasets of this one, but a cache of its own: tests write nothing to the user's."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import lzma
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from hpo import data
from hpo.data import DataError


def borrow_datasets(home: Path, patch: pytest.MonkeyPatch) -> None:
    """Every dataset that is here is found through $HPO_DATA; the cache is `home/cache`."""
    home.mkdir(exist_ok=True)
    for name, known in data.DATASETS.items():
        with contextlib.suppress(DataError, FileExistsError):
            if not known.python_package:
                (home / name).symlink_to(data.locate(name))
    patch.setenv("HPO_DATA", str(home))
    patch.setenv("XDG_CACHE_HOME", str(home / "cache"))


def needs(name: str) -> Path:
    """The folder of a dataset that is not shipped with the tests; skips the test where it is not there."""
    try:
        return data.locate(name)
    except DataError as error:
        pytest.skip(f"not tested on {name}: {error}")


def put_files(name: str, contents: Mapping[str, bytes], home: Path, patch: pytest.MonkeyPatch) -> Path:
    """Gives the dataset these contents, with checksums that fit, so that its decoder sees them; returns their folder."""
    known = data.dataset(name)
    files = tuple(
        replace(file, size=len(contents[file.name]), sha256=hashlib.sha256(contents[file.name]).hexdigest())
        if file.name in contents
        else file
        for file in known.files
    )
    patch.setitem(data.DATASETS, name, replace(known, files=files))
    patch.setenv("HPO_DATA", str(home))
    folder = home / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        (folder / f"{file.name}.gz").write_bytes(gzip.compress(contents.get(file.name, b"not asked for")))
    return folder


def put_archive(name: str, members: Mapping[str, bytes], home: Path, patch: pytest.MonkeyPatch) -> Path:
    """Gives the dataset an archive of these members, with a checksum that fits; returns its path."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for member, content in members.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    content = lzma.compress(packed.getvalue(), preset=0)
    known = data.dataset(name)
    archive = replace(known.archives[0], size=len(content), sha256=hashlib.sha256(content).hexdigest())
    patch.setitem(data.DATASETS, name, replace(known, archives=(archive,)))
    patch.setenv("HPO_DATA", str(home))
    (home / name).mkdir(parents=True, exist_ok=True)
    path = home / name / archive.name
    path.write_bytes(content)
    return path
