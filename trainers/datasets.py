"""Datasets as tensors: training and validation data for trials, the sealed test part for reports after the search.

Decoded once per machine into the user's cache and mapped from there, so that many trials share one copy in memory.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray

from hpo import data
from hpo.data import DataError
from hpo.problem import hint
from trainers import decoded, tables
from trainers.decoded import Key
from trainers.examples import Csr, Examples
from trainers.images import CLASSES, KNOWN
from trainers.recipe import Source
from trainers.splits import DenseRows, Part, Rows, SparseRows, Split

USER_FILES_KEPT = 8  # decoded files of users' own that stay in the cache, the newest


class Decoder(Protocol):
    """A module that turns a dataset's files into examples; both functions raise DataError."""

    def decode(self, source: Source) -> Examples:
        """Training examples, then those that validate."""

    def decode_test(self, source: Source) -> Examples:
        """The sealed test examples."""


# module that decodes it, and the fields of Source that change the result
DECODERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "digits": ("images", ()),
    "fashion-mnist": ("images", ()),
    "mnist": ("images", ()),
    "imdb": ("text", ("vocabulary",)),
    "sst2": ("text", ("vocabulary", "validation")),
    "proben1": ("proben1", ("problem",)),
    "file": ("tables", ("path", "target", "val_share", "test_share", "split_seed")),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a network must fit: columns of the inputs, classes or values, (channels, height, width) if they are images."""

    columns: int
    outputs: int
    image: tuple[int, int, int] | None
    classifies: bool


def load(source: Source, device: str = "cpu") -> Split:
    """The training and validation data on `device`, the first `train_size` and `val_size` examples of each.

    The split is the same on every machine and for every size. Raises DataError where the dataset is missing, damaged
    or smaller than asked for. One copy per process and device; on the CPU it is the mapped file itself.
    """
    what = _what(source)
    split = _split(what, _stamp(what), device)
    return replace(
        split,
        train=_first(split.train, "train_size", source.train_size, source.dataset),
        val=_first(split.val, "val_size", source.val_size, source.dataset),
    )


def load_test(source: Source, device: str = "cpu") -> Part:
    """The test part on `device`, decoded afresh and kept nowhere; raises SealedError in a sealed process, or DataError."""
    decoder, what = _decoder(source), _what(source)
    data.refuse_if_sealed(f"the test part of {source.dataset}")
    return _part(decoder.decode_test(what), device)


def load_published(source: Source, device: str = "cpu") -> Split:
    """IMDB as published results use it: all training reviews train, the test reviews validate.

    For reproductions only: it opens the test reviews, so it raises SealedError in a sealed process.
    """
    if source.dataset != "imdb":
        raise DataError(f"dataset {source.dataset!r} has no published protocol that validates on test data; only imdb has: use load")
    data.refuse_if_sealed("the published protocol of imdb, which validates on test reviews")
    from trainers import text

    return _parted(text.decode_published(_what(source)), device)


def shape(source: Source) -> Shape:
    """The shape of the examples. Images need no files; others are mapped, decoded first if need be (DataError as `load`)."""
    known = KNOWN.get(source.dataset)
    if known is not None:
        return Shape(known.side**2, CLASSES, known.image, classifies=True)
    what = _what(source)
    split = _split(what, _stamp(what), "cpu")
    return Shape(split.columns, split.outputs, split.image, split.classifies)


def _decoder(source: Source) -> Decoder:
    if source.dataset not in DECODERS:
        raise DataError(f"dataset {source.dataset!r} is not known; {hint(source.dataset, DECODERS)}")
    return cast(Decoder, importlib.import_module(f"trainers.{DECODERS[source.dataset][0]}"))


def _what(source: Source) -> Source:
    """The source with only those fields set that change its examples, a user's files by absolute paths."""
    _decoder(source)
    what = Source(dataset=source.dataset, **{name: getattr(source, name) for name in DECODERS[source.dataset][1]})
    files = [str(file.absolute()) for file in _files(what)]
    return replace(what, path=files[0], target=files[1] if len(files) == 2 else what.target) if files else what


def _files(source: Source) -> tuple[Path, ...]:
    """The user's own files of a source: none, one, or two of NumPy's."""
    return tables.files(source) if source.dataset == "file" else ()


def _stamp(what: Source) -> tuple[int, ...]:
    """Sizes and times of a user's files, so that a changed one is read again; empty where one is missing."""
    try:
        return tuple(number for file in _files(what) for number in (file.stat().st_size, file.stat().st_mtime_ns))
    except (OSError, ValueError):  # the latter: a name with a zero byte
        return ()


@functools.lru_cache(maxsize=4)
def _split(what: Source, stamp: tuple[int, ...], device: str) -> Split:
    """All training and validation data of what `_what` gave."""
    decoder = _decoder(what)
    fields = {name: getattr(what, name) for name in DECODERS[what.dataset][1]}
    if what.dataset != "file":
        return _parted(decoded.kept(Key(what.dataset, fields), lambda: decoder.decode(what)), device)
    content = _content(what, stamp)

    def decode() -> Examples:
        examples = decoder.decode(what)
        if _content(what, _stamp(what)) != content:
            raise DataError(f"{what.path} changed while it was read; start again when nobody writes it")
        return examples

    return _parted(decoded.kept(Key("file", fields, content, USER_FILES_KEPT), decode), device)


def _content(what: Source, stamp: tuple[int, ...]) -> str:
    """Size, time and SHA-256 of a user's files; what is wrong with one that cannot be read, its decoder says."""
    checksum = hashlib.sha256()
    try:
        for path in _files(what):
            with path.open("rb") as file:
                checksum.update(hashlib.file_digest(file, "sha256").digest())
    except (OSError, ValueError):
        return ""
    return f"{stamp} {checksum.hexdigest()}"


def _parted(examples: Examples, device: str) -> Split:
    whole = _part(examples, device)
    train = len(whole) - examples.val
    return Split(
        Part(whole.x.part(0, train), whole.y[:train]),
        Part(whole.x.part(train, len(whole)), whole.y[train:]),
        examples.outputs,
        examples.image,
        examples.flips,
    )


def _part(examples: Examples, device: str) -> Part:
    return Part(_rows(examples, device), _tensor(examples.y, device))


def _rows(examples: Examples, device: str) -> Rows:
    x = examples.x
    if not isinstance(x, Csr):
        return DenseRows(_tensor(x, device), examples.scale)
    counts = None if x.counts is None else _tensor(x.counts, device)
    return SparseRows(_tensor(x.starts, device), _tensor(x.columns, device), counts, x.width)


def _tensor(array: NDArray[Any], device: str) -> torch.Tensor:
    """The same memory on the CPU, but a copy of what may not be written: torch has no such tensors."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(device)


def _first(part: Part, setting: str, size: int | None, name: str) -> Part:
    """The first `size` examples of a part (None: all); DataError if it has fewer."""
    if size is None:
        return part
    if not 1 <= size <= len(part):
        raise DataError(f"{setting}: {size} is outside 1..{len(part)}, the examples that {name} has for it")
    return Part(part.x.part(0, size), part.y[:size])
