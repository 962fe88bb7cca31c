"""Training and validation data as tensors; the test split is offered nowhere here.

Decoded once per machine into the user's cache and mapped from there, so that many trials share one copy in memory.
"""

from __future__ import annotations

import functools
import os
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from hpo import data
from hpo.data import DataError

SPLIT_SEED = 0
VERSION = 1  # part of the cached files' names: raise it with every change of the split or the layout

Arrays = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a dataset looks like: images for training, validation and the sealed test, pixels, classes, largest value."""

    train: int
    val: int
    test: int
    pixels: int
    classes: int
    brightest: int


SHAPES = {
    "fashion-mnist": Shape(50_000, 10_000, 10_000, 784, 10, 255),
    "mnist": Shape(50_000, 10_000, 10_000, 784, 10, 255),
    "digits": Shape(1_197, 300, 300, 64, 10, 16),
}


@dataclass(frozen=True, slots=True)
class Split:
    """Images `x` uint8 [n, pixels] and labels `y` int64 [n] for training, `x_val` and `y_val` for validation.

    `classes` counts the labels 0..classes-1; `images * scale` lies in 0..1. Mapped from a shared file: do not write.
    """

    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor
    classes: int
    scale: float


def shape(name: str) -> Shape:
    """The shape of the dataset called `name`; raises DataError with the known names. Needs no files."""
    data.dataset(name)
    return SHAPES[name]


def load(name: str, train_size: int | None = None, val_size: int | None = None, device: str = "cpu") -> Split:
    """The dataset's training and validation data on `device`, the first `train_size` and `val_size` images of each.

    The split is the same on every machine and for every size. Raises DataError where the dataset is missing, damaged
    or smaller than asked for.
    """
    known = shape(name)
    sizes = known.train if train_size is None else train_size, known.val if val_size is None else val_size
    for setting, size, most in zip(("train_size", "val_size"), sizes, (known.train, known.val), strict=True):
        if not 1 <= size <= most:
            raise DataError(f"{setting}: {size} is outside 1..{most}, the images that {name} has for it")
    x, y = _on_device(name, device)
    train, val = slice(0, sizes[0]), slice(known.train, known.train + sizes[1])
    return Split(x[train], y[train], x[val], y[val], known.classes, 1 / known.brightest)


@functools.cache
def _on_device(name: str, device: str) -> tuple[Tensor, Tensor]:
    """One copy per process and device; on the CPU it is the mapped file itself."""
    x, y = (torch.from_numpy(array) for array in _arrays(name))
    return x.to(device), y.to(device)


def _arrays(name: str) -> Arrays:
    """Images and labels, training before validation, from the cache; decoded and put there first if need be."""
    folder = data.cache() / "decoded"
    files = [folder / f"{name}-v{VERSION}-{part}.npy" for part in ("images", "labels")]
    if (mapped := _map(files, SHAPES[name])) is not None:
        return mapped
    decoded: Arrays | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock"):
            if (mapped := _map(files, SHAPES[name])) is not None:
                return mapped
            decoded = _decode(name)
            _write(files[0], decoded[0])
            _write(files[1], decoded[1])
        if (mapped := _map(files, SHAPES[name])) is not None:
            return mapped
        raise OSError("what was written there reads back differently")
    except OSError as error:
        warnings.warn(
            f"{folder} cannot hold the decoded {name} ({error}): every trial keeps a copy of its own in memory; "
            "set XDG_CACHE_HOME to a folder that can be written",
            RuntimeWarning,
            stacklevel=4,
        )
        return decoded or _decode(name)


def _map(files: list[Path], known: Shape) -> Arrays | None:
    """The cached arrays, or None where a file is missing, cut short or of another shape.

    Copy-on-write: a stray write stays in its process and never reaches the file.
    """
    try:
        x, y = (np.load(file, mmap_mode="c", allow_pickle=False) for file in files)
    except (OSError, ValueError, EOFError):
        return None
    count = known.train + known.val
    good = x.shape == (count, known.pixels) and x.dtype == np.uint8 and y.shape == (count,) and y.dtype == np.int64
    return (x, y) if good else None


def _write(file: Path, array: NDArray[Any]) -> None:
    """All of the array under its name or nothing, also when the disk is full or the power fails."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as out:
            np.save(out, array, allow_pickle=False)
            out.flush()
            os.fsync(out.fileno())
        Path(temporary).replace(file)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _decode(name: str) -> Arrays:
    """Images and labels, training before validation, without the test split; raises DataError."""
    decoders: dict[str, Callable[[], Arrays]] = {"digits": _decode_digits}
    x, y = decoders.get(name, functools.partial(_decode_idx, name))()
    known = SHAPES[name]
    # RandomState's streams are frozen for all versions of NumPy, default_rng's are not
    order = np.random.RandomState(SPLIT_SEED).permutation(len(x))[: known.train + known.val]
    return np.ascontiguousarray(x[order]), np.ascontiguousarray(y[order])


def _decode_idx(name: str) -> Arrays:
    """The training files in the idx format (a header of 16 and 8 bytes, then bytes), http://yann.lecun.com/exdb/mnist."""
    folder = data.locate(name)
    images, labels = (file for file in data.dataset(name).files if not file.sealed)
    x = np.frombuffer(data.read(folder, images), np.uint8, offset=16).reshape(-1, SHAPES[name].pixels)
    return x, np.frombuffer(data.read(folder, labels), np.uint8, offset=8).astype(np.int64)


def _decode_digits() -> Arrays:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return x.astype(np.uint8), y.astype(np.int64)
