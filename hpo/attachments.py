"""What stands beside a study's rows in MLflow: its spec, a saved view of its trials, its report. None of it keeps the rows waiting.

Each is tried a few times, for artifacts may be kept elsewhere than runs, and a server may refuse an experiment's tags.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from hpo.drawing import REPORT, Drawing
from hpo.mlflow_runs import STUDY
from hpo.mlflow_view import view
from hpo.projection import Projection

ATTEMPTS = 5
PAUSE_S = 0.2  # after the first attempt at a file; twice as long after each further one
SPEC = "spec.json"
PAGE = f"{REPORT}/index.html"


class Shelf(Protocol):
    """Where it is kept."""

    def attach(self, run_id: str, document: Any, name: str) -> None:
        """Keep a JSON document with a run, unless it has one of that name."""

    def offer(self, tag: str, content: str) -> None:
        """Give the experiment a tag, unless it has that."""

    def put(self, run_id: str, file: Path, folder: str) -> None:
        """Keep a file with a run, in the place of an earlier one."""

    def has(self, run_id: str, file: str) -> bool:
        """Whether a file is kept with a run."""


class Attachments:
    """What is attached to one study's record; `say` is told what could not be, `wait(seconds)` pauses."""

    def __init__(self, say: Callable[[str], object], wait: Callable[[float], object]) -> None:
        self._say, self._wait = say, wait
        self._left = {"spec": ATTEMPTS, "view": ATTEMPTS}
        self._takes_files = True
        self._drawing: Drawing | None = None
        self._drawn_at = 0  # the journal's line up to which it is drawn; 0 before it is begun

    def spec(self, store: Shelf, projection: Projection) -> None:
        """The spec, word for word; what the store answers is raised, until that happened too often."""
        if not self._left["spec"]:
            return
        try:
            store.attach(projection.runs[STUDY].run_id, projection.spec, SPEC)
            self._left["spec"] = 0
        except Exception as error:  # whatever a place of artifacts raises: it must not hold the rows back for ever
            self._left["spec"] -= 1
            if self._left["spec"]:
                raise
            self._takes_files = False
            self._say(f"{SPEC} could not be stored as an artifact: {_why(error)}")

    def view(self, store: Shelf, projection: Projection) -> None:
        """The saved view. Raises nothing: it is tried again when this is called again."""
        if not self._left["view"]:
            return
        try:
            store.offer(*view(projection))
            self._left["view"] = 0
        except Exception as error:  # it is one click less for people, and worth nobody's waiting
            self._left["view"] -= 1
            self._say(f"the view of all trials could not be saved with the experiment: {_why(error)}")

    def prepare(self, study: Path) -> None:
        """Have a process loaded that can draw the report. Raises nothing."""
        if self._drawing is None and self._takes_files:
            with suppress(OSError):  # no memory for a process: it is drawn here, and then
                self._drawing = Drawing(study)

    def begin(self, projection: Projection, study: Path) -> None:
        """Have the report that will be asked for drawn meanwhile, by a process of its own. Raises nothing."""
        if self._drawn_at not in (0, projection.seq):  # the study went on
            self.close()
        self.prepare(study)
        if self._drawing is not None and not self._drawn_at:
            self._drawing.begin()
            self._drawn_at = projection.seq

    def close(self) -> None:
        """Leave no process behind."""
        if self._drawing is not None:
            self._drawing.end()
        self._drawing, self._drawn_at = None, 0

    def report(self, store: Shelf, projection: Projection, study: Path, *, again: bool = True) -> None:
        """The report on the study in the folder `study`, as it is now; with `again` in an earlier one's place. Raises nothing."""
        run_id = projection.runs[STUDY].run_id
        if not self._takes_files:
            return
        try:
            if not again and store.has(run_id, PAGE):
                return
            files = self._files(projection, study)
        except Exception as error:  # a picture is not worth a record
            self._say(f"the report could not be drawn: {_why(error)}")
            return
        for file in files:
            if not self._put(store, run_id, file):
                return

    def _files(self, projection: Projection, study: Path) -> list[Path]:
        drawing, drawn_at = self._drawing, self._drawn_at
        self._drawing, self._drawn_at = None, 0
        if drawing is not None and drawing.finish() and drawn_at == projection.seq:
            return _kept(study)
        return _drawn(study)

    def _put(self, store: Shelf, run_id: str, file: Path) -> bool:
        for attempt in range(ATTEMPTS):
            try:
                store.put(run_id, file, REPORT)
                return True
            except Exception as error:  # whatever a place of artifacts raises: a picture is not worth a record
                if attempt == ATTEMPTS - 1:
                    self._say(f"{REPORT}/{file.name} could not be stored as an artifact: {_why(error)}")
            self._wait(PAUSE_S * 2**attempt)
        return False


def _drawn(study: Path) -> list[Path]:
    from hpo.html_report import write_all  # and with it matplotlib: half a second
    from hpo.results import StoredStudy

    write_all(StoredStudy.open(study), study / REPORT)
    return _kept(study)


def _kept(study: Path) -> list[Path]:
    """The files of the report, its page last: whoever sees that sees all of them."""
    page = PAGE.rpartition("/")[2]
    return sorted((file for file in (study / REPORT).iterdir() if file.is_file()), key=lambda file: (file.name == page, file.name))


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
