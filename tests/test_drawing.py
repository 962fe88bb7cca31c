"""The report that a process of its own draws is the one that would be drawn here, and no such process is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hpo.attachments import Attachments
from hpo.drawing import REPORT, Drawing
from hpo.events import Ended
from hpo.html_report import write_all
from hpo.journal import Journal
from hpo.journal_format import read
from hpo.pictures import CHARTS
from hpo.projection import Projection
from hpo.results import StoredStudy
from hpo.tracking import TrackingState, write_state
from tests.chaos.mlflow_scene import until
from tests.conftest import ROOT
from tests.drawn_studies import STORIES, written

DIES = """
import os, signal, sys
from pathlib import Path
from hpo.drawing import Drawing
drawing = Drawing(Path(sys.argv[1]))
drawing.begin()
print(drawing.process.pid, flush=True)
sys.stdin.read()
"""


class Shelf:
    """Takes files."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def put(self, run_id: str, file: Path, folder: str) -> None:  # noqa: ARG002
        self.kept.append(f"{folder}/{file.name}")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    written(tmp_path / "mixed", STORIES["mixed"])
    return tmp_path / "mixed"


def folded(study: Path) -> Projection:
    projection = Projection()
    for record in read(study / "journal.jsonl"):
        projection.apply(record)
    return projection


def are_drawn(study: Path) -> bool:
    """Whether the last picture is there."""
    return (study / REPORT / f"{list(CHARTS)[-1]}.svg").exists()


def is_there(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_its_page_waits_for_the_model_and_all_is_as_if_it_were_drawn_here(tmp_path: Path) -> None:
    study = written(tmp_path / "pairs", STORIES["pairs"]).folder
    drawing = Drawing(study)
    with Journal.open(study / "journal.jsonl") as journal:  # the study ends when it is loaded already
        journal.append([Ended("budget", 0)])
    drawing.begin()
    until(lambda: are_drawn(study), "pictures")
    assert not (study / REPORT / "index.html").exists()
    write_state(study, TrackingState("sqlite:///x.db", champion_uri="models:/pairs/3"))
    assert drawing.finish()
    page = (study / REPORT / "index.html").read_text()
    assert "models:/pairs/3" in page
    assert "is done" in page
    write_all(StoredStudy.open(study), tmp_path / "here")
    names = sorted(file.name for file in (tmp_path / "here").iterdir())
    assert len(names) == 2 * len(CHARTS) + 1  # of so many trials the importance is drawn, too
    assert sorted(file.name for file in (study / REPORT).iterdir()) == names
    for name in names:
        assert (study / REPORT / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name


def test_it_does_not_outlive_the_process_that_made_it(study: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", DIES, str(study)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as maker:
        assert maker.stdout is not None
        drawing = int(maker.stdout.readline())
        until(lambda: are_drawn(study), "pictures")
        os.kill(drawing, signal.SIGSTOP)  # it cannot notice by itself
        maker.kill()
    until(lambda: not is_there(drawing), "its end")
    assert not (study / REPORT / "index.html").exists()


@pytest.mark.parametrize("cause", ["killed", "never started"])
def test_a_report_is_drawn_here_where_its_process_failed(study: Path, cause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    attached, shelf, projection, made = Attachments(said.append, lambda _: None), Shelf(), folded(study), []

    def start(folder: Path) -> Drawing:
        if cause == "never started":
            raise OSError("no memory")
        made.append(Drawing(folder))
        made[-1].process.kill()
        return made[-1]

    monkeypatch.setattr("hpo.attachments.Drawing", start)
    attached.begin(projection, study)
    attached.report(shelf, projection, study)  # type: ignore[arg-type]
    assert (len(made), said) == (cause == "killed", [])
    assert len(shelf.kept) == 2 * (len(CHARTS) - 1) + 1
    assert shelf.kept[-1] == f"{REPORT}/index.html"


def test_one_process_draws_however_often_it_is_begun_unless_the_study_went_on(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Drawing] = []
    monkeypatch.setattr("hpo.attachments.Drawing", lambda folder: made.append(Drawing(folder)) or made[-1])
    attached, projection = Attachments(pytest.fail, lambda _: None), folded(study)
    attached.prepare(study)
    attached.begin(projection, study)
    attached.begin(projection, study)
    assert len(made) == 1
    projection.seq += 1
    attached.begin(projection, study)
    assert [drawing.process.returncode for drawing in made] == [-signal.SIGKILL, None]
    attached.close()
    assert made[1].process.returncode == -signal.SIGKILL
    attached.close()  # again, and nothing happens


def test_what_was_loaded_for_nothing_draws_nothing(study: Path) -> None:
    assert not Drawing(study).finish()
    assert not (study / REPORT).exists()


def test_what_cannot_be_read_is_said_and_leaves_no_process(tmp_path: Path) -> None:
    written(tmp_path / "one", STORIES["one"])
    said: list[str] = []
    attached, projection = Attachments(said.append, lambda _: None), folded(tmp_path / "one")
    attached.begin(projection, tmp_path / "nowhere")
    attached.report(Shelf(), projection, tmp_path / "nowhere")  # type: ignore[arg-type]
    assert said[0].startswith("the report could not be drawn: ")
