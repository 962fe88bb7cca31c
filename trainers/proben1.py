"""Decodes Proben1's `.dt` files (Prechelt 1994): a header, then one example a row, training, validation and test in this order."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpo import data
from hpo.data import DataError
from hpo.problem import hint, quoted
from trainers.examples import Examples
from trainers.recipe import Source

NAMES = (
    "building", "cancer", "card", "diabetes", "flare", "gene", "glass", "heart", "hearta", "heartac", "heartc", "horse",
    "mushroom", "soybean", "thyroid",
)  # fmt: skip
PERMUTATIONS = (1, 2, 3)
HEADER = ("bool_in", "real_in", "bool_out", "real_out", "training_examples", "validation_examples", "test_examples")
MOST = 10**6  # examples or columns, far beyond any problem's

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Problem:
    """A `.dt` file: columns of the inputs and of the outputs, whether these are classes (1-of-K), rows of each part.

    `place` names the file in messages; `lines` are its rows, `len(HEADER)` lines further up than in the file.
    """

    place: str
    columns: int
    outputs: int
    classifies: bool
    train: int
    val: int
    test: int
    lines: Sequence[str]


def problems() -> tuple[str, ...]:
    """The 45 names, problem and permutation: building1, building2, ... thyroid3. All classify but building, flare, hearta and heartac."""
    return tuple(f"{name}{permutation}" for name in NAMES for permutation in PERMUTATIONS)


def refuse_unknown(problem: str) -> None:
    """Raise DataError if Proben1 has no such problem."""
    if problem not in problems():
        raise DataError(f"problem {quoted(problem)} is not one of Proben1's; {_meant(problem)}")


def _meant(problem: str) -> str:
    if problem.rstrip("0123456789") in NAMES:
        return f"permutations are {', '.join(map(str, PERMUTATIONS))}"
    return f"{hint(problem.rstrip('0123456789'), NAMES)} followed by its permutation, 1, 2 or 3"


def decode(source: Source) -> Examples:
    """Training and validation examples of `source.problem`, inputs float32 as they are in the file.

    Classes where there is more than one output and all are boolean, else values: building, flare, hearta and heartac.
    The rows of the test part are not parsed. Raises DataError, naming file and line.
    """
    found = _problem(source.problem)
    return _examples(found, 0, found.train + found.val, found.val)


def decode_test(source: Source) -> Examples:
    """The test examples; raises SealedError in a sealed process."""
    data.refuse_if_sealed(f"the test part of proben1's {source.problem}")
    found = _problem(source.problem)
    return _examples(found, found.train + found.val, len(found.lines))


def _problem(name: str) -> Problem:
    refuse_unknown(name)
    path = data.archive("proben1")
    for member, content in data.members(path, lambda member: member.endswith(f"/{name}.dt")):
        return parse(f"{path}: {member}", content)
    raise DataError(f"{path}: holds no {name}.dt")


def parse(place: str, content: bytes) -> Problem:
    """The problem in the bytes of a `.dt` file, its header checked, its rows counted; `place` is what errors name."""
    lines = content.decode("ascii", errors="replace").splitlines()
    header = {}
    for number, key in enumerate(HEADER, 1):
        found = re.fullmatch(rf"{key}=([0-9]{{1,7}})", lines[number - 1].strip()) if number <= len(lines) else None
        if not found or int(found[1]) > MOST:
            text = f"found {quoted(lines[number - 1])}" if number <= len(lines) else "the file ends"
            raise DataError(f"{place}:{number}: expected `{key}=` and a number up to {MOST}, {text}")
        header[key] = int(found[1])
    rows = lines[len(HEADER) :]
    while rows and not rows[-1].strip():
        rows.pop()
    problem = Problem(
        place,
        columns=header["bool_in"] + header["real_in"],
        outputs=header["bool_out"] + header["real_out"],
        classifies=header["bool_out"] > 1 and header["real_out"] == 0,
        train=header["training_examples"],
        val=header["validation_examples"],
        test=header["test_examples"],
        lines=rows,
    )
    _refuse_useless(problem)
    return problem


def _refuse_useless(problem: Problem) -> None:
    promised = problem.train + problem.val + problem.test
    if len(problem.lines) != promised:
        raise DataError(f"{problem.place}: the header promises {promised} rows, found {len(problem.lines)}")
    if not (problem.columns and problem.outputs and problem.train and problem.val):
        raise DataError(f"{problem.place}: a problem needs inputs, outputs, training and validation rows; one of these counts is 0")


def _examples(problem: Problem, first: int, last: int, val: int = 0) -> Examples:
    rows = _numbers(problem, first, last)
    x, y = np.ascontiguousarray(rows[:, : problem.columns]), rows[:, problem.columns :]
    if not problem.classifies:
        return Examples(x, np.ascontiguousarray(y), problem.outputs, val)
    odd = ~(((y == 0) | (y == 1)).all(axis=1) & (y.sum(axis=1) == 1))
    if odd.any():
        row = int(np.argmax(odd))
        text = " ".join(f"{value:g}" for value in y[row])
        raise DataError(f"{_line(problem, first + row)}: expected one 1 and {problem.outputs - 1} zeros as outputs, found {text}")
    return Examples(x, y.argmax(axis=1).astype(np.int64), problem.outputs, val)


def _numbers(problem: Problem, first: int, last: int) -> Array:
    width = problem.columns + problem.outputs
    rows = np.empty((last - first, width), np.float32)
    for number in range(first, last):
        words = problem.lines[number].split()
        if len(words) != width:
            raise DataError(f"{_line(problem, number)}: expected {width} numbers, found {len(words)}")
        try:
            with np.errstate(over="ignore"):  # infinite then, and refused below
                rows[number - first] = words
        except ValueError:
            word = next(word for word in words if not _is_number(word))
            raise DataError(f"{_line(problem, number)}: expected numbers, found {quoted(word)}") from None
    if not np.isfinite(rows).all():
        row = int(np.argmin(np.isfinite(rows).all(axis=1)))
        raise DataError(f"{_line(problem, first + row)}: expected finite numbers")
    return rows


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _line(problem: Problem, row: int) -> str:
    return f"{problem.place}:{row + len(HEADER) + 1}"
