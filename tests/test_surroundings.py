"""Around a trainer: the watchdog that ends a hanging one, its prints, its working directory, and what it leaves behind."""

from __future__ import annotations

import contextlib
import dataclasses
import faulthandler
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from hpo import checkpoints, trial_files
from hpo.engine.assignment import Failure, Report
from hpo.engine.worker import TrialRun
from hpo.trainer import RunningTrial
from tests.conftest import ROOT
from tests.test_worker import FOREVER, assignment, epochs

HERE = "tests.test_surroundings"


@pytest.fixture
def dumps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the watchdog is told, instead of ending this process."""
    told: list[str] = []
    monkeypatch.setattr(
        faulthandler, "dump_traceback_later", lambda timeout, exit, file: told.append(f"{timeout} {exit} {Path(file.name).name}")
    )
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: told.append("cancelled"))
    return told


def test_a_watchdog_watches_every_epoch_and_no_idle_worker(tmp_path: Path, dumps: list[str]) -> None:
    run = TrialRun(assignment(tmp_path, "quadratic", 3, timeout_s=60.0, lease=2, attempt=3, keep_below=-9.0))
    for _ in range(3):
        run.advance(0.0)
        assert dumps == ["60.0 True hang-2.3.log", "cancelled"]
        dumps.clear()
    run.close()
    assert dumps == ["60.0 True hang-2.3.log", "cancelled"]  # its cleanup may hang, too
    assert list(tmp_path.iterdir()) == []


def test_without_a_timeout_nothing_watches(tmp_path: Path, dumps: list[str]) -> None:
    run = TrialRun(assignment(tmp_path, "quadratic"))
    run.advance(FOREVER)
    run.close()
    assert dumps == []


def in_a_process(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run what would harm this process."""
    return subprocess.run([sys.executable, "-c", program, *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("kind", ["sleeps", "spins in C"])
def test_a_worker_that_hangs_ends_and_says_where(kind: str, tmp_path: Path) -> None:
    program = """if True:
        import sys, pathlib
        import tests.misbehaving
        from tests.test_worker import TrialRun, assignment
        folder, kind = pathlib.Path(sys.argv[1]), sys.argv[2]
        run = TrialRun(assignment(folder, "tests.misbehaving:train", arguments={"kind": kind}, timeout_s=1.0))
        print(run.advance(0.0).measurements[0].epoch, flush=True)
        run.advance(0.0)
        print("never")
    """
    ended = in_a_process(program, str(tmp_path), kind)
    assert (ended.returncode, ended.stdout) == (1, "1\n"), ended.stderr
    log = trial_files.hang_log(tmp_path / "00000", 1, 1).read_text()
    assert log.startswith("Timeout (0:00:01)!")
    assert re.search(r'misbehaving\.py", line [0-9]+ in <lambda>', log)


def test_streams_that_a_trainer_closed_are_open_again(tmp_path: Path) -> None:
    """Else a checkpoint would be opened as descriptor 1, and prints of other threads land in it."""
    program = """if True:
        import os, sys, pathlib
        from tests.test_worker import TrialRun, assignment
        run = TrialRun(assignment(pathlib.Path(sys.argv[1]), "tests.misbehaving:train", 3, arguments={"kind": "closes its streams"}))
        assert len(run.advance(1e9).measurements) == 3
        for number in range(3):
            os.fstat(number)
            assert os.get_inheritable(number)
    """
    assert in_a_process(program, str(tmp_path)).returncode == 0


def hanging(trial: RunningTrial, *, how: str) -> Iterator[dict[str, float]]:
    yield {"value": 1.0}
    match how:
        case "sleeping":
            time.sleep(100)
        case "busy":
            for _ in itertools.count():
                pass
        case "waiting":
            threading.Event().wait(100)
        case "catching":
            while True:
                with contextlib.suppress(Exception):
                    time.sleep(100)
        case "catching everything once":
            try:
                time.sleep(100)
            except:  # noqa: E722
                time.sleep(100)
    yield {"value": 2.0}


@pytest.mark.parametrize("how", ["sleeping", "busy", "waiting", "catching", "catching everything once"])
def test_in_the_users_own_process_a_trainer_that_hangs_is_interrupted(how: str, tmp_path: Path) -> None:
    handler, alarm = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    run = TrialRun(assignment(tmp_path, f"{HERE}:hanging", arguments={"how": how}, timeout_s=0.5), capture=False)
    report = run.advance(FOREVER)
    run.close()
    log = tmp_path / "00000" / "error.log"
    assert epochs(report) == [1]
    assert report.failure == Failure("timeout", f"no epoch ended within limits.trial_timeout (0.5s) (see {log})")
    assert re.search(r'test_surroundings\.py", line [0-9]+, in hanging', log.read_text())
    assert signal.getsignal(signal.SIGALRM) is handler
    assert (signal.getitimer(signal.ITIMER_REAL)[0] > 0) == (alarm[0] > 0)  # pytest's own is still to come


def test_in_another_thread_nothing_is_interrupted(tmp_path: Path) -> None:
    reports: list[Report] = []
    run = TrialRun(assignment(tmp_path, "quadratic", 2, timeout_s=60.0), capture=False)
    thread = threading.Thread(target=lambda: reports.append(run.advance(FOREVER)))
    thread.start()
    thread.join()
    assert epochs(reports[0]) == [1, 2]


def going(trial: RunningTrial, *, there: str) -> Iterator[dict[str, float]]:
    """Goes to a folder and looks whether it is still there."""
    os.chdir(there)
    trial.save(x=1)
    while True:
        yield {"value": 1.0, "here": float(Path.cwd() == Path(there))}


def test_a_trainer_stays_where_it_went_and_the_worker_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    plan = assignment(Path("runs"), f"{HERE}:going", 3, arguments={"there": str(tmp_path / "elsewhere")})
    run = TrialRun(plan)
    for _ in range(3):
        assert run.advance(0.0).measurements[0].metrics["here"] == 1.0
        assert Path.cwd() == tmp_path
    assert checkpoints.load(tmp_path / plan.folder / "best-1.1")["x"] == 1


def test_a_child_that_a_trainer_lets_run_on_ends_where_it_would_go_on_as_the_worker(tmp_path: Path) -> None:
    run = TrialRun(assignment(tmp_path, "tests.misbehaving:train", 3, arguments={"kind": "forks"}))
    assert epochs(run.advance(FOREVER)) == [1, 2, 3]
    _, status = os.wait()
    assert os.waitstatus_to_exitcode(status) == 1


STREAMS: list[TextIO] = []


def keeping(trial: RunningTrial, *, x: float) -> Iterator[dict[str, float]]:
    """Keeps its stream for later trials, as a logging handler does."""
    STREAMS.append(sys.stderr)
    for stream in STREAMS:
        print("trial", trial.number, file=stream)
    yield {"value": x}


def test_a_stream_writes_to_the_log_of_its_trial_for_ever(tmp_path: Path) -> None:
    STREAMS.clear()
    for number in range(2):
        run = TrialRun(dataclasses.replace(assignment(tmp_path, f"{HERE}:keeping"), number=number, folder=tmp_path / f"{number}"))
        run.advance(FOREVER)
        run.close()
    assert (tmp_path / "0" / "output.log").read_text() == "trial 0\ntrial 1\n"
    assert (tmp_path / "1" / "output.log").read_text() == "trial 1\n"
