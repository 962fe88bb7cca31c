"""Decodes a user's own file: splits its rows, encodes its columns as numbers. What is in the file, `trainers/table_files.py` reads.

Split: the rows in the order of `np.random.RandomState(split_seed).permutation`; of each class, or of all rows if the
target is values, the first `test_share` are the sealed test part, the next `val_share` validate, the rest train. Shares
are rounded, and a class of three examples or more has one in every part; a smaller one is in the training part alone.

Inputs: number columns less the mean, over the standard deviation, both of the training part (0 where that is constant);
booleans 0 or 1; a text column is one 0/1 column for each text that it has in the training part, in sorted order.

Target: texts and booleans are classes, and so are integers of at most 100 different values; classes are numbered in
sorted order. Floats and other integers are values, left as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo import data
from hpo.data import DataError
from hpo.problem import quoted
from trainers import table_files
from trainers.examples import Examples
from trainers.recipe import Source
from trainers.table_files import Column, Table

MOST_LEVELS = 1_000  # 0/1 columns of all text columns together
MOST_CLASSES = 1_000
MOST_INTEGER_CLASSES = 100
SEEDS = 2**32

Rows = NDArray[np.int64]


def check(source: Source) -> None:
    """Raise DataError if a search over this file could not begin: no file, no such column, impossible shares. Reads its head alone."""
    table_files.check_names(*_named(source))
    if not (source.val_share > 0 and source.test_share >= 0):  # NaN is neither
        raise DataError(f"val_share {source.val_share:g} must be above 0, and test_share {source.test_share:g} at least 0")
    if source.val_share + source.test_share >= 1:
        raise DataError(f"val_share {source.val_share:g} and test_share {source.test_share:g} leave no rows to train on; lower one")
    if not 0 <= source.split_seed < SEEDS:
        raise DataError(f"split_seed: {source.split_seed} is none; it must be at least 0 and below 2^32")


def files(source: Source) -> tuple[Path, ...]:
    """The files that the examples come from: one, or two of NumPy's."""
    path, target = _named(source)
    return (path, Path(target)) if path.suffix == ".npy" else (path,)


def decode(source: Source) -> Examples:
    """Training and validation examples, inputs float32; raises DataError with file, row and column for what is broken."""
    return _decoded(source, sealed=False)


def decode_test(source: Source) -> Examples:
    """The test examples, encoded as those for training; raises SealedError in a sealed process."""
    data.refuse_if_sealed(f"the test part of {source.path}")
    if not source.test_share:
        raise DataError(f"{source.path}: test_share is 0, so no rows are kept for a test")
    return _decoded(source, sealed=True)


def _named(source: Source) -> tuple[Path, str]:
    if not source.path or not source.target:
        raise DataError("dataset `file` needs two settings: `path`, your file, and `target`, its column of labels or values")
    try:
        return Path(source.path).expanduser(), source.target
    except RuntimeError as error:  # `~name` of nobody
        raise DataError(f"{source.path}: {error} Write the path in full") from error


def _decoded(source: Source, *, sealed: bool) -> Examples:
    check(source)
    table = table_files.read(*_named(source))
    y, classes = _targets(table, source)
    train, val, test = split(y if classes else None, len(table), source)
    if not (len(train) and len(val) and (len(test) or not source.test_share)):
        raise DataError(
            f"{table.place}: {len(table)} rows are too few: {len(train)} would train, {len(val)} validate and {len(test)} test "
            "(a class needs three rows to be in every part)"
        )
    rows = test if sealed else np.concatenate([train, val])
    x = _encoded(table, train, rows)
    return Examples(x, np.ascontiguousarray(y[rows]), classes or y.shape[1], 0 if sealed else len(val))


def split(labels: NDArray[np.int64] | None, count: int, source: Source) -> tuple[Rows, Rows, Rows]:
    """The numbers of the rows that train, validate and test, of each class its share if there are `labels` [count]."""
    order = np.random.RandomState(source.split_seed).permutation(count)
    groups = [order]
    if labels is not None:
        by_class = order[np.argsort(labels[order], kind="stable")]
        groups = np.split(by_class, np.flatnonzero(np.diff(labels[by_class])) + 1)
    part = np.zeros(count, np.int8)
    for group in groups:
        tests = min(_share(source.test_share, len(group)), len(group) - 2)
        vals = min(_share(source.val_share, len(group)), len(group) - 1 - tests)
        if len(group) >= 3:
            part[group[:tests]] = 2
            part[group[tests : tests + vals]] = 1
    train, val, test = (order[part[order] == number] for number in range(3))
    return train, val, test


def _share(share: float, count: int) -> int:
    return max(1, round(share * count)) if share else 0


def _targets(table: Table, source: Source) -> tuple[NDArray[Any], int]:
    """Labels int64 [n] and the number of classes, or values float32 [n, k] and 0."""
    target = table.target
    if target.dtype.kind in "Ob" or (target.dtype.kind == "i" and len(np.unique(target)) <= MOST_INTEGER_CLASSES):
        classes, labels = np.unique(target, return_inverse=True)
        if len(classes) == 1:
            raise DataError(
                f"{table.place}: target {source.target} is {quoted(str(classes[0]))} in all {len(table)} rows; two classes are needed"
            )
        if len(classes) > MOST_CLASSES:
            raise DataError(
                f"{table.place}: target {source.target} has {len(classes)} different texts; at most {MOST_CLASSES} can be classes"
            )
        return labels.astype(np.int64), len(classes)
    with np.errstate(over="ignore"):
        values = target.astype(np.float32).reshape(len(target), -1)
    _refuse_too_large(table, values, [str(source.target)] * values.shape[1])
    return values, 0


def _encoded(table: Table, train: Rows, rows: Rows) -> NDArray[np.float32]:
    """Float32 [len(rows), width]: the inputs of `rows`, by the statistics of `train`."""
    levels = {column.name: np.unique(column.values[train]) for column in table.inputs if column.values.dtype == object}
    total = sum(map(len, levels.values()))
    if total > MOST_LEVELS:
        most = max(levels, key=lambda name: len(levels[name]))
        raise DataError(
            f"{table.place}: the text columns have {total:,} different texts, {len(levels[most]):,} of them {quoted(most)}; "
            f"at most {MOST_LEVELS:,} can be inputs: drop the column, or turn it into numbers"
        )
    widths = [len(levels[column.name]) if column.name in levels else 1 for column in table.inputs]
    x = np.empty((len(rows), sum(widths)), np.float32)
    first = 0
    for column, width in zip(table.inputs, widths, strict=True):
        x[:, first : first + width] = _columns(column, levels.get(column.name), train, rows)
        first += width
    _refuse_too_large(table, x, [column.name for column, width in zip(table.inputs, widths, strict=True) for _ in range(width)])
    return x


def _columns(column: Column, levels: NDArray[Any] | None, train: Rows, rows: Rows) -> NDArray[Any]:
    """One column of a file as columns of numbers [len(rows), width]."""
    values = column.values[rows, None]
    if levels is not None:
        values = values == levels
    elif values.dtype != bool:
        seen = column.values[train]
        with np.errstate(over="ignore", invalid="ignore"):
            deviation = seen.std()
            if seen.min() == seen.max() or deviation == 0:  # rounded, the deviation of equal numbers need not be 0
                return np.zeros(values.shape)
            values = ((values - seen.mean()) / deviation).astype(np.float32) if np.isfinite(deviation) else np.full(values.shape, np.nan)
    return values


def _refuse_too_large(table: Table, values: NDArray[np.float32], names: Sequence[str]) -> None:
    wrong = ~np.isfinite(values).all(axis=0)
    if wrong.any():
        raise DataError(f"{table.place}: column {quoted(names[int(np.argmax(wrong))])} has numbers too large for 32 bits; scale it")
