"""Which phrases belong to which sentences, and a split by sentence. Pure: texts in, row numbers out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def held_out(phrases: Sequence[str], share: float, seed: int) -> tuple[Rows, Rows]:
    """Row numbers that train and that validate, each ascending: a split by sentence.

    A sentence is a phrase that no other phrase contains (as successive tokens). A `share` of the sentences validates,
    themselves and not their parts, as in SST-2's dev set. Whatever a held-out sentence contains does not train, also
    where other sentences contain it too.
    """
    rows, inside = defaultdict(list), sentences(phrases)
    for row, phrase in enumerate(phrases):
        rows[phrase.strip()].append(row)
    whole = sorted(inside)
    chosen = np.random.RandomState(seed).permutation(len(whole))[: max(1, round(share * len(whole)))]
    val = {whole[number] for number in chosen}
    dropped = val.union(*(inside[sentence] for sentence in val))
    train = [row for phrase, numbers in rows.items() if phrase not in dropped for row in numbers]
    return np.sort(np.array(train, np.int64)), np.sort(np.array([row for phrase in val for row in rows[phrase]], np.int64))


def sentences(phrases: Sequence[str]) -> dict[str, set[str]]:
    """Each phrase that no other one contains, with all phrases that it contains."""
    tokens = {phrase.strip(): tuple(phrase.split()) for phrase in phrases}
    known = {split: phrase for phrase, split in tokens.items()}
    contained: set[str] = set()
    found: dict[str, set[str]] = {}
    for phrase, split in sorted(tokens.items(), key=lambda item: -len(item[1])):
        if phrase not in contained:
            spans = (split[i:j] for i in range(len(split)) for j in range(i + 1, len(split) + 1))
            found[phrase] = {known[span] for span in spans if span in known} - {phrase}
            contained |= found[phrase]
    return found
