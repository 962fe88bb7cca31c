"""Bags of words: tokens in, sparse counts out. Pure NumPy; knows no files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from trainers.examples import Csr


class Words(dict[str, int]):
    """Words and their numbers, which a new one gets when it is first asked for."""

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        return number


def gather(texts: Iterable[Iterable[str]], words: Words) -> Csr:
    """The bag of each text's tokens, a column for each of `words`, which grow; a row's columns come in no order."""
    lengths, columns, counts = [0], [np.empty(0, np.int32)], [np.empty(0, np.uint8)]
    for tokens in texts:
        bag = Counter(tokens)
        lengths.append(len(bag))
        columns.append(np.fromiter(map(words.__getitem__, bag), np.int32, len(bag)))
        counts.append(np.fromiter((min(count, 255) for count in bag.values()), np.uint8, len(bag)))
    return Csr(np.cumsum(lengths), np.concatenate(columns), np.concatenate(counts), len(words))


def most_frequent(rows: Csr, words: Words, most: int | None) -> list[str]:
    """The `most` words that occur in most rows (None: all that occur), equally frequent ones in alphabetical order."""
    frequency = np.bincount(rows.columns, minlength=len(words)).tolist()
    occurring = (word for word, number in words.items() if frequency[number])
    return sorted(occurring, key=lambda word: (-frequency[words[word]], word))[:most]


def over(rows: Csr, words: Words, vocabulary: list[str], binary: bool = False) -> Csr:
    """The rows with a column for each word of the vocabulary, in its order; other words are left out, and counts if `binary`."""
    column = np.full(len(words), -1, np.int32)
    column[[words[word] for word in vocabulary]] = np.arange(len(vocabulary))
    columns, counts, row = column[rows.columns], rows.counts, np.repeat(np.arange(len(rows)), np.diff(rows.starts))
    places = np.lexsort((columns, row))
    places = places[columns[places] >= 0]
    starts = np.concatenate([[0], np.cumsum(np.bincount(row[places], minlength=len(rows)))])
    return Csr(starts, columns[places], None if binary or counts is None else counts[places], len(vocabulary))


def take(rows: Csr, numbers: NDArray[np.int64]) -> Csr:
    """The rows with these numbers, in this order."""
    first = rows.starts[numbers]
    lengths = rows.starts[numbers + 1] - first
    starts = np.concatenate([[0], np.cumsum(lengths)])
    places = np.arange(starts[-1]) + np.repeat(first - starts[:-1], lengths)
    return Csr(starts, rows.columns[places], None if rows.counts is None else rows.counts[places], rows.width)
