"""A user's own file: how it is split and encoded, and what is said of everything that cannot be learned from."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpo.data import DataError
from trainers import table_files, tables
from trainers.examples import Examples
from trainers.recipe import Source

COUNT = 40
FRAME = pd.DataFrame(
    {
        "size": np.linspace(-3, 5, COUNT),
        "age": np.arange(COUNT) % 7,
        "colour": [("red", "green", "blue")[i % 3] for i in range(COUNT)],
        "new": [i % 4 == 0 for i in range(COUNT)],
        "kind": [("cat", "dog")[i % 5 == 0] for i in range(COUNT)],
    }
)


def as_csv(folder: Path, frame: pd.DataFrame = FRAME) -> Source:
    frame.to_csv(folder / "x.csv", index=False)
    return Source(dataset="file", path=str(folder / "x.csv"), target="kind")


def as_parquet(folder: Path, frame: pd.DataFrame = FRAME) -> Source:
    frame.to_parquet(folder / "x.parquet")
    return Source(dataset="file", path=str(folder / "x.parquet"), target="kind")


X, Y = FRAME[["size", "age"]].to_numpy(), FRAME["kind"].eq("dog").to_numpy(int)


def as_arrays(folder: Path, x: Any = X, y: Any = Y) -> Source:
    np.save(folder / "x.npy", x, allow_pickle=True)
    np.save(folder / "y.npy", y, allow_pickle=True)
    return Source(dataset="file", path=str(folder / "x.npy"), target=str(folder / "y.npy"))


FORMS: dict[str, Callable[[Path], Source]] = {".csv": as_csv, ".parquet": as_parquet, ".npy": as_arrays}


def dense(examples: Examples) -> np.ndarray:
    assert isinstance(examples.x, np.ndarray)
    assert examples.x.dtype == np.float32
    return examples.x


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_split_and_labels(form: str, tmp_path: Path) -> None:
    source = FORMS[form](tmp_path)
    found, test = tables.decode(source), tables.decode_test(source)
    train, val, sealed = tables.split((FRAME["kind"] == "dog").to_numpy(np.int64), COUNT, source)
    labels = (FRAME["kind"] == "dog").to_numpy(np.int64)
    assert (found.outputs, found.val, test.val, found.image) == (2, len(val), 0, None)
    assert np.array_equal(found.y, labels[np.concatenate([train, val])])
    assert np.array_equal(test.y, labels[sealed])
    size = FRAME["size"].to_numpy()
    expected = (size - size[train].mean()) / size[train].std()
    assert np.allclose(dense(found)[:, 0], expected[np.concatenate([train, val])], atol=1e-6)
    assert np.allclose(dense(test)[:, 0], expected[sealed], atol=1e-6)


def test_columns_become_numbers(tmp_path: Path) -> None:
    source = as_csv(tmp_path)
    found = tables.decode(source)
    train, val, _ = tables.split((FRAME["kind"] == "dog").to_numpy(np.int64), COUNT, source)
    rows = FRAME.iloc[np.concatenate([train, val])]
    x = dense(found)
    assert x.shape == (len(rows), 6)  # size, age, blue, green, red, new
    assert np.allclose(x[: len(train), :2].mean(axis=0), 0, atol=1e-6)
    assert np.allclose(x[: len(train), :2].std(axis=0), 1, atol=1e-5)
    for column, colour in enumerate(("blue", "green", "red"), 2):
        assert np.array_equal(x[:, column], rows["colour"].eq(colour))
    assert np.array_equal(x[:, 5], rows["new"])


def test_csv_and_parquet_agree(tmp_path: Path) -> None:
    assert np.allclose(dense(tables.decode(as_csv(tmp_path))), dense(tables.decode(as_parquet(tmp_path))), atol=1e-6)


def test_the_test_part_changes_nothing_in_training(tmp_path: Path) -> None:
    source = as_csv(tmp_path)
    before = tables.decode(source)
    sealed = tables.split((FRAME["kind"] == "dog").to_numpy(np.int64), COUNT, source)[2]
    other = FRAME.copy()
    other.loc[sealed, "size"] = 1e6
    other.loc[sealed, "colour"] = "violet"
    after = tables.decode(as_csv(tmp_path, other))
    assert np.array_equal(dense(before), dense(after))
    assert not dense(tables.decode_test(source))[:, 2:5].any()  # no such colour in training


def test_a_constant_column_is_zero_everywhere(tmp_path: Path) -> None:
    found = tables.decode(as_csv(tmp_path, FRAME.assign(size=0.1)))
    assert not dense(found)[:, 0].any()


@pytest.mark.parametrize(
    ("target", "outputs", "first"),
    [
        (["b", "a", "c"], 3, [1, 0, 2]),
        ([10, -1, 7], 3, [2, 0, 1]),
        ([True, False, True], 2, [1, 0, 1]),
        ([0.5, 1.5, 1.0], 1, [0.5, 1.5, 1.0]),
        (range(3 * 101), 1, [0.0, 1.0, 2.0]),  # 303 different integers
    ],
)
def test_what_is_a_class_and_what_a_value(target: Any, outputs: int, first: list[float], tmp_path: Path) -> None:
    y = np.resize(np.array(target), 303)
    found = tables.decode(as_arrays(tmp_path, np.arange(303.0)[:, None], y))
    order = np.argsort(dense(found)[:, 0])
    assert found.outputs == outputs
    assert (found.y.dtype, found.y.shape) == ((np.float32, (found.y.shape[0], 1)) if outputs == 1 else (np.int64, (found.y.shape[0],)))
    values = {float(target): float(y) for target, y in zip(dense(found)[order, 0], np.ravel(found.y)[order], strict=True)}
    train, val, test = tables.split(None if outputs == 1 else np.resize(np.array(first), 303).astype(np.int64), 303, Source())
    kept = sorted(np.concatenate([train, val]))
    assert len(test) > 50
    assert list(values.values()) == [first[i % 3] if len(target) == 3 else float(i) for i in kept]


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    shares=st.tuples(st.floats(0.01, 0.6), st.floats(0, 0.39)),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_split_is_of_every_class_its_share(sizes: list[int], shares: tuple[float, float], seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    source = Source(val_share=shares[0], test_share=shares[1], split_seed=seed)
    parts = tables.split(labels, len(labels), source)
    assert sorted(np.concatenate(parts)) == list(range(len(labels)))
    assert all(np.array_equal(a, b) for a, b in zip(parts, tables.split(labels, len(labels), source), strict=True))
    for number, size in enumerate(sizes):
        train, val, test = ((labels[part] == number).sum() for part in parts)
        if size < 3:
            assert (train, val, test) == (size, 0, 0)
        else:
            assert train >= 1
            assert val >= 1
            assert test >= (shares[1] > 0)
            assert val <= max(1, round(shares[0] * size))
            assert test <= max(1, round(shares[1] * size))


def test_the_sealed_rows_do_not_depend_on_the_validation_share_but_on_the_seed() -> None:
    labels = np.arange(100) % 3
    sealed = [set(tables.split(labels, 100, Source(val_share=share, split_seed=seed))[2]) for share, seed in ((0.1, 0), (0.3, 0), (0.1, 1))]
    assert sealed[0] == sealed[1] != sealed[2]
    assert sorted(sealed[0])[:5] == [2, 7, 8, 13, 16]  # on every machine


CSV = "a,b,y\n1,2,u\n3,4,v\n5,6,u\n7,8,v\n9,10,u\n11,12,v\n13,14,u\n15,16,v\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "x.csv: is empty; its first line must name the columns"),
        ("a,b,y\n", "x.csv: holds no rows"),
        ("a,b,y\n\n\n", "x.csv: holds no rows"),
        ("a,b,z\n1,2,3\n", "x.csv: no column is called 'y'; allowed: a, b, z"),
        ("a,b,a,y\n1,2,3,4\n", "x.csv: column 3 is called 'a', as column 1; names must differ"),
        ("a,,y\n1,2,3\n", "x.csv: column 2 has no name"),
        ("y\n1\n2\n", "x.csv: 'y' is its only column; inputs are needed, too"),
        (CSV.replace("1,2,u", "1,2,u,7"), "x.csv:2: expected 3 values as in the first line, found 4"),
        (CSV.replace("7,8,v", "7,8,v,9"), "Expected 3 fields in line 5, saw 4"),
        (CSV.replace("7,8,v", "7"), "x.csv:5: column 'b': nothing there; fill the gap or drop the row"),
        (CSV.replace("7,8,v", ""), "x.csv:5: column 'a': nothing there"),
        (CSV.replace("7,8,v", "7,,v"), "x.csv:5: column 'b': nothing there"),
        (CSV.replace("7,8,v", "7,8,"), "x.csv:5: column 'y': nothing there"),
        (CSV.replace("7,8,v", "7,inf,v"), "x.csv:5: column 'b': found 'inf'; a finite number is needed"),
        (CSV.replace("7,8,v", "7,NaN,v"), "x.csv:5: column 'b': found the text 'NaN' among numbers; a number is needed"),
        (CSV.replace("7,8,v", "7,8 m,v"), "x.csv:5: column 'b': found the text '8 m' among numbers"),
        (CSV.replace("u", "v"), "x.csv: target y is 'v' in all 8 rows; two classes are needed"),
        ("a,y\n1,u\n2,v\n", "x.csv: 2 rows are too few: 2 would train, 0 validate and 0 test"),
        (CSV + '1,2,"u\n', "x.csv: expected comma-separated text in UTF-8, all lines equally long, found: "),
        (CSV.replace("7,8", f"7,{10**30}"), f"x.csv:5: column 'b': found '{10**30}'; a number of at most 64 bits is needed"),
        (CSV.replace("7,8", "7,1e300"), "column 'b' has numbers too large for 32 bits; scale it"),
    ],
)
def test_a_broken_csv_is_named_with_line_and_column(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as raised:
        tables.decode(Source(dataset="file", path=str(tmp_path / "x.csv"), target="y"))
    assert said in str(raised.value)


def test_text_that_is_not_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(CSV.replace("7,8,v", "7,8,\xe9").encode("latin-1"))
    with pytest.raises(DataError, match=r"x\.csv: expected comma-separated text in UTF-8.*can't decode"):
        tables.decode(Source(dataset="file", path=str(tmp_path / "x.csv"), target="y"))


def test_a_byte_order_mark_crlf_and_blank_lines_at_the_end_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    assert len(tables.decode(Source(dataset="file", path=str(tmp_path / "x.csv"), target="y", test_share=0)).y) == 8


GOOD_X, GOOD_Y = np.arange(20.0).reshape(10, 2), np.arange(10) % 2


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (GOOD_X[:9], GOOD_Y, "x.npy has 9 rows and "),
        (GOOD_X[:, 0], GOOD_Y, "x.npy: expected numbers of the shape [rows, columns], found float64 [10]"),
        (GOOD_X[:, :0], GOOD_Y, "found float64 [10, 0]"),
        (GOOD_X.astype(str), GOOD_Y, "x.npy: expected numbers"),
        (GOOD_X.astype(complex), GOOD_Y, "x.npy: expected numbers"),
        (GOOD_X.astype(object), GOOD_Y, "x.npy: expected one NumPy array without pickled objects, found: "),
        (GOOD_X, GOOD_Y.astype(object), "y.npy: expected one NumPy array without pickled objects, found: "),
        (GOOD_X, np.zeros((10, 2), int), "y.npy: expected classes [rows], or floats [rows] or [rows, values], found int64 [10, 2]"),
        (np.where(GOOD_X == 7, np.nan, GOOD_X), GOOD_Y, "x.npy: row 4, column 2: a finite number is needed"),
        (GOOD_X, np.where(GOOD_Y == 1, np.inf, 0.5), "y.npy: row 2: a finite number is needed"),
        (GOOD_X, np.zeros(10, int), "target "),
        (GOOD_X[:0], GOOD_Y[:0], "0 rows are too few"),
    ],
)
def test_broken_arrays_are_named(x: Any, y: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        tables.decode(as_arrays(tmp_path, x, y))
    assert said in str(raised.value)


def test_arrays_hold_several_values_or_texts_or_whole_numbers(tmp_path: Path) -> None:
    assert tables.decode(as_arrays(tmp_path, GOOD_X, GOOD_X)).outputs == 2
    assert tables.decode(as_arrays(tmp_path, GOOD_X.astype(np.uint8), GOOD_Y.astype(np.uint8))).outputs == 2
    assert tables.decode(as_arrays(tmp_path, GOOD_X > 5, np.array(["a", "b"])[GOOD_Y])).outputs == 2


def test_broken_parquet_is_named(tmp_path: Path) -> None:
    source = as_parquet(tmp_path)
    path = tmp_path / "x.parquet"
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[: len(whole) // 2], whole[:-1], b"a,kind\n1,u\n"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.parquet: expected a whole Parquet file, found: "):
            tables.decode(source)
    stamps = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(COUNT), unit="D")
    strange = {
        "dates": (stamps, "found "),
        "lists": ([[1]] * COUNT, "found "),
        "money": ([Decimal("1.5")] * COUNT, r":1: column 'money': found '1.5' \(Decimal\); numbers, texts or booleans are needed"),
        "gaps": ([None, *range(COUNT - 1)], ":1: column 'gaps': nothing"),
    }
    for name, (values, said) in strange.items():
        as_parquet(tmp_path, FRAME.assign(**{name: values}))
        with pytest.raises(DataError, match=rf"column '{name}': |{said}"):
            tables.decode(source)
    pq.write_table(pa.table([pa.array([1, 2]), pa.array([1, 2]), pa.array(["u", "v"])], names=["a", "a", "kind"]), path)
    with pytest.raises(DataError, match="column 2 is called 'a', as column 1"):
        tables.decode(source)


def test_an_index_without_a_name_is_no_input(tmp_path: Path) -> None:
    rows = [i for i in range(COUNT) if i != 5]
    as_parquet(tmp_path, FRAME.iloc[rows])
    assert "__index_level_0__" in pq.read_schema(tmp_path / "x.parquet").names
    assert tables.decode(Source(dataset="file", path=str(tmp_path / "x.parquet"), target="kind")).columns == 6


def test_parquet_categories_and_missing_numbers_of_pandas_are_understood(tmp_path: Path) -> None:
    frame = FRAME.astype({"colour": "category", "age": "Int64", "new": "boolean"})
    assert np.array_equal(dense(tables.decode(as_parquet(tmp_path, frame))), dense(tables.decode(as_parquet(tmp_path))))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"path": None}, "dataset `file` needs two settings: `path`, your file, and `target`"),
        ({"target": None}, "dataset `file` needs two settings"),
        ({"path": "none.csv"}, "none.csv is not there, or is no file; give the path of yours"),
        ({"path": "."}, "the name ends with ''; allowed: .csv, .parquet, .npy"),
        ({"path": "x.cvs"}, "x.cvs: the name ends with '.cvs'; did you mean `.csv`?"),
        ({"target": "kin"}, "no column is called 'kin'; did you mean `kind`?"),
        ({"val_share": 0.6, "test_share": 0.4}, "val_share 0.6 and test_share 0.4 leave no rows to train on; lower one"),
        ({"path": "none" * 2000 + ".csv"}, ".csv is not there, or is no file"),
        ({"path": "no\0ne.csv"}, "ne.csv is not there, or is no file"),
        ({"path": "~nobody-of-this-name/x.csv"}, "~nobody-of-this-name/x.csv: Could not determine home directory. Write the path in full"),
        ({"val_share": 0.0}, "val_share 0 must be above 0, and test_share 0.2 at least 0"),
        ({"val_share": math.nan}, "val_share nan must be above 0"),
        ({"val_share": 1.5, "test_share": -1.0}, "test_share -1 at least 0"),
        ({"split_seed": -1}, "split_seed: -1 is none; it must be at least 0 and below 2^32"),
        ({"split_seed": 2**32}, "split_seed: 4294967296 is none; it must be at least 0 and below 2^32"),
    ],
)
def test_what_could_not_begin_is_said_before_a_search_starts(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    source = as_csv(tmp_path)
    tables.check(source)
    for attempt in (tables.check, tables.decode, tables.decode_test):
        with pytest.raises(DataError) as raised:
            attempt(replace(source, **change))
        assert said in str(raised.value)


def test_too_many_texts_are_named(tmp_path: Path) -> None:
    many = pd.DataFrame({"id": [f"x{i}" for i in range(2000)], "kind": ["u", "v"] * 1000})
    with pytest.raises(DataError, match=r"1,200 different texts, 1,200 of them 'id'; at most 1,000 can be inputs"):
        tables.decode(as_csv(tmp_path, many))
    with pytest.raises(DataError, match="target id has 2000 different texts; at most 1000 can be classes"):
        tables.decode(replace(as_csv(tmp_path, many), target="id"))


def test_without_a_test_share_there_is_no_test_part(tmp_path: Path) -> None:
    source = replace(as_csv(tmp_path), test_share=0)
    assert len(tables.decode(source).y) == COUNT
    with pytest.raises(DataError, match="test_share is 0"):
        tables.decode_test(source)


def test_a_sealed_process_decodes_no_test_rows(tmp_path: Path) -> None:
    source = as_csv(tmp_path)
    program = (
        "import sys; from hpo import data; from trainers import tables; from trainers.recipe import Source; data.seal()\n"
        "source = Source(dataset='file', path=sys.argv[1], target='kind'); assert len(tables.decode(source).y) == 32\n"
        "try: tables.decode_test(source)\n"
        "except data.SealedError as error: assert sys.argv[1] in str(error)\n"
        "else: raise SystemExit('got through')"
    )
    subprocess.run([sys.executable, "-c", program, str(source.path)], check=True)


def test_the_files_of_a_source(tmp_path: Path) -> None:
    for form, write in FORMS.items():
        assert [path.name for path in tables.files(write(tmp_path))] == [f"x{form}", *(["y.npy"] if form == ".npy" else [])]


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), put_in=st.binary(max_size=3), how=st.tuples(st.booleans(), st.booleans()))
def test_a_damaged_file_is_an_error_or_sound_examples(
    form: str, tmp_path: Path, where: float, put_in: bytes, how: tuple[bool, bool]
) -> None:
    cut, second = how
    source = FORMS[form](tmp_path)
    damaged = Path(str(source.target)) if second and form == ".npy" else Path(str(source.path))
    whole = damaged.read_bytes()
    place = int(where * len(whole))
    damaged.write_bytes(whole[:place] + put_in + (b"" if cut else whole[place + 1 :]))
    before = sorted(tmp_path.iterdir())
    for decode in (tables.decode, tables.decode_test):
        try:
            found = decode(source)
        except DataError:
            continue
        assert np.isfinite(dense(found)).all()
        assert np.isfinite(found.y).all()
        assert len(found.y) == len(dense(found))
    assert sorted(tmp_path.iterdir()) == before


def test_check_reads_the_head_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "read", None)
    for write in FORMS.values():
        tables.check(write(tmp_path))
