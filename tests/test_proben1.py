"""Proben1's files: what is decoded, of which rows, and what is said of a broken one."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpo import data
from hpo.data import DataError
from hpo.datasets_known import Archive
from trainers import proben1
from trainers.recipe import Source

ROWS = ["0.5 1 0 1", "0.25 -1 1 0", "1 0 1 0", "0 0.125 0 1"]
PLACE = "proben1.tar.gz: top/cancer/cancer1.dt"


def dt(rows: list[str] = ROWS, **header: int) -> bytes:
    counts = {"bool_in": 0, "real_in": 2, "bool_out": 2, "real_out": 0}
    counts |= {"training_examples": 2, "validation_examples": 1, "test_examples": 1} | header
    return "\n".join([*(f"{key}={value}" for key, value in counts.items()), *rows, ""]).encode()


def archive_of(**problems: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in problems.items():
            member = tarfile.TarInfo(f"top/{name[:-1]}/{name}.dt")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return gzip.compress(out.getvalue(), mtime=0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HPO_DATA", str(tmp_path))
    (tmp_path / "proben1").mkdir()
    return tmp_path / "proben1"


def put(folder: Path, monkeypatch: pytest.MonkeyPatch, **problems: bytes) -> None:
    """An archive of these problems, known by its checksum."""
    lines = (f"{name}.dt\0{hashlib.sha256(problems[name]).hexdigest()}" for name in sorted(problems))
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    known = data.DATASETS["proben1"]
    archive = Archive("proben1.tar.gz", 1000, digest, "http://127.0.0.1:9/", members=".dt")
    fields = {"licence": known.licence, "splits": known.splits, "traps": known.traps, "address": known.address}
    monkeypatch.setitem(data.DATASETS, "proben1", data.Dataset("proben1", **fields, archives=(archive,)))
    (folder / "proben1.tar.gz").write_bytes(archive_of(**problems))


def test_training_rows_then_validation_rows_then_the_sealed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, monkeypatch, cancer1=dt(), cancer2=dt(ROWS[::-1]))
    for problem, rows, labels in (("cancer1", [0, 1, 2, 3], [1, 0, 0, 1]), ("cancer2", [3, 2, 1, 0], [1, 0, 0, 1])):
        inputs = np.array([[0.5, 1], [0.25, -1], [1, 0], [0, 0.125]], np.float32)[rows]
        found, test = proben1.decode(Source(problem=problem)), proben1.decode_test(Source(problem=problem))
        assert (found.x.dtype, found.y.dtype, found.outputs, found.val, found.scale) == (np.float32, np.int64, 2, 1, 1.0)  # type: ignore[union-attr]
        assert np.array_equal(found.x, inputs[:3])  # type: ignore[arg-type]
        assert found.y.tolist() == labels[:3]
        assert np.array_equal(test.x, inputs[3:])  # type: ignore[arg-type]
        assert (test.y.tolist(), test.val) == (labels[3:], 0)


@pytest.mark.parametrize(
    ("outputs", "classifies"),
    [({"bool_out": 2}, True), ({"bool_out": 1, "real_in": 3}, False), ({"bool_out": 0, "real_out": 2}, False)],
)
def test_what_classifies(outputs: dict[str, int], classifies: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, monkeypatch, cancer1=dt(**outputs))
    found = proben1.decode(Source(problem="cancer1"))
    expected = (np.int64, (3,)) if classifies else (np.float32, (3, sum(outputs.values()) - outputs.get("real_in", 0)))
    assert (found.y.dtype, found.y.shape) == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", f"{PLACE}:1: expected `bool_in=` and a number up to 1000000, the file ends"),
        (dt()[:20], f"{PLACE}:3: expected `bool_out=`"),
        (dt().replace(b"real_in=2", b"real_in=two"), f"{PLACE}:2: expected `real_in=` and a number up to 1000000, found 'real_in=two'"),
        (dt(real_in=9_999_999), f"{PLACE}:2: expected `real_in=` and a number up to 1000000"),
        (dt(ROWS[:3]), f"{PLACE}: the header promises 4 rows, found 3"),
        (dt([*ROWS, ROWS[0]]), f"{PLACE}: the header promises 4 rows, found 5"),
        (dt(validation_examples=0, test_examples=2), f"{PLACE}: a problem needs inputs, outputs, training and validation rows"),
        (dt(["1 2 0", *ROWS[1:]]), f"{PLACE}:8: expected 4 numbers, found 3"),
        (dt([ROWS[0], "", *ROWS[2:]]), f"{PLACE}:9: expected 4 numbers, found 0"),
        (dt([ROWS[0], "0 x 1 0", *ROWS[2:]]), f"{PLACE}:9: expected numbers, found 'x'"),
        (dt([ROWS[0], "nan 0 1 0", *ROWS[2:]]), f"{PLACE}:9: expected finite numbers"),
        (dt([ROWS[0], "0 1e99 1 0", *ROWS[2:]]), f"{PLACE}:9: expected finite numbers"),
        (dt([*ROWS[:2], "0 0 1 1", ROWS[3]]), f"{PLACE}:10: expected one 1 and 1 zeros as outputs, found 1 1"),
        (dt([*ROWS[:2], "0 0 0.5 0.5", ROWS[3]]), f"{PLACE}:10: expected one 1 and 1 zeros as outputs, found 0.5 0.5"),
    ],
)
def test_a_broken_file_is_named_with_its_line(content: bytes, said: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, monkeypatch, cancer1=content)
    with pytest.raises(DataError) as raised:
        proben1.decode(Source(problem="cancer1"))
    assert said in str(raised.value)


def test_rows_of_the_test_part_are_not_parsed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, monkeypatch, cancer1=dt([*ROWS[:3], "broken"]))
    assert len(proben1.decode(Source(problem="cancer1")).y) == 3
    with pytest.raises(DataError, match=":11: expected 4 numbers, found 1"):
        proben1.decode_test(Source(problem="cancer1"))


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        ("cancer4", "problem 'cancer4' is not one of Proben1's; permutations are 1, 2, 3"),
        ("cancer", "permutations are 1, 2, 3"),
        ("cancr1", "did you mean `cancer`? followed by its permutation, 1, 2 or 3"),
        ("iris1", "allowed: building, cancer, "),
    ],
)
def test_an_unknown_problem_is_said_with_what_was_meant(problem: str, said: str) -> None:
    for attempt in (proben1.decode, proben1.decode_test):
        with pytest.raises(DataError) as raised:
            attempt(Source(problem=problem))
        assert said in str(raised.value)


def test_other_content_is_not_proben1(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(folder, monkeypatch, cancer1=dt())
    (folder / "proben1.tar.gz").write_bytes(archive_of(cancer1=dt(ROWS[::-1])))
    with pytest.raises(DataError, match=r"proben1\.tar\.gz: expected \.dt members with sha256 .*hpo data get proben1"):
        proben1.decode(Source(problem="cancer1"))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), put_in=st.binary(max_size=3), cut=st.booleans())
def test_a_damaged_file_is_an_error_or_sound_examples(where: float, put_in: bytes, cut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, place = dt(), int(where * len(dt()))
    content = whole[:place] + put_in + (b"" if cut else whole[place + 1 :])
    monkeypatch.setattr(data, "archive", lambda _: Path("proben1.tar.gz"))
    monkeypatch.setattr(data, "members", lambda *_: iter([("top/cancer/cancer1.dt", content)]))
    for decode in (proben1.decode, proben1.decode_test):
        try:
            found = decode(Source(problem="cancer1"))
        except DataError:
            continue
        assert len(found.x) == len(found.y)
        assert np.isfinite(found.x).all()  # type: ignore[call-overload]
        assert found.y.dtype == np.float32 or set(found.y.tolist()) <= set(range(found.outputs))


# Table 1 of Prechelt 1994, and the mushroom addendum: rows, inputs, outputs, and whether these are classes
PUBLISHED = {
    "building": (4208, 14, 3, False), "cancer": (699, 9, 2, True), "card": (690, 51, 2, True), "diabetes": (768, 8, 2, True),
    "flare": (1066, 24, 3, False), "gene": (3175, 120, 3, True), "glass": (214, 9, 6, True), "heart": (920, 35, 2, True),
    "hearta": (920, 35, 1, False), "heartac": (303, 35, 1, False), "heartc": (303, 35, 2, True), "horse": (364, 58, 3, True),
    "mushroom": (8124, 125, 2, True), "soybean": (683, 82, 19, True), "thyroid": (7200, 21, 3, True),
}  # fmt: skip


@pytest.fixture(scope="module")
def real() -> dict[str, bytes]:
    """All `.dt` files, read once."""
    if not (Path(os.environ.get("HPO_DATA", "/nowhere")) / "proben1").is_dir():
        pytest.skip("no proben1 under $HPO_DATA")
    members = data.members(data.archive("proben1"), lambda name: name.endswith(".dt"))
    return {name.rpartition("/")[2]: content for name, content in members}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_real_problems_are_those_of_the_report(name: str, real: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    assert {f"{problem}.dt" for problem in proben1.problems()} == real.keys()
    assert set(proben1.problems()) == {f"{known}{permutation}" for known in PUBLISHED for permutation in (1, 2, 3)}
    monkeypatch.setattr(data, "archive", lambda _: Path("proben1.tar.xz"))
    monkeypatch.setattr(
        data, "members", lambda _, wanted: ((member, real[member[1:]]) for member in (f"/{n}" for n in real) if wanted(member))
    )
    parts = [(proben1.decode(source), proben1.decode_test(source)) for source in (Source(problem=f"{name}{n}") for n in (1, 2, 3))]
    for found, test in parts:
        rows = len(found.y) + len(test.y)
        assert (rows, found.columns, found.outputs, found.y.dtype == np.int64) == PUBLISHED[name]
        assert abs(found.val - rows / 4) < 1
        assert abs(len(test.y) - rows / 4) < 1
    sums = [float(np.sum(found.x) + np.sum(test.x)) for found, test in parts]  # type: ignore[arg-type]
    assert np.allclose(sums, sums[0], rtol=1e-4)  # the same rows in other orders
    assert not np.array_equal(parts[0][0].x, parts[1][0].x)  # type: ignore[arg-type]


def test_a_real_problem_is_decoded_from_its_archive(real: dict[str, bytes]) -> None:
    found = proben1.decode(Source(problem="thyroid3"))
    assert real["thyroid3.dt"].splitlines()[7].split()[0] == b"%g" % found.x[0, 0]  # type: ignore[index]


def test_a_sealed_process_cannot_decode_the_test_part() -> None:
    program = (
        "from hpo import data; from trainers import proben1; from trainers.recipe import Source; data.seal()\n"
        "try: proben1.decode_test(Source(problem='cancer1'))\n"
        "except data.SealedError as error: assert 'proben1' in str(error)\n"
        "else: raise SystemExit('got through')"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
