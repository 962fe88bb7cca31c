"""Broken data files: a message that says where and what, and a cache that holds nothing of them."""

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpo import data
from hpo.data import DataError
from tests.dataset_machine import needs, put_archive, put_files
from trainers import datasets, images, text
from trainers.images import Known
from trainers.recipe import Source
from trainers.splits import Split

MNIST, SST2, IMDB = Source(dataset="mnist"), Source(dataset="sst2"), Source(dataset="imdb")


@pytest.fixture(autouse=True)
def own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No dataset but those that a test puts there."""
    monkeypatch.setenv("HPO_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    datasets._split.cache_clear()
    yield
    datasets._split.cache_clear()


def refused(source: Source, said: str) -> None:
    """Loading says so, and leaves neither an entry nor a temporary file; the lock's file may stay."""
    with pytest.raises(DataError, match=said):
        datasets.load(source)
    with pytest.raises(DataError, match=said):  # a second time too: no trace of the first
        datasets.load(source)
    assert left() == []


def left() -> list[str]:
    folder = data.cache() / "decoded"
    return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix != ".lock"] if folder.exists() else []


# ---- images


def idx(images: int = 8, side: int = 2, labels: bytes = bytes(range(8)), magic: bytes = b"\0\0\x08") -> dict[str, bytes]:
    sizes = np.array([images, side, side], ">u4").tobytes()
    return {
        "train-images-idx3-ubyte": magic + b"\x03" + sizes + bytes(range(images * side * side)),
        "train-labels-idx1-ubyte": b"\0\0\x08\x01" + sizes[:4] + labels,
    }


@pytest.fixture
def small_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes]], Path]:
    """MNIST of 2 x 2 pixels: five images train, three validate; the checksums fit whatever the files hold."""
    monkeypatch.setitem(images.KNOWN, "mnist", Known(5, 3, 2, 2, 255, flips=False))
    return lambda contents: put_files("mnist", contents, tmp_path, monkeypatch)


def test_small_whole_images_load(small_mnist: Callable[[dict[str, bytes]], Path]) -> None:
    small_mnist(idx())
    split = datasets.load(MNIST)
    assert sorted([*split.train.y.tolist(), *split.val.y.tolist()]) == list(range(8))
    assert left() != []


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (idx(labels=bytes([1, 2, 3, 10, 5, 6, 7, 255])), r"train-labels-idx1-ubyte\.gz: image 4 has label 10; labels are 0\.\.9"),
        (
            idx(labels=bytes(7)),
            r"train-labels-idx1-ubyte\.gz: 15 bytes that start with 0000080100000008 are no idx file of the sizes \(8,\)",
        ),
        (idx(images=7), r"train-images-idx3-ubyte\.gz: 44 bytes .* of the sizes \(8, 2, 2\)"),
        (idx(side=3), r"train-images-idx3-ubyte\.gz: 88 bytes"),
        (idx(magic=b"\0\0\x0d"), r"train-images-idx3-ubyte\.gz: 48 bytes that start with 00000d03"),
        ({"train-images-idx3-ubyte": b""}, r"train-images-idx3-ubyte\.gz: 0 bytes"),
    ],
)
def test_images_that_are_none_are_refused(
    contents: dict[str, bytes], said: str, small_mnist: Callable[[dict[str, bytes]], Path], tmp_path: Path
) -> None:
    folder = small_mnist(idx() | contents)
    refused(MNIST, f"{folder}/{said}")


def test_images_of_one_class_say_so(small_mnist: Callable[[dict[str, bytes]], Path]) -> None:
    folder = small_mnist(idx(labels=bytes(8)))
    refused(MNIST, rf"{folder}/train-labels-idx1-ubyte\.gz: all 8 images have label 0; expected several classes")


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_other_images_than_the_original_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    for file in data.dataset(name).files:
        (tmp_path / name / f"{file.name}.gz").write_bytes(gzip.compress(b"too short"))
    refused(Source(dataset=name), r"train-images-idx3-ubyte\.gz: expected 47040016 bytes with sha256 .*, found 9 bytes with")


# ---- any damage to what lies on the disk


def damaged(content: bytes, draw: st.DataObject) -> bytes:
    """Cut short, or with one bit the other way."""
    place = draw.draw(st.integers(0, len(content) - 1))
    if draw.draw(st.booleans(), label="cut"):
        return content[:place]
    changed = bytearray(content)
    changed[place] ^= 1 << draw.draw(st.integers(0, 7))
    return bytes(changed)


SENTENCES = "sentence\tlabel\n" + "".join(f"good and bad number {n}\t{n % 2}\n" for n in range(40))
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(drawn=st.data())
@FUZZ
def test_damage_to_a_file_is_an_error_or_plays_no_part(drawn: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    name = drawn.draw(st.sampled_from(["mnist", "sst2"]))
    contents = idx() if name == "mnist" else {"train.tsv": SENTENCES.encode(), "dev.tsv": SENTENCES.encode()}
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.setitem(images.KNOWN, "mnist", Known(5, 3, 2, 2, 255, flips=False))
        folder = put_files(name, contents, home, patch)
        file = folder / f"{drawn.draw(st.sampled_from(sorted(contents)))}.gz"
        file.write_bytes(damaged(file.read_bytes(), drawn))
        split = load_or_refuse(Source(dataset=name), file)
        if split is not None:  # the bit was one of gzip's header
            assert (len(split.train), len(split.val)) == ((5, 3) if name == "mnist" else (40, 40))


@given(drawn=st.data())
@FUZZ
def test_damage_to_an_archive_is_an_error(drawn: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    reviews = {f"aclImdb/train/{label}/{n}_{n}.txt": f"a {label} film".encode() for label in ("pos", "neg") for n in range(4)}
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        patch.setattr(text, "IMDB_CELL", 4)
        patch.setattr(text, "IMDB_VAL", 2)
        archive = put_archive("imdb", reviews, home, patch)
        archive.write_bytes(damaged(archive.read_bytes(), drawn))
        refused(IMDB, f"{archive}: expected ")


def load_or_refuse(source: Source, file: Path) -> Split | None:
    """The examples, or None where an error names the file; that leaves nothing behind."""
    datasets._split.cache_clear()
    try:
        return datasets.load(source)
    except DataError as error:
        message = str(error)
    assert str(file) in message
    assert left() == []
    return None


def test_a_damaged_file_of_the_real_texts_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    whole = needs("sst2")
    monkeypatch.setenv("HPO_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "sst2").mkdir()
    for name in ("train.tsv.gz", "dev.tsv.gz", "test-labeled.tsv.gz"):
        (tmp_path / "sst2" / name).symlink_to(whole / name)
    (tmp_path / "sst2" / "dev.tsv.gz").unlink()
    (tmp_path / "sst2" / "dev.tsv.gz").write_bytes((whole / "dev.tsv.gz").read_bytes()[:10_000])
    refused(SST2, r"sst2/dev\.tsv\.gz: expected gzip data of \d+ bytes uncompressed, found: ")


# ---- a user's own file

ROWS = "size,colour,kind\n" + "".join(f"{n},{'red' if n % 3 else 'blue'},{'ab'[n % 2]}\n" for n in range(30))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (ROWS + "nan,red,a\n", ":32: column 'size': found the text 'nan' among numbers"),
        (ROWS + "inf,red,a\n", ":32: column 'size': found 'inf'; a finite number is needed"),
        (ROWS + "x,red,a\n", ":32: column 'size': found the text 'x' among numbers; a number is needed"),
        (ROWS + "7,red,\n", ":32: column 'kind': nothing there"),
        (ROWS + "7,red\n", ":32: column 'kind': nothing there"),
        (ROWS + "7,red,a,more\n", ": expected comma-separated text in UTF-8, all lines equally long, found: .* line 32"),
        (ROWS.replace(",b\n", ",a\n"), ": target kind is 'a' in all 30 rows; two classes are needed"),
        ("size,colour,kind\n", ": holds no rows"),
        ("", ": is empty"),
    ],
)
def test_a_broken_table_is_named(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text(content)
    refused(Source(dataset="file", path=str(file), target="kind"), f"{file}{said}")


@pytest.mark.parametrize("name", ["mine.csv", "no\0ne.csv", f"{'long' * 1000}.csv"], ids=["missing", "zero byte", "long"])
def test_a_table_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    refused(Source(dataset="file", path=str(tmp_path / name), target="kind"), rf"{tmp_path}/{name} is not there, or is no file")


@given(drawn=st.data())
@FUZZ
def test_a_damaged_table_loads_or_is_an_error(drawn: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("home")
        patch.setenv("XDG_CACHE_HOME", str(home / "cache"))
        file = home / "mine.csv"
        file.write_bytes(damaged(ROWS.encode(), drawn))
        split = load_or_refuse(Source(dataset="file", path=str(file), target="kind"), file)
        if split is not None:  # a bit of a number or text makes another one
            assert np.isfinite(split.train.x.dense(slice(None)).numpy()).all()
