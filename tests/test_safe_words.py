"""What a stranger's journal says is shown, and no more: a terminal obeys none of it, and no page or picture runs it."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sys
import unicodedata
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.cli import main
from hpo.events import Asked, Created, Finished, Measured
from hpo.home import studies
from hpo.journal import FILE_NAME
from hpo.journal_format import Record, encode, read
from hpo.problem import SpecError
from hpo.results import StoredStudy
from hpo.spec import parse_spec
from hpo.terminal import harmless
from tests.simulated_study import simulated, spec

TITLE = "\x1b]0;mine\x07\x1b[2J\x9b31m\x08\x7f"  # sets the window's title, clears the screen, hides what follows
SCRIPT = """"><script>alert(1)</script><img src=x onerror=alert(1)><svg/onload=alert(1)>'javascript:alert(1)"""
COMMANDS = [
    ["status"], ["status", "a"], ["trials", "a"], ["best", "a"], ["explain", "a", "0"], ["report", "a"], ["replay", "a"],
    ["verify", "a", "--offline"], ["trust", "a", "--yes"], ["list"],
]  # fmt: skip
SPEC = """
name: a
trainer: {name: mlp, settings: {dataset: digits}}
objective: {metric: val_accuracy, direction: maximize}
space: {learning_rate: {type: float, low: 1e-4, high: 1e-1, log: true}}
budget: {trials: 3}
"""


def obeyed(text: str) -> list[str]:
    """What a terminal would obey, without what we write in colours ourselves: nothing is, into a file."""
    return [each for each in text if unicodedata.category(each) == "Cc" and each not in "\n\t"]


def told(words: str, folder: Path) -> Path:
    """A home with a study of which every text that is free says `words`, checksums right."""
    study = simulated(folder / "home", "a", spec("budget.trials=12"))
    lines = [encode(record._replace(event=_saying(record.event, words))) for record in study.records]
    (study.folder / FILE_NAME).write_bytes(b"".join(lines))
    return folder / "home"


def _saying(event: Any, words: str) -> Any:
    match event:
        case Created():
            return dataclasses.replace(event, versions={"python": words, words: "1"}, git_commit=words, owner=words)
        case Asked():
            return dataclasses.replace(event, ladder=words)
        case Measured():
            return dataclasses.replace(event, metrics={**event.metrics, words: 1.0})
        case Finished():
            return dataclasses.replace(event, reason=words)
    return event


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_terminal_obeys_nothing_that_a_journal_says(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPO_HOME", str(told(TITLE, tmp_path)))
    monkeypatch.setattr(sys, "argv", ["hpo", *words])
    with contextlib.suppress(SystemExit):
        main()
    said = "".join(capsys.readouterr())
    assert obeyed(said) == []
    assert said.strip() or words[0] == "trust"


def test_a_folder_that_is_called_so_is_no_study(tmp_path: Path) -> None:
    home = told(TITLE, tmp_path)
    (home / "a").rename(home / "a\x1b[2J")
    assert studies(home) == []


def test_what_holds_nothing_of_the_kind_is_left_as_it_is(tmp_path: Path) -> None:
    home = told("größer als 0.5 → weiter", tmp_path)
    records = read(home / "a" / FILE_NAME)
    assert harmless(records, home / "a" / FILE_NAME) is records
    assert StoredStudy.open(home / "a").records == records


@given(st.text(max_size=30))
def test_nothing_of_the_kind_is_left(tmp_path_factory: pytest.TempPathFactory, words: str) -> None:
    journal = tmp_path_factory.getbasetemp() / "words.jsonl"
    record = Record(1, datetime(2026, 1, 1, tzinfo=UTC), Created("a", {"name": [words, {words: words}]}, {words: words}, words, words))
    journal.write_bytes(encode(record))
    (found,) = harmless(read(journal), journal)
    assert obeyed("".join(_texts(found.event))) == []


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for pair in value.items() for each in pair for text in _texts(each)]
    if isinstance(value, list):
        return [text for each in value for text in _texts(each)]
    return (
        [text for field in dataclasses.fields(value) for text in _texts(getattr(value, field.name))]
        if dataclasses.is_dataclass(value)
        else []
    )


@pytest.mark.parametrize("escape", [r"\x1b", r"\e", r"\a", r"\b", r"\0", r"\v", r"\x7f", r"\x9b", r"\u009b", r"\uFFFE", r"\uD800"])
def test_nor_does_a_spec_hold_such_a_character_by_an_escape(escape: str) -> None:
    choices = f'space: {{learning_rate: {{type: categorical, choices: ["a{escape}b", c]}}}}'
    with pytest.raises(SpecError, match=r"character|is not YAML"):
        parse_spec(SPEC.replace("space: {learning_rate: {type: float, low: 1e-4, high: 1e-1, log: true}}", choices), "a.yaml")


class Page(HTMLParser):
    """What of a page runs, or is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [tag] if tag in ("script", "iframe", "object", "embed", "link", "base", "form", "foreignobject", "use", "a") else []
        for name, value in attrs:
            runs = name.startswith("on") or (name in ("src", "href", "xlink:href") and not (value or "").startswith(("data:image/", "#")))
            self.found += [f"{tag} {name}={value}"] if runs else []


def test_no_page_and_no_picture_runs_what_a_journal_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = told(SCRIPT, tmp_path)
    monkeypatch.setenv("HPO_HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["hpo", "report", "a"])
    main()
    files = [*(home / "a" / "report").glob("*.html"), *(home / "a" / "report").glob("*.svg")]
    assert len(files) > 3
    for file in files:
        page = Page()
        page.feed(file.read_text(encoding="utf-8"))
        assert [each for each in page.found if not each.startswith(("use", "a"))] == [], file.name
        assert "<script" not in file.read_text(encoding="utf-8").lower()


def test_a_page_that_runs_something_is_known_for_one() -> None:
    page = Page()
    page.feed(SCRIPT)
    assert re.search("script.*onerror.*onload", " ".join(page.found))
