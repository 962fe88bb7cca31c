"""The driver's shipper is started again when it dies, waited for at the end, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpo import shipping
from hpo.shipping import RESTARTS, Shipping
from hpo.tracking import GAVE_UP
from tests.chaos.mlflow_scene import until
from tests.conftest import ROOT, run_hpo

SPECS = ROOT / "tests" / "specs"
TO_THE_END = "read line; exit 0"  # until its stdin closes


class Fakes:
    """Shippers that are shell scripts, one after another; the last again and again."""

    def __init__(self, *scripts: str) -> None:
        self._scripts = list(scripts)
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *_: object) -> subprocess.Popen[bytes]:
        script = self._scripts.pop(0) if len(self._scripts) > 1 else self._scripts[0]
        self.started.append(
            subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        )
        return self.started[-1]

    @property
    def left(self) -> int:
        return sum(process.poll() is None for process in self.started)


Fake = Callable[..., Fakes]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    made: list[Fakes] = []

    def make(*scripts: str) -> Fakes:
        made.append(Fakes(*scripts))
        monkeypatch.setattr(shipping, "start_shipper", made[-1].start)
        return made[-1]

    yield make
    for fakes in made:
        for process in fakes.started:
            with process:  # closes its pipes
                process.kill()


@pytest.mark.parametrize(
    ("scripts", "whole", "started"),
    [
        (["exit 0"], True, 1),
        ([f"exit {GAVE_UP}"], False, 1),  # it has said that it will not try on
        (["kill -9 $$", "exit 0"], True, 2),
        (["exit 1", "kill -11 $$", f"exit {GAVE_UP}"], False, 3),
        (["exit 1"], False, 1 + RESTARTS),
    ],
)
def test_a_shipper_that_dies_is_started_again_but_not_for_ever(
    tmp_path: Path, fake: Fake, scripts: list[str], whole: bool, started: int
) -> None:
    fakes = fake(*scripts)
    assert Shipping(tmp_path, pause_s=0.0).close() is whole
    assert len(fakes.started) == started


def test_a_shipper_that_cannot_be_started_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[OSError | None] = [OSError("no memory"), None]

    def start(*_: object) -> subprocess.Popen[bytes]:
        if error := answers.pop(0):
            raise error
        return subprocess.Popen(["/bin/true"], stdin=subprocess.PIPE)

    monkeypatch.setattr(shipping, "start_shipper", start)
    assert Shipping(tmp_path, pause_s=0.0).close()
    assert answers == []


def test_it_runs_until_it_is_told_that_the_study_is_over(tmp_path: Path, fake: Fake) -> None:
    fakes = fake(TO_THE_END)
    at_work = Shipping(tmp_path)
    until(lambda: at_work.process, "a shipper")
    assert fakes.left == 1
    assert at_work.close()
    assert (fakes.left, at_work.process) == (0, None)
    assert at_work.close()  # again, and nothing happens


def test_one_that_dies_before_the_end_is_told_of_it_when_it_starts_again(tmp_path: Path, fake: Fake) -> None:
    """The pause before a restart is cut short by the end, and the new shipper finds its stdin closed."""
    fakes = fake("kill -9 $$", TO_THE_END)
    at_work = Shipping(tmp_path, pause_s=1e6)
    until(lambda: fakes.started and fakes.left == 0, "its death")
    assert at_work.close()
    assert (len(fakes.started), fakes.left) == (2, 0)


@pytest.mark.parametrize("state", [None, signal.SIGSTOP], ids=["busy", "stopped"])
def test_who_may_not_wait_leaves_no_child(tmp_path: Path, fake: Fake, state: int | None) -> None:
    fakes = fake("sleep 1000 & sleep 1000")
    at_work = Shipping(tmp_path)
    until(lambda: at_work.process, "a shipper")
    if state:
        os.kill(fakes.started[0].pid, state)
    assert not at_work.close(0.0)
    assert fakes.left == 0
    output = fakes.started[0].stdout
    assert output is not None
    assert output.read() == b""  # its own child, which held the other end, is gone too
    assert len(fakes.started) == 1  # what was killed on purpose is not started again


def test_ctrl_c_while_waiting_leaves_no_child_and_is_raised_again(tmp_path: Path, fake: Fake) -> None:
    fakes = fake("sleep 1000")
    at_work = Shipping(tmp_path)
    until(lambda: at_work.process, "a shipper")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
    try:
        threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            at_work.close()
    finally:
        signal.signal(signal.SIGINT, before)
    assert fakes.left == 0


def test_the_context_waits_unless_it_is_left_by_an_exception(tmp_path: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipping, "GRACE_S", 0.0)
    fakes = fake(TO_THE_END)
    with Shipping(tmp_path) as at_work:
        pass
    assert at_work.close()
    fakes = fake("sleep 1000")

    def broken() -> None:
        with Shipping(tmp_path) as at_work:
            until(lambda: at_work.process, "a shipper")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert fakes.left == 0


@pytest.mark.parametrize("words", [("--local",), ()], ids=["local", "ray"])
def test_the_driver_never_imports_mlflow(tmp_path: Path, words: tuple[str, ...]) -> None:
    """A whole launch, from the command to its exit code, in one process; its shipper is another."""
    arguments = ["hpo", "launch", str(SPECS / "plain.yaml"), "--trainer", "tests.small_trainers:quadratic", *words]
    told = f"import atexit, sys; sys.argv = {arguments!r}; atexit.register(lambda: print('mlflow' in sys.modules, file=sys.stderr))"
    env = os.environ | {"HPO_HOME": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    env.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-c", f"{told}; from hpo.cli import main; main()"]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=ROOT, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.split()[-1] == "False"
    assert run_hpo(tmp_path, "status", "plain", "--json").json[0]["recorded"]
