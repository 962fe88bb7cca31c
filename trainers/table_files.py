"""Reads a user's file of examples, CSV, Parquet or two NumPy arrays, into columns and a target; refuses what is broken. Splits nothing."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from hpo.data import DataError
from hpo.problem import hint, quoted

if TYPE_CHECKING:
    from pandas import DataFrame, Series

FORMS = {
    ".csv": "comma-separated text in UTF-8, all lines equally long",
    ".parquet": "a whole Parquet file",
    ".npy": "one NumPy array without pickled objects",
}
INDEX = re.compile("__index_level_[0-9]+__")  # pandas keeps the index of a frame of which rows were dropped as a column of this name
MOSTLY = 0.5  # a text column with more numbers than this share was meant to hold numbers alone


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a file: float64 or bool [n], or texts (object [n]); nothing is missing or infinite."""

    name: str
    values: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Table:
    """The columns that are inputs, and the target: int64, float64 or texts [n], or float64 [n, k]. `place` names the files."""

    place: str
    inputs: Sequence[Column]
    target: NDArray[Any]

    def __len__(self) -> int:
        return len(self.target)


def read(path: Path, target: str) -> Table:
    """The table in a .csv or .parquet file with a column called `target`, or in .npy inputs [n, columns] and targets at `target`.

    Raises DataError with file, row and column for whatever cannot be learned from as it is.
    """
    check_names(path, target)
    if path.suffix == ".npy":
        return _arrays(path, Path(target))
    with _damage_named(path):
        frame = _read_csv(path) if path.suffix == ".csv" else _read_parquet(path)
        if not len(frame):
            raise DataError(f"{path}: holds no rows")
        first = 2 if path.suffix == ".csv" else 1
        inputs = [Column(name, _values(path, frame[name], first).astype(_kind(frame[name]))) for name in frame.columns if name != target]
        if not inputs:
            raise DataError(f"{path}: {quoted(target)} is its only column; inputs are needed, too")
        return Table(str(path), inputs, _values(path, frame[target], first))


def check_names(path: Path, target: str) -> None:
    """Raise DataError unless the files are there and the target is a column; reads the head of a file alone."""
    if path.suffix not in FORMS:
        raise DataError(f"{path}: the name ends with {quoted(path.suffix)}; {hint(path.suffix, FORMS)}")
    for file in (path, Path(target)) if path.suffix == ".npy" else (path,):
        if not _is_file(file):
            raise DataError(f"{file} is not there, or is no file; give the path of yours (`path`; for .npy, `target` is a path, too)")
    if path.suffix == ".npy":
        return
    with _damage_named(path):
        names = _csv_header(path) if path.suffix == ".csv" else _parquet_header(path)
    for number, name in enumerate(names, 1):
        if not name.strip():
            raise DataError(f"{path}: column {number} has no name")
        if name in names[: number - 1]:
            raise DataError(f"{path}: column {number} is called {quoted(name)}, as column {names.index(name) + 1}; names must differ")
    if target not in names:
        raise DataError(f"{path}: no column is called {quoted(target)}; {hint(target, names)}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than a file can have, or a folder that nobody may enter
        return False


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Any way in which a parser fails is a DataError that names the file."""
    import pyarrow as pa

    try:
        yield
    except (
        OSError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        ArithmeticError,
        SyntaxError,
        MemoryError,
        csv.Error,
        TokenError,
        pa.ArrowException,
    ) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path}: expected {FORMS[path.suffix]}, found: {said[:300]}") from error


def _csv_header(path: Path) -> list[str]:
    """The names in the first line; the second must be no longer, since pandas would take its start for an index."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file, strict=True)
        names, second = next(lines, None), next(lines, None)
    if names is None:
        raise DataError(f"{path}: is empty; its first line must name the columns")
    if second is not None and len(second) > len(names):
        raise DataError(f"{path}:2: expected {len(names)} values as in the first line, found {len(second)}")
    return names


def _read_csv(path: Path) -> DataFrame:
    import pandas as pd

    frame = pd.read_csv(
        path,
        encoding="utf-8-sig",
        index_col=False,
        keep_default_na=False,
        na_values=[""],
        skip_blank_lines=False,  # or numbers of lines would be wrong
        low_memory=False,
    )
    while len(frame) and frame.iloc[-1].isna().all():
        frame = frame.iloc[:-1]
    return frame


def _parquet_header(path: Path) -> list[str]:
    import pyarrow.parquet as pq

    return [str(name) for name in pq.read_schema(path).names if not INDEX.fullmatch(name)]


def _read_parquet(path: Path) -> DataFrame:
    import pyarrow.parquet as pq

    frame: DataFrame = pq.read_table(path, page_checksum_verification=True).to_pandas(ignore_metadata=True)
    return frame[[name for name in frame.columns if not INDEX.fullmatch(name)]]


def _kind(column: Series[Any]) -> type:
    from pandas.api import types

    if types.is_bool_dtype(column.dtype):
        return bool
    return np.float64 if types.is_numeric_dtype(column.dtype) else object


def _values(path: Path, column: Series[Any], first: int) -> NDArray[Any]:
    """int64, float64, bool or texts, as the column has; DataError where one is missing, not finite or of another kind.

    `first` is the number of the first row in messages.
    """
    from pandas.api import types

    def refuse(wrong: NDArray[np.bool_], found: str) -> NoReturn:
        row = int(np.argmax(wrong))
        raise DataError(f"{path}:{row + first}: column {quoted(str(column.name))}: {found.format(quoted(str(column.iloc[row])))}")

    missing = column.isna().to_numpy(bool)
    if missing.any():
        refuse(missing, "nothing there; fill the gap or drop the row")
    if types.is_bool_dtype(column.dtype):
        return column.to_numpy(bool)
    if types.is_complex_dtype(column.dtype):
        refuse(~missing, "found {}; numbers, texts or booleans are needed")
    if types.is_numeric_dtype(column.dtype):
        whole = types.is_integer_dtype(column.dtype) and column.dtype not in ("uint64", "UInt64")
        values = column.to_numpy(np.int64 if whole else np.float64)
        if not np.isfinite(values).all():
            refuse(~np.isfinite(values), "found {}; a finite number is needed")
        return values
    texts = column.to_numpy(object)
    strange = np.fromiter((not isinstance(text, str) for text in texts), bool, len(texts))
    if strange.any():
        huge = np.fromiter((isinstance(text, int) and not -(2**63) <= text < 2**63 for text in texts), bool, len(texts))
        if huge.any():  # one such number, and pandas makes Python's of all
            refuse(huge, "found {}; a number of at most 64 bits is needed")
        kind = type(texts[int(np.argmax(strange))]).__name__
        refuse(strange, f"found {{}} ({kind}); numbers, texts or booleans are needed")
    _refuse_stray_texts(column, refuse)
    return texts


def _refuse_stray_texts(column: Series[Any], refuse: Callable[[NDArray[np.bool_], str], NoReturn]) -> None:
    import pandas as pd

    stray = pd.to_numeric(column.astype(object), errors="coerce").isna().to_numpy(bool)
    if 0 < stray.mean() < 1 - MOSTLY:
        refuse(stray, "found the text {} among numbers; a number is needed")


def _arrays(path: Path, target: Path) -> Table:
    x, y = _array(path), _array(target)
    if x.ndim != 2 or not x.shape[1] or x.dtype.kind not in "fiub":
        raise DataError(f"{path}: expected numbers of the shape [rows, columns], found {x.dtype} {list(x.shape)}")
    whole = y.ndim == 1 and (y.dtype.kind in "bU" or np.can_cast(y.dtype, np.int64))
    if not whole and not (y.ndim in (1, 2) and y.size and y.dtype.kind == "f"):
        raise DataError(f"{target}: expected classes [rows], or floats [rows] or [rows, values], found {y.dtype} {list(y.shape)}")
    if len(x) != len(y):
        raise DataError(f"{path} has {len(x)} rows and {target} has {len(y)}; one target for each row is needed")
    for file, numbers in ((path, x), (target, y)):
        if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
            place = ", ".join(
                f"{name} {at + 1}" for name, at in zip(("row", "column"), np.argwhere(~np.isfinite(numbers))[0], strict=False)
            )
            raise DataError(f"{file}: {place}: a finite number is needed")
    kind = bool if x.dtype.kind == "b" else np.float64
    inputs = [Column(str(number + 1), x[:, number].astype(kind)) for number in range(x.shape[1])]
    return Table(f"{path} and {target}", inputs, y.astype(object if y.dtype.kind == "U" else np.int64 if whole else np.float64))


def _array(path: Path) -> NDArray[Any]:
    with _damage_named(path):
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path}: expected one array (np.save), found an archive of several")
    return found
