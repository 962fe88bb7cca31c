"""A study's report drawn by a process of its own, beside what its last line waits for: `python -m hpo.drawing STUDY_FOLDER`."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hpo.engine.ray_processes import die_with_parent
from hpo.importing import absent, uncollected

REPORT = "report"  # the folder in the study's


class Drawing:
    """A process that has loaded what drawing takes: with `begin` it draws the report of the study in the folder `study`.

    The process dies with the one that made it. Raises OSError where it cannot be started.
    """

    def __init__(self, study: Path) -> None:
        self.process = subprocess.Popen([sys.executable, "-P", "-m", "hpo.drawing", str(study)], stdin=subprocess.PIPE)

    def begin(self) -> None:
        """Have it draw what the journal says now; all but the page, which names the model."""
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.write(b"\n")
                self.process.stdin.flush()

    def finish(self) -> bool:
        """Have the page written, now that MLflow's state names the model, and wait for it; whether all is there."""
        self._let_go()
        return self.process.wait() == 0

    def end(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self._let_go()
        self.process.wait()

    def _let_go(self) -> None:
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):
                self.process.stdin.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the report of a study: the pictures after a line on stdin, the page when that has ended."""
    die_with_parent()
    (folder,) = sys.argv[1:] if arguments is None else arguments
    study = Path(folder)
    with uncollected():
        from hpo.results import StoredStudy

        _ = StoredStudy.open(study).spec  # what cannot be read ends it here
        with absent("sklearn"):  # for importances that are not ours: a second
            importlib.import_module("optuna.importance")
        for name in ("hpo.findings", "hpo.pictures"):  # and with it matplotlib
            importlib.import_module(name)
        from hpo.html_report import write_all

        if not sys.stdin.readline():
            return 1
        write_all(StoredStudy.open(study), study / REPORT, sys.stdin.read)
    gc.freeze()  # else Python looks through all of it before it ends
    return 0


if __name__ == "__main__":
    sys.exit(main())
