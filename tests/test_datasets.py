"""Loading a dataset: its split is fixed, the test part sealed, and what is decoded is kept whole, shared and never mixed."""

import dataclasses
import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hpo.data import DataError, SealedError
from tests.dataset_machine import borrow_datasets, needs
from trainers import datasets, decoded
from trainers.datasets import Shape
from trainers.decoded import Key
from trainers.examples import Csr, Examples
from trainers.recipe import Source
from trainers.splits import DenseRows, SparseRows

DIGITS = Source(dataset="digits")


@pytest.fixture(autouse=True, scope="module")
def own_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        borrow_datasets(tmp_path_factory.mktemp("machine"), patch)
        yield


@pytest.fixture(autouse=True)
def fresh_memory() -> Iterator[None]:
    datasets._split.cache_clear()
    yield
    datasets._split.cache_clear()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "hpo" / "decoded"


def entries(own_cache: Path) -> list[str]:
    """Names of everything in the cache but lock files."""
    return sorted(entry.name for entry in own_cache.iterdir() if entry.suffix != ".lock") if own_cache.exists() else []


def dense(rows: DenseRows | SparseRows) -> NDArray[np.float32]:
    return rows.dense(slice(None)).numpy()


# ---- the split


def test_the_split_is_fixed_and_its_parts_are_disjoint() -> None:
    from sklearn.datasets import load_digits

    split, test = datasets.load(DIGITS), datasets.load_test(DIGITS)
    assert (len(split.train), len(split.val), len(test), split.outputs) == (1_197, 300, 300, 10)
    assert (split.image, split.flips, split.classifies, split.columns) == ((1, 8, 8), False, True, 64)
    small = datasets.load(dataclasses.replace(DIGITS, train_size=100, val_size=50))
    assert np.array_equal(dense(small.train.x), dense(split.train.x)[:100])
    assert torch.equal(small.val.y, split.val.y[:50])
    assert split.train.y[:12].tolist() == [2, 8, 2, 6, 6, 7, 1, 9, 8, 5, 2, 8]
    x, y = load_digits(return_X_y=True)
    labels = {bytes(row): int(label) for row, label in zip(x.astype(np.uint8), y, strict=True)}
    parts = (split.train, split.val, test)
    seen = [bytes(row) for part in parts for row in part.x.values.numpy()]
    assert len(set(seen)) == len(seen) == len(labels) == 1_797
    assert [labels[row] for row in seen] == torch.cat([part.y for part in parts]).tolist()


def test_a_model_sees_values_from_0_to_1() -> None:
    x = dense(datasets.load(DIGITS).train.x)
    assert (x.min(), x.max(), x.dtype) == (0.0, 1.0, np.float32)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"train_size": 0}, r"train_size: 0 is outside 1..1197, the examples that digits has"),
        ({"train_size": 1198}, "train_size: 1198"),
        ({"train_size": 5, "val_size": 301}, "val_size: 301 is outside 1..300"),
    ],
)
def test_sizes_that_the_dataset_does_not_have_are_refused(sizes: dict[str, int], said: str) -> None:
    with pytest.raises(DataError, match=said):
        datasets.load(dataclasses.replace(DIGITS, **sizes))


@pytest.mark.parametrize("ask", [datasets.load, datasets.load_test, datasets.shape])
def test_an_unknown_dataset_is_refused(ask: Callable[[Source], object]) -> None:
    with pytest.raises(DataError, match="dataset 'digit' is not known; did you mean `digits`"):
        ask(Source(dataset="digit"))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("digits", Shape(64, 10, (1, 8, 8), True)),
        ("mnist", Shape(784, 10, (1, 28, 28), True)),
        ("fashion-mnist", Shape(784, 10, (1, 28, 28), True)),
    ],
)
def test_the_shape_of_known_images_needs_no_files(name: str, shape: Shape, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_DATA", "/nowhere")
    assert datasets.shape(Source(dataset=name)) == shape
    assert not own_cache.exists()


@pytest.mark.parametrize("source", [Source(dataset="sst2"), Source(dataset="proben1", problem="glass2")])
def test_the_shape_of_others_is_that_of_their_examples(source: Source) -> None:
    needs(source.dataset)
    split = datasets.load(source)
    assert datasets.shape(source) == Shape(split.columns, split.outputs, None, split.classifies)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="loading onto a GPU is not tested: none here")
@pytest.mark.parametrize("name", ["digits", "sst2"])
def test_it_loads_onto_a_gpu(name: str) -> None:
    if name != "digits":
        needs(name)
    here, there = datasets.load(Source(dataset=name)), datasets.load(Source(dataset=name), "cuda:0")
    assert there.val.x.dense(slice(None)).device.type == there.val.y.device.type == "cuda"
    assert np.array_equal(there.val.x.dense(slice(None)).cpu().numpy(), dense(here.val.x))


# ---- the seal


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Any]]]:
    """What a sealed process with an empty cache gets of each dataset: its cache, and counts of both parts and two refusals."""
    home = tmp_path_factory.mktemp("sealed")
    program = """
import json
from hpo import data; data.seal()
from trainers import datasets
from trainers.recipe import Source
found = {}
for name in ("digits", "mnist", "fashion-mnist"):
    if data.find(name):
        split = datasets.load(Source(dataset=name))
        found[name] = [len(split.train), len(split.val)]
        for load, source in ((datasets.load_test, Source(dataset=name)), (datasets.load_published, Source(dataset="imdb"))):
            try:
                load(source)
            except data.SealedError as error:
                found[name].append(str(error).partition(":")[0])
print(json.dumps(found))
"""
    environment = os.environ | {"XDG_CACHE_HOME": str(home)}
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment)
    return home / "hpo" / "decoded", json.loads(done.stdout)


@pytest.mark.parametrize(("name", "train", "val"), [("digits", 1_197, 300), ("mnist", 50_000, 10_000), ("fashion-mnist", 50_000, 10_000)])
def test_a_sealed_process_loads_and_cannot_test(name: str, train: int, val: int, sealed: tuple[Path, dict[str, list[Any]]]) -> None:
    folder, (cache, found) = needs(name), sealed
    assert found[name] == [train, val, f"the test part of {name}", "the published protocol of imdb, which validates on test reviews"]
    if name != "digits":
        with gzip.open(folder / "train-labels-idx1-ubyte.gz") as file:
            labels = np.frombuffer(file.read(), np.uint8, offset=8)
        (stored,) = cache.glob(f"{name}-*/y.npy")
        assert np.array_equal(np.bincount(np.load(stored)), np.bincount(labels))


def test_the_test_part_is_the_published_one() -> None:
    folder = needs("mnist")
    test = datasets.load_test(Source(dataset="mnist"))
    with gzip.open(folder / "t10k-labels-idx1-ubyte.gz") as file:
        assert test.y.tolist() == list(file.read()[8:])
    assert test.x.values.shape == (10_000, 784)


def test_only_imdb_has_a_published_protocol_on_test_data() -> None:
    with pytest.raises(DataError, match=r"'mnist' has no published protocol .* only imdb has"):
        datasets.load_published(Source(dataset="mnist"))


# ---- what is kept


def same(one: Examples, other: Examples) -> bool:
    """Whether two are equal in every bit and type."""
    fields = dataclasses.fields(Examples)
    return all(_same(getattr(one, field.name), getattr(other, field.name)) for field in fields)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Csr):
        return isinstance(other, Csr) and all(_same(getattr(one, name), getattr(other, name)) for name in Csr.__slots__)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return bool(one == other)


@st.composite
def examples(draw: st.DrawFn) -> Examples:
    rng = np.random.RandomState(draw(st.integers(0, 2**31)))
    rows, columns, outputs = draw(st.integers(1, 6)), draw(st.integers(1, 9)), draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["bytes", "floats", "ones", "counts"]))
    x: NDArray[Any] | Csr = rng.randn(rows, columns).astype(np.float32)
    if kind == "bytes":
        x = np.asfortranarray(rng.randint(0, 256, (rows, columns)).astype(np.uint8))
    elif kind != "floats":
        held = rng.rand(rows, columns) < draw(st.sampled_from([0, 0.3]))
        counts = rng.randint(1, 256, held.sum()).astype(np.uint8) if kind == "counts" else None
        x = Csr(np.concatenate([[0], held.sum(1).cumsum()]).astype(np.int64), np.nonzero(held)[1].astype(np.int32), counts, columns)
    y: Any = rng.randint(0, outputs, rows) if draw(st.booleans()) else rng.randn(rows, outputs).astype(np.float32)
    image = draw(st.sampled_from([None, (1, 1, columns)]))
    return Examples(x, y, outputs, draw(st.integers(0, rows)), draw(st.floats(1e-3, 10)), image, draw(st.booleans()))


@given(given_examples=examples())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_kept_comes_back(given_examples: Examples, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        for decode in (lambda: given_examples, lambda: pytest.fail("decoded twice")):
            assert same(decoded.kept(Key("tiny", {}), decode), given_examples)


def test_what_is_kept_is_mapped_and_protected(own_cache: Path) -> None:
    first = datasets.load(DIGITS)
    (entry,) = own_cache.glob("digits-*")
    assert sorted(file.name for file in entry.iterdir()) == ["description.json", "x.npy", "y.npy"]
    before = (entry / "x.npy").read_bytes()
    first.train.x.values[0] = 77  # a stray write stays in this process
    assert (entry / "x.npy").read_bytes() == before
    assert np.load(entry / "x.npy", allow_pickle=False).shape == (1_497, 64)
    assert str(entry / "x.npy") in Path("/proc/self/maps").read_text(encoding="utf-8")


def test_one_process_and_device_has_one_copy() -> None:
    one, other = datasets.load(DIGITS), datasets.load(dataclasses.replace(DIGITS, train_size=7, vocabulary=3, path="x.csv"))
    assert one.train.x.values.data_ptr() == other.train.x.values.data_ptr()


TINY = Examples(Csr(np.array([0, 2, 3]), np.array([0, 3, 1], np.int32), np.array([1, 2, 3], np.uint8), 5), np.array([0, 1]), 2, 1)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of one entry."""
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("written")
        patch.setenv("XDG_CACHE_HOME", str(home))
        decoded.kept(Key("tiny", {}), lambda: TINY)
        (entry,) = (home / "hpo" / "decoded").glob("tiny-*")
        return {file.name: file.read_bytes() for file in entry.iterdir()}


@given(drawn=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_entry_is_made_again(written: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory, drawn: st.DataObject) -> None:
    name = drawn.draw(st.sampled_from(sorted(written)))
    content = bytearray(written[name])
    place = drawn.draw(st.integers(0, len(content) - 1))
    if drawn.draw(st.booleans(), label="cut"):
        del content[place:]
    else:
        content[place] ^= 1 << drawn.draw(st.integers(0, 7))
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(home))
        entry = home / "hpo" / "decoded" / Key("tiny", {}).entry
        entry.mkdir(parents=True)
        for other, whole in written.items():
            (entry / other).write_bytes(whole)
        (entry / name).write_bytes(content)
        assert same(decoded.kept(Key("tiny", {}), lambda: TINY), TINY)
        assert decoded._map(entry, Key("tiny", {})) is not None
        assert entries(entry.parent) == [entry.name]


@pytest.mark.parametrize("foreign", ["a file", "an empty folder", "another description", "a file left out"])
def test_what_is_not_ours_is_made_again(foreign: str, own_cache: Path, written: dict[str, bytes]) -> None:
    entry = own_cache / Key("tiny", {}).entry
    own_cache.mkdir(parents=True)
    if foreign == "a file":
        entry.write_text("not a folder")
    else:
        entry.mkdir()
    if foreign == "another description":
        (entry / "description.json").write_text("[]\n")
    if foreign == "a file left out":
        for name in sorted(written)[:-1]:
            (entry / name).write_bytes(written[name])
    assert same(decoded.kept(Key("tiny", {}), lambda: TINY), TINY)
    assert entries(own_cache) == [entry.name]


def test_files_of_two_writings_are_not_mixed(own_cache: Path) -> None:
    more = dataclasses.replace(TINY, y=np.array([1, 0]))
    decoded.kept(Key("tiny", {}, "first"), lambda: TINY)
    entry = own_cache / Key("tiny", {}).entry
    before = (entry / "y.npy").read_bytes()
    decoded.kept(Key("tiny", {}, "second"), lambda: more)
    (entry / "y.npy").write_bytes(before)
    assert same(decoded.kept(Key("tiny", {}, "second"), lambda: more), more)


@pytest.mark.parametrize("other", [Key("tiny", {"problem": "b"}), Key("tinier", {"problem": "a"}), Key("tiny", {"problem": "a"}, "new")])
def test_another_key_is_another_entry(other: Key, own_cache: Path) -> None:
    decoded.kept(Key("tiny", {"problem": "a"}), lambda: TINY)
    more = dataclasses.replace(TINY, flips=True)
    assert decoded.kept(other, lambda: more).flips
    assert len(entries(own_cache)) == (1 if other.content else 2)  # other content of the same place replaces


def test_only_the_newest_entries_stay(own_cache: Path) -> None:
    for number in range(5):
        key = Key("tiny", {"path": str(number)}, most=3)
        decoded.kept(key, lambda: TINY)
        os.utime(own_cache / key.entry, ns=(number, number))
        decoded.kept(Key("endless", {"path": str(number)}), lambda: TINY)
    kept = {
        json.loads(file.read_text().partition("\n")[0])["key"]["settings"]["path"] for file in own_cache.glob("tiny-*/description.json")
    }
    assert kept == {"2", "3", "4"}
    assert len(list(own_cache.glob("endless-*"))) == 5


def test_what_a_killed_writer_left_is_removed(own_cache: Path) -> None:
    (own_cache / ".tiny-half").mkdir(parents=True)
    (own_cache / ".tiny-half" / "x.npy").write_bytes(b"half")
    (own_cache / ".other-half").mkdir()
    decoded.kept(Key("tiny", {}), lambda: TINY)
    assert entries(own_cache) == [".other-half", Key("tiny", {}).entry]


def test_who_waited_for_the_lock_finds_it_done(own_cache: Path) -> None:
    times = []

    def decode() -> Examples:
        times.append(threading.get_ident())
        return TINY

    threads = [threading.Thread(target=decoded.kept, args=(Key("tiny", {}), decode)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(times) == 1
    assert len(entries(own_cache)) == 1


def _no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def _no_locks(*_: object, **__: object) -> None:
    raise NotImplementedError("FileSystem does not appear to support flock")


@pytest.mark.parametrize("fault", ["no folder", "full disk", "no locks"])
def test_without_a_cache_each_process_keeps_its_own_copy_and_says_so(
    fault: str, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault == "no folder":
        (tmp_path / "cache").write_text("a file where a folder should be")
    elif fault == "full disk":
        monkeypatch.setattr(decoded.np, "save", _no_space)
    else:
        monkeypatch.setattr(decoded.FileLock, "acquire", _no_locks)
    with pytest.warns(RuntimeWarning, match="cannot hold the decoded digits .*a copy of its own in memory; set XDG_CACHE_HOME"):
        split = datasets.load(DIGITS)
    assert len(split.train) == 1_197
    assert entries(own_cache) == []


@pytest.mark.parametrize("error", [DataError("row 7 is broken"), SealedError("row 7 is sealed")])
def test_a_decoder_that_fails_leaves_nothing_and_says_why(error: Exception, own_cache: Path) -> None:
    def decode() -> Examples:
        raise error

    with pytest.raises(type(error), match="row 7 is "):
        decoded.kept(Key("tiny", {}), decode)
    assert entries(own_cache) == []


# ---- a user's own file


class Lines:
    """A decoder of files with one number a line, that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.while_decoding: Callable[[], object] = lambda: None

    def decode(self, source: Source) -> Examples:
        self.asked += 1
        assert source.path is not None
        values = np.array(Path(source.path).read_text(encoding="utf-8").split(), np.float32)
        self.while_decoding()
        return Examples(values[:, None], (values > source.split_seed).astype(np.int64), 2, 1)


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    decoder = Lines()
    monkeypatch.setattr(datasets, "_decoder", lambda _: decoder)
    return decoder


def again(source: Source) -> list[float]:
    """What a fresh process gets."""
    datasets._split.cache_clear()
    return datasets.load(source).train.x.values[:, 0].tolist()


def test_a_file_is_decoded_once_for_each_content_and_split(
    lines: Lines, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("1 2 3")
    monkeypatch.chdir(tmp_path)
    mine = Source(dataset="file", path="mine.csv", target="t")
    assert [again(mine), again(dataclasses.replace(mine, path=str(file), train_size=2))] == [[1, 2]] * 2
    assert lines.asked == 1
    assert again(dataclasses.replace(mine, split_seed=1)) == [1, 2]
    assert lines.asked == 2
    assert len(entries(own_cache)) == 2
    file.write_text("4 5 6 7")
    assert datasets.load(mine).train.x.values[:, 0].tolist() == [4, 5, 6]  # in the same process too
    assert len(entries(own_cache)) == 2  # in the place of the old content


def test_a_file_of_the_same_size_and_time_but_other_content_is_read_again(lines: Lines, own_cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    mine = Source(dataset="file", path=str(file), target="t")
    for content, expected in (("1 2 3", [1, 2]), ("4 5 6", [4, 5])):
        file.write_text(content)
        os.utime(file, ns=(0, 0))
        assert again(mine) == expected


def test_a_file_that_changes_while_it_is_read_is_refused(lines: Lines, own_cache: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("1 2 3")
    lines.while_decoding = lambda: file.write_text("4 5 6 7")
    with pytest.raises(DataError, match=r"mine\.csv changed while it was read"):
        datasets.load(Source(dataset="file", path=str(file), target="t"))
    assert entries(own_cache) == []


def test_few_decoded_files_of_users_stay(lines: Lines, own_cache: Path, tmp_path: Path) -> None:
    for number in range(datasets.USER_FILES_KEPT + 2):
        (tmp_path / f"{number}.csv").write_text("1 2 3")
        again(Source(dataset="file", path=str(tmp_path / f"{number}.csv"), target="t"))
    assert len(entries(own_cache)) == datasets.USER_FILES_KEPT
