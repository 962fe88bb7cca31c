"""Decodes datasets of small images: the idx files of MNIST and Fashion-MNIST, and scikit-learn's digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo import data
from hpo.data import DataError
from trainers.examples import Examples
from trainers.recipe import Source

SPLIT_SEED = 0
CLASSES = 10

Images = tuple[NDArray[np.uint8], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Known:
    """How many images train, validate and test, side length, largest value, and whether a mirror image keeps its class."""

    train: int
    val: int
    test: int
    side: int
    brightest: int
    flips: bool

    @property
    def image(self) -> tuple[int, int, int]:
        return 1, self.side, self.side


KNOWN = {
    "fashion-mnist": Known(50_000, 10_000, 10_000, 28, 255, flips=True),
    "mnist": Known(50_000, 10_000, 10_000, 28, 255, flips=False),
    "digits": Known(1_197, 300, 300, 8, 16, flips=False),
}


def decode(source: Source) -> Examples:
    """Training and then validation images, uint8 [n, pixels], in an order that is the same on every machine.

    Raises DataError where the dataset is missing or damaged.
    """
    known = KNOWN[source.dataset]
    x, y = _digits() if source.dataset == "digits" else _idx(source.dataset, sealed=False)
    order = _order(len(x))[: known.train + known.val]
    return _examples(known, x[order], y[order], known.val)


def decode_test(source: Source) -> Examples:
    """The test images; raises SealedError in a sealed process."""
    known = KNOWN[source.dataset]
    data.refuse_if_sealed(f"the test part of {source.dataset}")
    if source.dataset != "digits":
        return _examples(known, *_idx(source.dataset, sealed=True))
    x, y = _digits()
    order = _order(len(x))[known.train + known.val :]
    return _examples(known, x[order], y[order])


def _order(count: int) -> NDArray[np.int64]:
    """RandomState's streams are frozen for all versions of NumPy, default_rng's are not."""
    return np.random.RandomState(SPLIT_SEED).permutation(count)


def _examples(known: Known, x: NDArray[np.uint8], y: NDArray[np.int64], val: int = 0) -> Examples:
    return Examples(x, y, CLASSES, val, 1 / known.brightest, known.image, known.flips)


def _idx(name: str, sealed: bool) -> Images:
    """Images and labels of the training or of the sealed files, http://yann.lecun.com/exdb/mnist."""
    folder = data.locate(name)
    images, labels = (file for file in data.dataset(name).files if file.sealed == sealed)
    known = KNOWN[name]
    count = known.test if sealed else known.train + known.val
    x = _array(folder / f"{images.name}.gz", data.read(folder, images), (count, known.side, known.side))
    y = _array(folder / f"{labels.name}.gz", data.read(folder, labels), (count,))
    if y.max() >= CLASSES:
        row = int(np.argmax(y >= CLASSES))
        raise DataError(f"{folder / labels.name}.gz: image {row + 1} has label {y[row]}; labels are 0..{CLASSES - 1}")
    if y.min() == y.max():
        raise DataError(f"{folder / labels.name}.gz: all {count} images have label {y[0]}; expected several classes")
    return x.reshape(count, -1), y.astype(np.int64)


def _array(path: Path, content: bytes, shape: tuple[int, ...]) -> NDArray[Any]:
    """The bytes behind the header of an idx file: two zeros, 8 for unsigned bytes, the number of sizes, big-endian sizes."""
    header = bytes((0, 0, 8, len(shape))) + np.array(shape, ">u4").tobytes()
    if not content.startswith(header) or len(content) != len(header) + int(np.prod(shape)):
        raise DataError(f"{path}: {len(content)} bytes that start with {content[: len(header)].hex()} are no idx file of the sizes {shape}")
    return np.frombuffer(content, np.uint8, offset=len(header)).reshape(shape)


def _digits() -> Images:
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return x.astype(np.uint8), y.astype(np.int64)
