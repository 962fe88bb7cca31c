"""Keeps decoded examples as .npy files in the user's cache, mapped from there: one copy in memory for all processes.

Knows no dataset and no torch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from hpo import data
from hpo.data import SealedError
from trainers.examples import Csr, Examples

VERSION = 2  # part of every entry's name: raise it with every change of a split, a decoder or the layout
DESCRIPTION = "description.json"


@dataclass(frozen=True, slots=True)
class Key:
    """Which examples an entry holds: of `dataset`, decoded with these `settings` from files of this `content`.

    An entry of the same dataset and settings but other content is replaced. `most` bounds how many entries a dataset
    may have; the least recently made go first (None: no bound).
    """

    dataset: str
    settings: Mapping[str, str | int | float | None]
    content: str = ""
    most: int | None = None

    @property
    def described(self) -> dict[str, Any]:
        return {"dataset": self.dataset, "settings": dict(self.settings), "content": self.content, "version": VERSION}

    @property
    def entry(self) -> str:
        """Name of the entry's folder."""
        digest = hashlib.sha256(json.dumps(dict(self.settings), sort_keys=True).encode()).hexdigest()[:16]
        return f"{self.dataset}-{digest}-v{VERSION}"


def kept(key: Key, decode: Callable[[], Examples]) -> Examples:
    """The examples of `key` from the cache, put there by one process while others wait; what `decode` raises comes through.

    Mapped copy-on-write: a stray write stays in its process and never reaches the file. An entry that is damaged, cut
    short or not ours is made again. Where the cache cannot be written, decoded in memory and said so (RuntimeWarning).
    """
    folder = data.cache() / "decoded"
    entry = folder / key.entry
    if (mapped := _map(entry, key)) is not None:
        return mapped
    decoded: Examples | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{key.dataset}.lock"):
            if (mapped := _map(entry, key)) is not None:
                return mapped
            _sweep(folder, f".{key.dataset}-")
            decoded = decode()
            _write(entry, key, decoded)
            _bound(folder, key)
            mapped = _map(entry, key)
        if mapped is None:
            raise OSError("what was written there reads back differently")
        return mapped
    except SealedError:
        raise
    except (OSError, NotImplementedError) as error:  # the latter: a file system without locks
        warnings.warn(
            f"{folder} cannot hold the decoded {key.dataset} ({error}): every trial keeps a copy of its own in memory; "
            "set XDG_CACHE_HOME to a folder that can be written",
            RuntimeWarning,
            stacklevel=2,
        )
        return decoded or decode()


def _write(entry: Path, key: Key, examples: Examples) -> None:
    """The whole entry under its name or nothing: a folder of files, renamed into place; one that was there goes."""
    arrays = _arrays(examples)
    temporary = Path(tempfile.mkdtemp(prefix=f".{key.dataset}-", dir=entry.parent))
    try:
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
        fields = {
            "key": key.described,
            "outputs": examples.outputs,
            "val": examples.val,
            "scale": examples.scale,
            "image": examples.image,
            "flips": examples.flips,
            "width": examples.x.width if isinstance(examples.x, Csr) else None,
            "arrays": {name: [array.dtype.str, array.shape, zlib.crc32(array.data)] for name, array in arrays.items()},
        }
        text = json.dumps(fields)
        (temporary / DESCRIPTION).write_text(f"{text}\n{zlib.crc32(text.encode())}\n", encoding="utf-8")
        if entry.exists():
            entry.rename(temporary.with_suffix(".old"))
        temporary.rename(entry)
    finally:
        _sweep(entry.parent, temporary.name)


def _map(entry: Path, key: Key) -> Examples | None:
    """The entry's examples, or None where it is missing, damaged or of another key.

    Checksums cover every byte of the examples, so files of two writings are noticed, and what a power cut left half written.
    """
    try:
        text, _, checksum = (entry / DESCRIPTION).read_text(encoding="utf-8").partition("\n")
        if checksum != f"{zlib.crc32(text.encode())}\n":
            return None
        fields = json.loads(text)
        if fields["key"] != key.described:
            return None
        arrays = {name: _map_array(entry / f"{name}.npy", *stored) for name, stored in fields["arrays"].items()}
    except (OSError, ValueError):
        return None
    x = arrays["x"] if fields["width"] is None else Csr(arrays["starts"], arrays["columns"], arrays.get("counts"), fields["width"])
    image = tuple(fields["image"]) if fields["image"] else None
    return Examples(x, arrays["y"], fields["outputs"], fields["val"], fields["scale"], image, fields["flips"])


def _map_array(file: Path, dtype: str, shape: list[int], checksum: int) -> NDArray[Any]:
    """The array at the end of a .npy file; OSError or ValueError if it is not this one. Its header is of no interest."""
    content = np.memmap(file, np.uint8, mode="c")
    size = int(np.dtype(dtype).itemsize * np.prod(shape, dtype=np.int64))
    array = content[len(content) - size :]
    if len(content) < size or zlib.crc32(array.data) != checksum:
        raise ValueError(f"{file} is damaged")
    return array.view(dtype).reshape(shape)


def _arrays(examples: Examples) -> dict[str, NDArray[Any]]:
    parts: dict[str, NDArray[Any] | None] = {"y": examples.y}
    if isinstance(examples.x, Csr):
        parts |= {"starts": examples.x.starts, "columns": examples.x.columns, "counts": examples.x.counts}
    else:
        parts["x"] = examples.x
    return {name: np.ascontiguousarray(array) for name, array in parts.items() if array is not None}


def _bound(folder: Path, key: Key) -> None:
    """Removes the dataset's oldest entries, so that `key.most` stay, this one among them.

    A process that has a removed one mapped keeps it; who opens it later makes it again.
    """
    if key.most is not None:
        others = [entry for entry in folder.glob(f"{key.dataset}-*-v*") if entry.name != key.entry]
        others.sort(key=lambda entry: entry.stat().st_mtime_ns, reverse=True)
        for entry in others[key.most - 1 :]:
            shutil.rmtree(entry, ignore_errors=True)


def _sweep(folder: Path, prefix: str) -> None:
    """Removes what a killed writer left under names with this prefix; nobody else writes while the lock is held."""
    for left in folder.glob(f"{prefix}*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
