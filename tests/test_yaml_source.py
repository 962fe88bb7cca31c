"""YAML text to data: the core schema of 1.2, positions, and what is refused in milliseconds."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.problem import Place, SpecError
from hpo.yaml_source import MAX_BYTES, MAX_NODES, override, parse_document, read_document


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("1e-4", 1e-4),
        ("1E4", 10000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-2.5e+3", -2500.0),
        ("010", 10),
        ("+7", 7),
        ("0o17", 15),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1:30", "1:30"),
        ("12e", "12e"),
        ("١٢", "١٢"),  # digits, but not those of YAML
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("<<", "<<"),
        ("'1e-4'", "1e-4"),
        ('"null"', "null"),
        (".inf", math.inf),
        ("-.INF", -math.inf),
    ],
)
def test_a_plain_scalar_follows_yaml_1_2(scalar: str, value: object) -> None:
    read = parse_document(f"a: {scalar}\n", "f").data["a"]
    assert read == value
    assert type(read) is type(value)


def test_nan_is_a_number() -> None:
    assert math.isnan(parse_document("a: .nan", "f").data["a"])


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_every_key_and_value_knows_its_line_and_column(start: str, line_end: str) -> None:
    text = start + line_end.join(["# a comment", "ä: {é: 'ü', b: [1, x]}", "block:", "  - deep: 2", "empty:", ""])
    document = parse_document(text.encode(), "f")
    assert document.data == {"ä": {"é": "ü", "b": [1, "x"]}, "block": [{"deep": 2}], "empty": None}
    assert not document.problems
    keys = {path: (place.line, place.column) for path, place in document.keys.items()}
    values = {path: (place.line, place.column) for path, place in document.values.items()}
    assert keys == {
        ("ä",): (2, 1),
        ("ä", "é"): (2, 5),
        ("ä", "b"): (2, 13),
        ("block",): (3, 1),
        ("block", 0, "deep"): (4, 5),
        ("empty",): (5, 1),
    }
    assert values[("ä", "é")] == (2, 8)
    assert values[("ä", "b", 1)] == (2, 20)
    assert values[("block", 0, "deep")] == (4, 11)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("a: 1\nb: 2\na: 3", ["f:3:1: a: duplicate key; it is already given at 1:1"]),
        (
            "a: {b: 1, b: 2, b: 3}",
            ["f:1:11: a.b: duplicate key; it is already given at 1:5", "f:1:17: a.b: duplicate key; it is already given at 1:5"],
        ),
        (
            "1: x\ntrue: y\n~: z",
            [f"f:{n}:1: found {what} as a key; a key is text" for n, what in enumerate(["1", "true", "nothing (null)"], 1)],
        ),
        ("a: !!float 1", ["f:1:4: a: found the tag 'tag:yaml.org,2002:float'; tags are not allowed, write the plain value"]),
        ("a: !x {b: 1}", ["f:1:4: a: found the tag '!x'; tags are not allowed, write the plain value"]),
        (
            "a: &x 1\nb: *x",
            [
                "f:1:4: a: found the anchor &x; anchors are not allowed, write each value where it is used",
                "f:2:4: b: found the alias *x; aliases are not allowed, write the value out",
            ],
        ),
        ("a: 1\n---\nb: 2", ["f:2:1: a second document starts here; a file holds one"]),
        ("a: 1e999", ["f:1:4: a: found 1e999; no floating-point number is that large (the largest is about 1.8e308)"]),
        (f"a: {'9' * 5000}", ["f:1:4: a: found a number of 5000 characters; 300 are allowed"]),
    ],
)
def test_mistakes_that_leave_the_rest_readable(text: str, problems: list[str]) -> None:
    assert [str(problem) for problem in parse_document(text, "f").problems] == problems


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "\n".join(
    f"{b}: &{b} [{','.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "f:1:1: is empty; a mapping is needed"),
        (b"# only a comment\n", "f:1:1: is empty; a mapping is needed"),
        (b"---\n", "f:1:1: is empty; a mapping is needed"),
        (b"a: [1, 2\nb: 3", "f:2:2: is not YAML: did not find expected ',' or ']' (while parsing a flow sequence from 1:4)"),
        (b"a:\n\t- 3", "f:2:1: is not YAML: a tab cannot indent; use spaces (while scanning for the next token from 2:1)"),
        (b"a: 1\n b: 2\n", "f:2:3: is not YAML: mapping values are not allowed in this context"),
        (b"a: \xff\n", "f:1:4: is not UTF-8: byte 0xff at offset 3; save the file as UTF-8"),
        ("é: 1\nü: ".encode() + b"\xe9\n", "f:2:4: is not UTF-8: byte 0xe9 at offset 10; save the file as UTF-8"),
        ("a: 1".encode("utf-16"), "f:1:1: is not UTF-8: byte 0xff at offset 0; save the file as UTF-8"),
        (b"a: 1\nb: \x1b[31m", "f:2:4: found the character U+001B; text without control characters is needed"),
        (b"a: \x00", "f:1:4: found the character U+0000; text without control characters is needed"),
        (b"? [a]\n: 1", "f:1:3: found a list, mapping or alias as a key; a key is text"),
        (b"{[a]: 1}", "f:1:2: found a list, mapping or alias as a key; a key is text"),
        (b"#" * (MAX_BYTES + 1), "f: is longer than 256 KiB; no spec is"),
        (b"[" + b"1," * MAX_NODES + b"]", f"f:1:{2 * MAX_NODES}: [{MAX_NODES - 1}]: more than {MAX_NODES} values; no spec has so many"),
    ],
)
def test_mistakes_that_end_the_reading(content: bytes, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_document(content, "f")
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["[" * 100_000, "- " * 100_000, "{a: " * 60_000, "? " * 100_000, "a:\n" + "[" * 50, BOMB, "a: &a [*a]"])
def test_depth_and_bombs_cost_milliseconds(text: str) -> None:
    start = time.perf_counter()
    try:
        problems = parse_document(text, "f").problems
    except SpecError as error:
        problems = list(error.problems)
    assert time.perf_counter() - start < 0.5
    assert problems
    assert all(problem.line for problem in problems)


def test_what_was_found_before_a_syntax_error_is_reported_with_it() -> None:
    with pytest.raises(SpecError) as caught:
        parse_document("a: 1\na: 2\nb: [", "f")
    assert [problem.line for problem in caught.value.problems] == [2, 4]


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path, message in [
        (tmp_path / "none.yaml", "not found; give the path of a YAML file"),
        (tmp_path / "folder", "is a directory; give the path of a YAML file"),
        (tmp_path / "folder" / ("x" * 300), "cannot be read (File name too long); give the path of a YAML file"),
        (Path("nul\0byte"), "cannot be read (embedded null byte); give the path of a YAML file"),
    ]:
        with pytest.raises(SpecError) as caught:
            read_document(path)
        assert str(caught.value) == f"{path}: {message}"


@pytest.mark.parametrize(
    ("assignment", "data"),
    [
        ("a.b=2", {"a": {"b": 2, "c": "x"}, "l": [1]}),
        ("a.b=1e-4", {"a": {"b": 1e-4, "c": "x"}, "l": [1]}),
        ("a={d: [1, 2]}", {"a": {"d": [1, 2]}, "l": [1]}),
        ("n.e.w=on", {"a": {"b": 1, "c": "x"}, "l": [1], "n": {"e": {"w": "on"}}}),
        ("a.c=", {"a": {"b": 1, "c": None}, "l": [1]}),
        ("a.c=x=y", {"a": {"b": 1, "c": "x=y"}, "l": [1]}),
    ],
)
def test_an_override_sets_a_yaml_value(assignment: str, data: object) -> None:
    document = parse_document("a: {b: 1, c: x}\nl: [1]", "f")
    override(document, assignment)
    assert document.data == data
    assert not document.problems
    path = tuple(assignment.partition("=")[0].split("."))
    assert {place for values, place in document.values.items() if values[: len(path)] == path} == {Place(f"--set {assignment}")}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("a.b", "--set a.b: is not KEY=VALUE, such as `--set budget.trials=20`"),
        ("=3", "--set =3: is not KEY=VALUE, such as `--set budget.trials=20`"),
        ("a..b=3", "--set a..b=3: is not KEY=VALUE, such as `--set budget.trials=20`"),
        ("a.b.c=3", "--set a.b.c=3: a.b.c: cannot be set: one of the keys before its last holds no mapping"),
        ("l.0=3", "--set l.0=3: l.0: cannot be set: one of the keys before its last holds no mapping"),
        ("a.b=[1", "--set a.b=[1: is not YAML: did not find expected ',' or ']' (while parsing a flow sequence from 1:1)"),
        ("a.b=!x 1", "--set a.b=!x 1: found the tag '!x'; tags are not allowed, write the plain value"),
        ("a.b=1\x1b", "--set 'a.b=1\\x1b': found the character U+001B; text without control characters is needed"),
    ],
)
def test_a_wrong_override_is_placed_at_the_option(assignment: str, message: str) -> None:
    document = parse_document("a: {b: 1, c: x}\nl: [1]", "f")
    override(document, assignment)
    assert [str(problem) for problem in document.problems] == [message]


@settings(max_examples=300, deadline=1000)
@given(st.one_of(st.binary(max_size=200), st.text(alphabet="ab1.:-?[]{},&*!|>'\"#% \n\t\\~", max_size=60)))
def test_any_content_is_a_document_or_a_spec_error(content: bytes | str) -> None:
    try:
        document = parse_document(content, "f")
        problems = document.problems
    except SpecError as error:
        problems = list(error.problems)
    for problem in problems:
        assert str(problem).encode().decode().isprintable()
