"""The report is one file that fetches nothing, lets no name act, and says of the chosen model what is known and what is not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hpo.html_report import write
from hpo.pictures import CHARTS, draw
from hpo.pictures.picture import Picture
from hpo.results import StoredStudy
from tests.drawn_studies import COMPLETE, HOSTILE, PRUNED, STORIES, Story, finals, written

SECTIONS = ["The choice", "What to change", "What pruning did", "Splits and seeds"]
VOID = {"meta", "img"}


@dataclass(frozen=True)
class Advised:
    advice: str
    evidence: str


class Reader(HTMLParser):
    """What a page holds: its elements, all closed in order, its addresses and its words."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._open += [tag] if tag not in VOID else []
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(study: StoredStudy, folder: Path, pictures: list[Picture] | None = None, findings: tuple[Advised, ...] = ()) -> Reader:
    return Reader(write(study, pictures or [], findings, folder / "report" / "index.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", STORIES)
def test_every_study_has_a_report(name: str, tmp_path: Path) -> None:
    page = read(written(tmp_path / name, STORIES[name]), tmp_path)
    assert all(title in page.text for title in SECTIONS)
    assert page.tags & {"script", "link", "iframe", "object"} == set()


def test_pictures_are_in_the_file_with_their_captions(tmp_path: Path) -> None:
    study = written(tmp_path / "mixed", STORIES["mixed"])
    pictures = draw(study, tmp_path / "report")
    page = read(study, tmp_path, pictures)
    drawn = [one for one in pictures if not one.lacking]
    assert len(page.addresses) == len(drawn) == len(CHARTS) - 1
    assert all(address.startswith("data:image/svg+xml;base64,") for address in page.addresses)
    assert all(one.caption in page.text for one in drawn)
    assert "Not drawn: importance needs at least 20 trials with a result; there are 6." in page.text


def test_nothing_of_a_user_acts(tmp_path: Path) -> None:
    study = written(tmp_path / "hostile", STORIES["hostile"])
    lacking = Picture("x", HOSTILE, "", lacking=HOSTILE)
    page = read(study, tmp_path, [*draw(study, tmp_path / "report"), lacking], (Advised(HOSTILE, HOSTILE),))
    assert "script" not in page.tags
    assert page.handlers == []
    assert all(address.startswith("data:") for address in page.addresses)
    assert page.text.count(" ".join(HOSTILE.split())) >= 5  # parameter's name and value, title, why, advice, evidence
    raw = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert re.search(r"https?://|url\(|@import", raw) is None


def test_advice_comes_with_its_evidence(tmp_path: Path) -> None:
    study = written(tmp_path / "mixed", STORIES["mixed"])
    assert "Nothing that these trials would be sure enough about" in read(study, tmp_path).text
    page = read(study, tmp_path, findings=(Advised("widen it", "7 of 8 lie there"),))
    assert "widen it" in page.text
    assert "7 of 8 lie there" in page.text


def test_without_finals_the_value_is_called_optimistic(tmp_path: Path) -> None:
    text = read(written(tmp_path / "mixed", STORIES["mixed"]), tmp_path).text
    assert "value 0.9 on the validation data" in text
    assert "looks at the validation data is better than the model is" in text
    assert "sealed: the test split was not opened" in text
    assert "there is nothing to choose from" in read(written(tmp_path / "none", STORIES["none"]), tmp_path).text


SEARCH = Story([(COMPLETE, [0.5, 0.9]), (COMPLETE, [0.6, 0.8]), (PRUNED, [0.2])])


def test_the_finals_are_told_whole(tmp_path: Path) -> None:
    text = read(written(tmp_path / "finals", SEARCH, finals(0.7, 0.5)), tmp_path).text
    assert "value 0.7 (the mean of 2 fresh runs, 95 % interval" in text
    assert "sd 0.01414 (2 degrees of freedom)" in text
    assert "0.9, among the best of 5 looks at the validation data: optimistic, 0.2 better than its mean" in text
    assert "better than trial 1 (0.5) (95 %)" in text
    assert "not known: the trainer has none for all that is searched" in text
    assert "on the validation data, final-0, epoch" in text
    assert "test_<b> 0.7 (0.6 to 0.8) on 300 examples, opened once" in text
    assert "3: 2 complete, 1 pruned" in text  # the search's trials alone


def test_who_cannot_be_told_apart_is_named(tmp_path: Path) -> None:
    text = read(written(tmp_path / "finals", SEARCH, finals(0.7, 0.699)), tmp_path).text
    assert "not told apart from trial 1 (0.699)" in text
    assert "not told apart from the winner" in text


def test_a_picture_too_large_as_an_svg_is_a_png(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.html_report.LARGEST_SVG", 100)
    study = written(tmp_path / "one", STORIES["one"])
    page = read(study, tmp_path, draw(study, tmp_path / "report"))
    assert page.addresses
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
