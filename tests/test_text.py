"""Bags of words: counted as defined, split without leaks, and broken texts named by member or line."""

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hpo.data import DataError
from tests.dataset_machine import borrow_datasets, needs, put_archive, put_files
from trainers import datasets, text
from trainers.bags import Words, gather, most_frequent, over, take
from trainers.examples import Csr
from trainers.phrases import held_out, sentences
from trainers.recipe import Source
from trainers.splits import Part, SparseRows

IMDB, SST2 = Source(dataset="imdb"), Source(dataset="sst2")


@pytest.fixture(autouse=True, scope="module")
def own_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        borrow_datasets(tmp_path_factory.getbasetemp() / "shared_machine", patch)
        yield


def dense(rows: object) -> NDArray[np.int64]:
    assert isinstance(rows, Csr)
    assert rows.starts.dtype == np.int64
    assert rows.columns.dtype == np.int32
    x = np.zeros((len(rows), rows.width), np.int64)
    for row in range(len(rows)):
        columns = rows.columns[rows.starts[row] : rows.starts[row + 1]]
        assert np.all(np.diff(columns) > 0)
        x[row, columns] = 1 if rows.counts is None else rows.counts[rows.starts[row] : rows.starts[row + 1]]
    return x


@pytest.fixture(autouse=True)
def fresh_memory() -> Iterator[None]:
    datasets._split.cache_clear()
    yield
    datasets._split.cache_clear()


# ---- counting

texts = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=12), min_size=1, max_size=8)


@given(texts, st.one_of(st.none(), st.integers(1, 9)), st.booleans())
@settings(deadline=None)
def test_a_bag_counts_the_most_frequent_words(tokens: list[list[str]], most: int | None, binary: bool) -> None:
    words = Words()
    rows = gather(tokens, words)
    vocabulary = most_frequent(rows, words, most)
    frequency = Counter(word for row in tokens for word in set(row))
    assert vocabulary == sorted(frequency, key=lambda word: (-frequency[word], word))[:most]
    expected = [[row.count(word) for word in vocabulary] for row in tokens]
    assert dense(over(rows, words, vocabulary, binary)).tolist() == [[min(n, 1) if binary else n for n in row] for row in expected]


@given(texts, st.randoms(use_true_random=False))
@settings(deadline=None)
def test_rows_are_taken_in_any_order_and_number(tokens: list[list[str]], rng: random.Random) -> None:
    words = Words()
    rows = gather(tokens, words)
    numbers = [rng.randrange(len(tokens)) for _ in range(rng.randrange(5))]
    taken = over(take(rows, np.array(numbers, np.int64)), words, list(words))
    assert dense(taken).tolist() == dense(over(rows, words, list(words)))[numbers].tolist()


def test_a_count_beyond_a_byte_stays_at_255() -> None:
    words = Words()
    assert dense(over(gather([["a"] * 300], words), words, ["a"])).tolist() == [[255]]


def test_words_that_training_lacks_have_no_column() -> None:
    words = Words()
    rows = gather([["new", "old"], ["old"]], words)
    vocabulary = most_frequent(take(rows, np.array([1])), words, None)
    assert (vocabulary, dense(over(rows, words, vocabulary)).tolist()) == (["old"], [[1], [1]])


# ---- splits


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=40, max_size=80), st.integers(0, 2**31))
@settings(deadline=None)
def test_equal_texts_are_on_one_side(drawn: list[tuple[int, bool]], seed: int) -> None:
    contents = [bytes([number]) for number, _ in drawn]
    labels = np.array([label for _, label in drawn], np.int64)
    train, val = text.split_texts(contents, labels, 8, seed)
    assert sorted([*train, *val]) == list(range(len(drawn)))
    assert not {contents[row] for row in train} & {contents[row] for row in val}
    assert all(count <= 4 for count in Counter(labels[val]).values())


def test_as_many_of_each_label_validate() -> None:
    labels = np.arange(100) % 2
    contents = [str(row // 2 if row < 20 else row).encode() for row in range(100)]  # ten texts occur with both labels
    train, val = text.split_texts(contents, labels, 30, seed=0)
    assert Counter(labels[val].tolist()) == {0: 15, 1: 15}
    assert (len(train), np.any(np.diff(labels[train]) == 0)) == (70, True)
    assert not np.array_equal(val, text.split_texts(contents, labels, 30, seed=1)[1])


PHRASES = ["a good film .", "good", "a good film", "dull ", "dull and long", "and", "good and dull", "long"]


def test_a_sentence_is_a_phrase_that_no_other_contains() -> None:
    assert sentences(PHRASES) == {
        "a good film .": {"good", "a good film"},
        "dull and long": {"dull", "and", "long"},
        "good and dull": {"good", "and", "dull"},
    }


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=5).map(" ".join), min_size=2, max_size=25), st.integers(0, 99))
@settings(deadline=None)
def test_nothing_of_a_held_out_sentence_trains(phrases: list[str], seed: int) -> None:
    train, val = held_out(phrases, 0.3, seed)
    assert len(val) > 0
    assert not set(train) & set(val)
    for row in val:
        assert not [other for other in phrases if f" {phrases[row]} " in f" {other} " and other != phrases[row]]
        assert not [other for other in train if f" {phrases[other]} " in f" {phrases[row]} "]


# ---- IMDB, small

REVIEWS = {
    "train": {"pos": ["Good<br />film, a GOOD one", "great Film", "good", "good"], "neg": ["bad film", "dull", "bad, bad!", "no film"]},
    "test": {"pos": ["good new", "film", "great", "fine"], "neg": ["bad", "dull bad", "film film", "awful"]},
}


def members(order: Callable[[Sequence[str]], list[str]] = list) -> dict[str, bytes]:
    named = {
        f"aclImdb/{half}/{label}/{number}_{7 if label == 'pos' else 2}.txt": review.encode()
        for half, labels in REVIEWS.items()
        for label, reviews in labels.items()
        for number, review in enumerate(reviews)
    }
    others = {"aclImdb/README": b"\xff", "aclImdb/train/unsup/0_0.txt": b"\xff", "aclImdb/train/pos/note.txt": b"\xff"}
    return others | {name: named[name] for name in order(sorted(named))}


@pytest.fixture
def small_imdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, bytes]], Path]:
    """Puts these members where IMDB is expected; four reviews a label and half, two of each validate."""
    monkeypatch.setattr(text, "IMDB_CELL", 4)
    monkeypatch.setattr(text, "IMDB_VAL", 4)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda contents: put_archive("imdb", contents, tmp_path, monkeypatch)


def test_reviews_become_bags(small_imdb: Callable[[dict[str, bytes]], Path]) -> None:
    small_imdb(members())
    examples = text.decode(replace(IMDB, vocabulary=3))
    # in how many reviews: film 4, good 3, bad 2, then dull, great, no, one in one; words of one letter do not count
    sets = {(1, 1, 0, 1): 1, (1, 0, 0, 1): 1, (0, 1, 0, 1): 2, (1, 0, 1, 0): 1, (0, 0, 0, 0): 1, (0, 0, 1, 0): 1, (1, 0, 0, 0): 1}
    assert Counter((*row, label) for row, label in zip(dense(examples.x).tolist(), examples.y.tolist(), strict=True)) == sets
    assert (examples.val, examples.outputs, examples.y[-4:].sum()) == (4, 2, 2)
    good = [row for row in range(8) if dense(examples.x)[row].tolist() == [0, 1, 0]]
    assert (good[0] < 4) == (good[1] < 4)  # the two equal reviews


def test_the_order_in_the_archive_plays_no_part(small_imdb: Callable[[dict[str, bytes]], Path]) -> None:
    small_imdb(members())
    first = text.decode(IMDB)
    small_imdb(members(lambda names: random.Random(1).sample(names, len(names))))
    again = text.decode(IMDB)
    assert np.array_equal(dense(first.x), dense(again.x))
    assert np.array_equal(first.y, again.y)


def test_the_test_reviews_have_the_columns_of_training(small_imdb: Callable[[dict[str, bytes]], Path]) -> None:
    small_imdb(members())
    source = replace(IMDB, vocabulary=3)
    test, published, trained = text.decode_test(source), text.decode_published(source), text.decode(source)
    sets = Counter({(0, 1, 0, 1): 1, (1, 0, 0, 1): 1, (0, 0, 0, 1): 2, (0, 0, 1, 0): 2, (1, 0, 0, 0): 1, (0, 0, 0, 0): 1})
    rows = [(*row, label) for row, label in zip(dense(published.x).tolist(), published.y.tolist(), strict=True)]
    assert Counter(rows[8:]) == Counter((*row, label) for row, label in zip(dense(test.x).tolist(), test.y.tolist(), strict=True)) == sets
    assert sorted(rows[:8]) == sorted((*row, label) for row, label in zip(dense(trained.x).tolist(), trained.y.tolist(), strict=True))
    assert (published.val, test.val, len(test.y)) == (8, 0, 8)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("aclImdb/train/pos/1_7.txt", b" \n", r"aclImdb/train/pos/1_7\.txt: the text is empty"),
        ("aclImdb/train/neg/3_2.txt", b"na\xefve", r"aclImdb/train/neg/3_2\.txt: byte 2 is no UTF-8"),
        ("aclImdb/train/neg/3_2.txt", None, r"3 reviews in aclImdb/train/neg/, expected 4; .*hpo data get imdb"),
        ("aclImdb/train/pos/9_9.txt", b"more", "5 reviews in aclImdb/train/pos/, expected 4"),
    ],
)
def test_a_broken_review_is_named(name: str, content: bytes | None, said: str, small_imdb: Callable[[dict[str, bytes]], Path]) -> None:
    broken = {other: kept for other, kept in members().items() if other != name} | ({} if content is None else {name: content})
    archive = small_imdb(broken)
    with pytest.raises(DataError, match=f"{archive}: {said}"):
        datasets.load(IMDB)
    assert not list((archive.parent.parent / "cache" / "hpo" / "decoded").glob("[!.]*"))


def test_a_broken_test_review_stops_no_trial(small_imdb: Callable[[dict[str, bytes]], Path]) -> None:
    small_imdb(members() | {"aclImdb/test/pos/1_7.txt": b""})
    assert len(datasets.load(IMDB).train) == 4
    with pytest.raises(DataError, match=r"aclImdb/test/pos/1_7\.txt: the text is empty"):
        datasets.load_test(IMDB)


# ---- SST-2, small

TRAIN = "sentence\tlabel\n" + "".join(f"{phrase}\t{number % 2}\n" for number, phrase in enumerate(PHRASES))
DEV = "sentence\tlabel\nGood films bored me\t1\nlonging and longed\t0\n"
TEST = DEV.replace("\n", "\r\n")
SmallSst2 = Callable[[dict[str, str]], Path]


@pytest.fixture
def small_sst2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallSst2:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    whole = {"train.tsv": TRAIN, "dev.tsv": DEV, "test-labeled.tsv": TEST}
    return lambda files: put_files("sst2", {name: content.encode() for name, content in (whole | files).items()}, tmp_path, monkeypatch)


def test_phrases_become_counts_of_stems(small_sst2: SmallSst2) -> None:
    small_sst2({"train.tsv": TRAIN + "Films filming bored boring\t1\n"})
    examples = text.decode(SST2)
    rows, columns = dense(examples.x), ["good", "and", "dull", "film", "a", "long", ".", "bore"]
    assert rows.shape == (11, len(columns))
    stems = {0: "good film a .", 4: "dull and long", 8: "film film bore bore", 9: "good film bore", 10: "long and long"}
    for row, expected in stems.items():
        assert rows[row].tolist() == [expected.split().count(column) for column in columns]
    assert examples.y.tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 1, 1, 0]
    assert (examples.val, examples.outputs) == (2, 2)
    assert dense(text.decode(replace(SST2, vocabulary=3)).x).tolist() == rows[:, :3].tolist()


def test_sentences_validate_on_their_own(small_sst2: SmallSst2) -> None:
    small_sst2({})
    examples = text.decode(replace(SST2, validation="sentences"))
    # one of three sentences is held out, and of the other phrases those that it does not contain train
    assert (len(examples.y), examples.val) in {(len(PHRASES) - 2, 1), (len(PHRASES) - 3, 1)}
    train, val = held_out(PHRASES, text.HELD_OUT, text.SPLIT_SEED)
    assert examples.y.tolist() == [number % 2 for number in (*train, *val)]


@pytest.mark.parametrize("validation", ["dev", "sentences"])
def test_the_test_sentences_have_the_columns_of_training(validation: Literal["dev", "sentences"], small_sst2: SmallSst2) -> None:
    small_sst2({})
    source = replace(SST2, validation=validation)
    trained, test = text.decode(source), text.decode_test(source)
    assert (test.columns, test.val, test.y.tolist()) == (trained.columns, 0, [1, 0])
    if validation == "dev":  # the same sentences here, with other ends of lines
        assert dense(test.x).tolist() == dense(trained.x)[-2:].tolist()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train.tsv", "label\ttext\na\t1\n", r"train\.tsv\.gz:1: found 'label\\ttext', expected 'sentence\\tlabel'"),
        ("train.tsv", TRAIN + "good film 1\n", r"train\.tsv\.gz:10: found no tab in 'good film 1'; expected a text, a tab and a label"),
        ("train.tsv", TRAIN + "\n", r"train\.tsv\.gz:10: found no tab in ''"),
        ("dev.tsv", DEV + "good\t2\n", r"dev\.tsv\.gz:4: found the label '2'; labels are 0 and 1"),
        ("dev.tsv", DEV + "good\t\n", r"dev\.tsv\.gz:4: found the label ''"),
        ("dev.tsv", DEV + " \t1\n", r"dev\.tsv\.gz:4: the text is empty"),
        ("dev.tsv", "sentence\tlabel\ngood\t1\n", r"dev\.tsv\.gz: 1 rows, not of both labels; expected rows of 0 and of 1"),
        ("dev.tsv", "sentence\tlabel\n", r"dev\.tsv\.gz: 0 rows, not of both labels"),
        ("dev.tsv", "", r"dev\.tsv\.gz: the text is empty"),
    ],
)
def test_a_broken_row_is_named(name: str, content: str, said: str, small_sst2: SmallSst2) -> None:
    folder = small_sst2({name: content})
    with pytest.raises(DataError, match=f"{folder}/{said}"):
        datasets.load(SST2)
    assert not list((folder.parent / "cache" / "hpo" / "decoded").glob("[!.]*"))


# ---- the real texts


def accuracy(train: Part, val: Part) -> float:
    """Of naive Bayes, which learns at once, on `val`."""
    from scipy.sparse import csr_matrix
    from sklearn.naive_bayes import MultinomialNB

    def matrix(part: Part) -> csr_matrix:
        assert isinstance(part.x, SparseRows)
        first, last = int(part.x.starts[0]), int(part.x.starts[-1])
        counts = np.ones(last - first) if part.x.counts is None else part.x.counts[first:last].numpy().astype(float)
        return csr_matrix((counts, part.x.indices[first:last].numpy(), part.x.starts.numpy() - first), shape=(len(part), part.x.columns))

    model = MultinomialNB(alpha=0.1).fit(matrix(train), train.y.numpy())
    return float(model.score(matrix(val), val.y.numpy()))


def test_imdb_is_what_was_published() -> None:
    needs("imdb")
    split = datasets.load(IMDB)
    assert (len(split.train), len(split.val), split.columns, split.outputs) == (20_000, 5_000, 10_000, 2)
    assert (int(split.train.y.sum()), int(split.val.y.sum())) == (10_000, 2_500)
    assert isinstance(split.train.x, SparseRows)
    assert split.train.x.counts is None
    assert split.train.x.indices.numel() * 4 < 13_000_000
    assert 0.83 < accuracy(split.train, split.val) < 0.87


def test_sst2_validates_without_a_leak() -> None:
    needs("sst2")
    dev, sentence = datasets.load(SST2), datasets.load(replace(SST2, validation="sentences"))
    assert (len(dev.train), len(dev.val), dev.columns) == (67_349, 872, 11_076)
    assert (len(sentence.train), len(sentence.val)) == (59_499, 688)
    measured = accuracy(dev.train, dev.val), accuracy(sentence.train, sentence.val)
    assert all(0.77 < value < 0.84 for value in measured), measured
    last = Part(dev.train.x.part(60_000, 67_349), dev.train.y[60_000:])  # as a random split of the phrases would be
    assert accuracy(datasets.load(replace(SST2, train_size=60_000)).train, last) > 0.87
