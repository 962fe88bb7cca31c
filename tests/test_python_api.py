"""The same from Python, and what a person sees while it runs."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import hpo
from hpo.brief import duration
from hpo.journal import FILE_NAME, Journal
from hpo.progress import Watch
from hpo.session import Session
from hpo.spec import load_spec
from hpo.trial import Measurement, State
from tests.conftest import ROOT

PLAIN = ROOT / "tests" / "specs" / "plain.yaml"
TRAINER = "tests.small_trainers:quadratic"


def test_launch_returns_a_study_with_its_table_and_its_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(tmp_path))
    study = hpo.launch(PLAIN, trainer_override=TRAINER, trials=4, local=True)
    table = study.trials_dataframe()
    assert list(table.columns) == ["trial", "state", "value", "best_epoch", "epochs", "x", "seconds", "seed", "attempts", "reason"]
    assert table["state"].tolist() == ["complete"] * 4
    assert study.best.value == table["value"].max()
    assert study.best.params["x"] == table.loc[table["value"].idxmax(), "x"]
    assert hpo.open_study("plain").best == study.best
    with pytest.raises(hpo.SpecError):
        hpo.launch(PLAIN, trainer_override=TRAINER, trials=-1)


def test_the_line_that_loads_the_state_does_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(tmp_path))
    study = hpo.launch(PLAIN, trainer_override=TRAINER, trials=2, local=True)
    names: dict[str, object] = {}
    exec(study.best.how_to_load, names)
    assert names["state"]["epoch"] == study.best.epoch


def watched(tmp_path: Path) -> tuple[Session, Console]:
    spec = load_spec(PLAIN, trainer_override=TRAINER, time="1h")
    session = Session(spec, TRAINER, tmp_path, Journal.create(tmp_path / FILE_NAME))
    return session, Console(file=io.StringIO(), force_terminal=False, width=100)


def test_the_table_shows_what_stands_in_the_study(tmp_path: Path) -> None:
    session, console = watched(tmp_path)
    for value in (0.5, 0.75):
        session.next()
        session.study.report(len(session.study.trials) - 1, [Measurement(1, value, {"value": value}, 0.1)])
    session.study.fail(0, "error", "boom [/red]")
    console.print(Watch(session))
    shown = console.file.getvalue()
    for words in ("1 of 6 done: 1 running, 0 complete, 0 pruned, 1 failed", "value 0.75 in trial 1, epoch 1", "2 of at most 36", "about"):
        assert words in shown
    assert session.study.trials[0].state is State.FAILED


def test_what_a_noisy_library_prints_goes_to_the_log(tmp_path: Path) -> None:
    code = """
import os, pathlib, sys
from hpo.progress import quiet
with quiet(pathlib.Path(sys.argv[1])) as terminal:
    os.write(1, b"from C\\n")
    print("from Python")
    terminal.write("for people\\n")
print("after")
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "log")], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("after\n", "for people\n")
    assert (tmp_path / "log").read_text() == "from C\nfrom Python\n"


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59.6, "1m 00s"), (185, "3m 05s"), (3725, "1h 02m")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
