"""Ctrl-C is let through only where nothing is half done, and in time; `hpo stop` is one from another terminal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpo import lease
from hpo.events import Created, Ended
from hpo.halting import StopError, stop
from hpo.interrupt import EXIT_CODES, Interrupts
from hpo.journal import FILE_NAME, Journal
from tests.conftest import run_hpo
from tests.simulated_study import spec

SIGNALS = list(map(signal.Signals, EXIT_CODES))
Start = Callable[[str], subprocess.Popen[str]]


@pytest.mark.parametrize("number", SIGNALS)
def test_an_interruption_is_raised_at_once_outside_and_at_the_end_inside_a_shield(number: signal.Signals) -> None:
    done = []

    def work(interrupts: Interrupts) -> None:
        with interrupts, interrupts.shielded():
            signal.raise_signal(number)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        work(Interrupts())
    assert done == ["all of it"]
    with pytest.raises(KeyboardInterrupt), Interrupts():
        signal.raise_signal(number)


def test_the_handlers_that_were_there_are_there_again() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.unraisablehook
    with Interrupts() as interrupts:
        interrupts.install()
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), sys.unraisablehook) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_the_exit_code_tells_which_signal_came_first(number: signal.Signals, code: int) -> None:
    interrupts = Interrupts()
    assert (interrupts.signal, interrupts.exit_code) == (None, None)
    with pytest.raises(KeyboardInterrupt), interrupts:
        signal.raise_signal(number)
    assert (interrupts.signal, interrupts.exit_code) == (number, code)


def test_check_raises_again_what_a_library_swallowed() -> None:
    with Interrupts() as interrupts:
        interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with interrupts.shielded():
            interrupts.check()
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def test_last_acts_are_done_when_an_interruption_leaves_and_only_then() -> None:
    done: list[str] = []

    def work(*, interrupted: bool) -> None:
        with Interrupts() as interrupts:
            interrupts.last_acts += [lambda: done.append("first"), lambda: 1 / 0, lambda: done.append("last")]
            if interrupted:
                signal.raise_signal(signal.SIGTERM)

    work(interrupted=False)
    assert done == []
    with pytest.raises(KeyboardInterrupt):
        work(interrupted=True)
    assert done == ["first", "last"]


PROGRAM = """
import ctypes, os, signal, sys, time
from hpo import interrupt
interrupt.LONGEST_S = 0.2
deadlock = ctypes.create_string_buffer(64)
ctypes.CDLL(None).pthread_mutex_lock(deadlock)
with interrupt.Interrupts() as interrupts:
    interrupts.last_acts.append(lambda: print("last act", flush=True))
    {body}
"""
STUCK_IN_C = "ctypes.CDLL(None).pthread_mutex_lock(deadlock)"
# its signal would be written to where its parent's are read
OF_A_CHILD = """
    import subprocess, threading
    print(subprocess.run(["true"], preexec_fn=lambda: os.kill(os.getpid(), 15)).returncode, interrupts.signal, flush=True)
    threading.Event().wait(2 * interrupt.LONGEST_S)
"""
IN_A_FINALISER = """
    class Finaliser:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)
    try:
        Finaliser()
        while True:
            time.sleep(0.01)
    except KeyboardInterrupt:
        print("raised again", flush=True)
"""


@pytest.mark.parametrize(
    ("body", "printed", "code"),
    [
        # the second Ctrl-C ends by the signal itself, as a shell wants to see; the second SIGTERM says again: resumable
        ("with interrupts.shielded(): [os.kill(os.getpid(), 2) for _ in range(2)]", "last act\n", -signal.SIGINT),
        ("with interrupts.shielded(): [os.kill(os.getpid(), 15) for _ in range(2)]", "last act\n", 75),
        ("with interrupts.shielded(): os.kill(os.getpid(), 2); os.kill(os.getpid(), 15)", "last act\n", 75),
        # a main thread that never comes back to Python
        (f"import threading; threading.Timer(0.1, os.kill, (os.getpid(), 15)).start(); {STUCK_IN_C}", "last act\n", 75),
        (f"import threading; threading.Timer(0.1, os.kill, (os.getpid(), 2)).start(); {STUCK_IN_C}", "last act\n", 130),
        (OF_A_CHILD, "-15 None\n", 0),
        (IN_A_FINALISER, "raised again\nlast act\n", 0),
    ],
)
def test_a_process_ends_in_time_whatever_its_main_thread_does(body: str, printed: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(body=body)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr, done.returncode) == (printed, "", code)


RUNS = """
import signal, sys
from pathlib import Path
from hpo.events import Created
from hpo.journal import Journal
{prepare}
with Journal.create(Path({path!r})) as journal:
    print("running", flush=True)
    while True:
        signal.pause()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "fashion"


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Starts a process that runs the study, after it did what it is given, and waits until it does."""
    started: list[subprocess.Popen[str]] = []

    def run(prepare: str) -> subprocess.Popen[str]:
        code = RUNS.format(prepare=prepare, path=str(folder / FILE_NAME))
        started.append(subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True))
        assert started[-1].stdout is not None
        assert started[-1].stdout.readline() == "running\n"
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_stop_ends_the_process_that_runs_the_study_and_says_which_it_was(folder: Path, start: Start) -> None:
    running = start("")
    assert stop(folder, 30).process == running.pid
    assert running.wait() == -signal.SIGTERM
    assert not lease.is_held(folder / FILE_NAME)


def test_a_study_that_does_not_stop_in_time_is_named_with_its_process(folder: Path, start: Start) -> None:
    running = start("signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    with pytest.raises(StopError, match=rf"still runs 0\.1s after it was asked to end: process {running.pid} on .*`kill -9 {running.pid}`"):
        stop(folder, 0.1)


def test_a_study_on_another_host_is_stopped_there(folder: Path, start: Start) -> None:
    running = start("import socket; socket.gethostname = lambda: 'elsewhere'")
    with pytest.raises(StopError, match=r"run by process \d+ on elsewhere since .*: run `hpo stop fashion` there"):
        stop(folder, 30)
    assert running.poll() is None


def test_a_number_that_went_to_another_process_is_not_signalled(folder: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.halting.SETTLED_S", 0.1)
    start("")
    lock = lease.lock_file(folder / FILE_NAME)
    innocent = subprocess.Popen(["sleep", "600"])
    try:
        lock.write_text(json.dumps(json.loads(lock.read_text()) | {"process": innocent.pid}))
        with pytest.raises(StopError, match=f"is locked, but not by process {innocent.pid} on"):
            stop(folder, 30)
        assert innocent.poll() is None
    finally:
        innocent.kill()
        innocent.wait()


@pytest.mark.parametrize(
    ("reason", "standing"),
    [
        ("interrupted", "it is interrupted; go on with it by `hpo resume fashion`"),
        ("budget", "it is done"),
        (None, "it is stopped; go on with it by `hpo resume fashion`"),
    ],
)
def test_a_study_that_does_not_run_is_not_stopped(tmp_path: Path, folder: Path, reason: str | None, standing: str) -> None:
    with Journal.create(folder / FILE_NAME) as journal:
        journal.append([Created("fashion", spec().to_dict(), {}), *([Ended(reason)] if reason else [])])
    with pytest.raises(StopError) as caught:
        stop(folder, 30)
    assert str(caught.value) == f"study fashion is not running: {standing}"
    done = run_hpo(tmp_path, "stop", "fashion")
    assert (done.code, done.out, done.err) == (2, "", f"{caught.value}\n")
