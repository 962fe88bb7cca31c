"""Decodes datasets of texts into bags of words: IMDB's reviews and SST-2's phrases."""

from __future__ import annotations

import functools
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpo import data
from hpo.data import DataError
from trainers.bags import Words, gather, most_frequent, over, take
from trainers.examples import Csr, Examples
from trainers.phrases import held_out
from trainers.recipe import Source

SPLIT_SEED = 0
IMDB_VOCABULARY = 10_000
IMDB_CELL = 12_500  # reviews of each half and label
IMDB_VAL = 5_000
WORD = re.compile(r"\b\w\w+\b")  # scikit-learn's default: at least two letters or digits
REVIEW = re.compile(r"aclImdb/(train|test)/(neg|pos)/\d+_\d+\.txt")
HEADER = "sentence\tlabel"
HELD_OUT = 0.1  # share of SST-2's training sentences that validates with validation="sentences"

Numbers = NDArray[np.int64]


def decode(source: Source) -> Examples:
    """Training and then validation texts as bags of words; raises DataError where files are missing or damaged.

    IMDB: the `vocabulary` (None: 10,000) words that occur in most of the 25,000 training reviews; a review has 1 for
    each that it holds. 5,000 of these reviews validate, half of them positive; equal texts are on one side. 123 texts
    of the test reviews also occur among those of training: so they were published, and nothing of the test half is
    looked at here.

    SST-2: counts of the Porter stems (Porter 1980, "An algorithm for suffix stripping") of lower-case tokens; the
    `vocabulary` stems that occur in most phrases that train (None: all; 11,076 with validation="dev"). The training
    phrases are parts of the same sentences, so a random share of them tells nothing: the 872 dev sentences validate,
    or with validation="sentences" a tenth of the training sentences (688), whose parts do not train (`held_out`).

    Equally frequent words are taken in alphabetical order.
    """
    if source.dataset == "sst2":
        return _sst2(source, "dev.tsv" if source.validation == "dev" else None)
    reviews = _reviews("train")
    train, val = split_texts(reviews.texts, reviews.labels, IMDB_VAL, SPLIT_SEED)
    return _imdb(source, reviews, train, val)


def decode_published(source: Source) -> Examples:
    """IMDB's 25,000 training reviews, all of which train, then its 25,000 test reviews, which validate.

    Raises SealedError in a sealed process, DataError where the archive is missing or damaged.
    """
    data.refuse_if_sealed("the test part of imdb")
    order = np.random.RandomState(SPLIT_SEED).permutation(2 * IMDB_CELL)
    return _imdb(source, _reviews("train", "test"), order, 2 * IMDB_CELL + order)


def decode_test(source: Source) -> Examples:
    """The test texts, over the columns that `decode` gives; raises SealedError in a sealed process, or DataError."""
    data.refuse_if_sealed(f"the test part of {source.dataset}")
    whole = _sst2(source, "test-labeled.tsv") if source.dataset == "sst2" else decode_published(source)
    assert isinstance(whole.x, Csr)
    test = np.arange(len(whole.y) - whole.val, len(whole.y))
    return Examples(take(whole.x, test), whole.y[test], 2)


def split_texts(texts: Sequence[bytes], labels: Numbers, val: int, seed: int) -> tuple[Numbers, Numbers]:
    """Row numbers that train and that validate, in random order; `val` validate, as many of each label, equal texts together."""
    rows = defaultdict(list)
    for row, text in enumerate(texts):
        rows[text].append(row)
    left = Counter(dict.fromkeys(np.unique(labels).tolist(), val // len(np.unique(labels))))
    order = np.random.RandomState(seed).permutation(len(texts))
    chosen = np.zeros(len(texts), bool)
    for row in order:
        same = rows.pop(texts[row], [])
        needed = Counter(labels[same].tolist())
        if same and needed <= left:
            left -= needed
            chosen[same] = True
    return order[~chosen[order]], order[chosen[order]]


# ---- IMDB


@dataclass(slots=True)
class Reviews:
    """Reviews in the order of their names, training before test: bags over `words`, labels, and a digest of each text."""

    words: Words
    bags: Csr
    labels: Numbers
    texts: list[bytes]


def _imdb(source: Source, reviews: Reviews, train: Numbers, val: Numbers) -> Examples:
    order = np.concatenate([train, val])
    vocabulary = most_frequent(take(reviews.bags, np.arange(2 * IMDB_CELL)), reviews.words, source.vocabulary or IMDB_VOCABULARY)
    bags = over(take(reviews.bags, order), reviews.words, vocabulary, binary=True)
    return Examples(bags, reviews.labels[order], 2, len(val))


def _reviews(*halves: str) -> Reviews:
    """All reviews of these halves; DataError for one that is empty or no UTF-8, or if any is missing."""
    archive, words = data.archive("imdb"), Words()
    names: list[str] = []
    texts: list[bytes] = []

    def tokens() -> Iterator[list[str]]:
        for name, content in data.members(archive, lambda name: (match := REVIEW.fullmatch(name)) is not None and match[1] in halves):
            names.append(name)
            texts.append(hashlib.sha256(content).digest())
            yield WORD.findall(_text(f"{archive}: {name}", content).replace("<br />", " ").lower())

    bags = gather(tokens(), words)
    cells = Counter(name.rpartition("/")[0] for name in names)
    for cell in (f"aclImdb/{half}/{label}" for half in halves for label in ("neg", "pos")):
        if cells[cell] != IMDB_CELL:
            raise DataError(f"{archive}: {cells[cell]} reviews in {cell}/, expected {IMDB_CELL}; fetch it again: hpo data get imdb")
    order = np.array(sorted(range(len(names)), key=lambda row: (names[row].startswith("aclImdb/test/"), names[row])))
    labels = np.array(["/pos/" in names[row] for row in order], np.int64)
    return Reviews(words, take(bags, order), labels, [texts[row] for row in order])


def _text(place: str, content: bytes) -> str:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: byte {error.start} is no UTF-8 ({error.reason})") from error
    if not text.strip():
        raise DataError(f"{place}: the text is empty")
    return text


# ---- SST-2


def _sst2(source: Source, judged: str | None) -> Examples:
    """Training phrases, then the sentences of the file `judged` (None: those held out of training)."""
    texts, labels = _phrases("train.tsv")
    train = np.arange(len(texts))
    val = np.empty(0, np.int64)
    if source.validation == "sentences":
        train, val = held_out(texts, HELD_OUT, SPLIT_SEED)
    if judged is not None:
        more, more_labels = _phrases(judged)
        val = len(texts) + np.arange(len(more))
        texts, labels = texts + more, np.concatenate([labels, more_labels])
    words = Words()
    bags = gather(map(_stemmer(), texts), words)
    order = np.concatenate([train, val])
    vocabulary = most_frequent(take(bags, train), words, source.vocabulary)
    return Examples(over(take(bags, order), words, vocabulary), labels[order], 2, len(val))


def _phrases(name: str) -> tuple[list[str], Numbers]:
    """Texts and labels of a file; DataError, with file and line, for a row that is none."""
    (known,) = (file for file in data.dataset("sst2").files if file.name == name)
    folder = data.locate("sst2")
    place = folder / f"{name}.gz"
    header, *lines = _text(str(place), data.read(folder, known)).splitlines()
    if header != HEADER:
        raise DataError(f"{place}:1: found {header!r}, expected {HEADER!r}")
    rows = [_phrase(f"{place}:{number}", line) for number, line in enumerate(lines, 2)]
    if len({label for _, label in rows}) != 2:
        raise DataError(f"{place}: {len(rows)} rows, not of both labels; expected rows of 0 and of 1")
    return [text for text, _ in rows], np.array([label for _, label in rows], np.int64)


def _phrase(place: str, line: str) -> tuple[str, int]:
    text, tab, label = line.rpartition("\t")
    if not tab:
        raise DataError(f"{place}: found no tab in {line!r}; expected a text, a tab and a label")
    if label not in ("0", "1"):
        raise DataError(f"{place}: found the label {label!r}; labels are 0 and 1")
    if not text.strip():
        raise DataError(f"{place}: the text is empty")
    return text, int(label)


def _stemmer() -> Callable[[str], list[str]]:
    """The stems of a text's tokens, which spaces part; each distinct word is stemmed once."""
    import snowballstemmer

    stem = functools.cache(snowballstemmer.stemmer("porter").stemWord)
    return lambda text: [stem(word) for word in text.lower().split()]
