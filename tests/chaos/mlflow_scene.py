"""What the faults of MLflow are tried on: a real server, a proxy before it, and a synthetic study that is written live."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from hpo import trust
from hpo.comparing import Kind
from hpo.events import Created
from hpo.journal import FILE_NAME, Journal
from hpo.recording import check
from hpo.rules import Rules
from hpo.space import Params
from hpo.study import Study
from hpo.tracking import LOG_FILE, environment, read_state, surroundings
from hpo.trial import Direction, Measurement, Trial
from tests.chaos.outcome import Tally
from tests.chaos.proxy import Faults, Proxy

TIMEOUT = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "1"}  # of a request of the shipper's, so that a frozen server is noticed soon
LIMIT_S = 240.0  # by when what is waited for has happened, on any machine
LOOK_S = 0.02
PATIENCE_S = 60.0
MAX_EPOCHS = 4
PACE_S = 0.02  # an epoch
AHEAD = 8  # trials
CALLS_A_TRIAL = 3
T = TypeVar("T")


class Server:
    """`mlflow server` with one worker on loopback, on a database in `folder`; in a process group of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        places = [
            "--backend-store-uri",
            f"sqlite:///{self.folder / 'server.db'}",
            "--artifacts-destination",
            str(self.folder / "artifacts"),
        ]
        words = ["mlflow", "server", *places, "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        with (self.folder / "server.log").open("ab") as log:
            command = [sys.executable, "-P", "-m", *words]
            env = os.environ | environment()
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
        until(self.is_healthy, f"the server to answer; see {self.folder / 'server.log'}")

    def is_healthy(self) -> bool:
        """Whether it answers now."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def signal(self, number: int) -> None:
        """Send a signal to all of its processes."""
        if self._process is not None:
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()


class Steps:
    """The sampler of the synthetic studies."""

    remembers = False

    def suggest(self, number: int, trials: object) -> Params:  # noqa: ARG002
        return {"x": (number * 7 % 50) / 50, "kind": ("good", "failing", "dying")[number % 7 % 3]}


class LiveStudy(threading.Thread):
    """A study that goes on, two trials at a time, until it is told to finish; then it ends with `reason`.

    Trials are complete, pruned, failed and retried, by the rules of every study. So that it does not run far from its
    shipper, it begins at most `ahead` trials more than its calls are enough for.
    """

    def __init__(self, folder: Path, proxy: Proxy, reason: str) -> None:
        super().__init__(name=folder.name, daemon=True)
        self.folder, self.ahead, self._proxy, self._reason = folder, AHEAD, proxy, reason
        self._journal = Journal.create(folder / FILE_NAME)
        spec = {
            "name": folder.name,
            "trainer": {"name": "tests.nothing:train", "settings": {"max_epochs": MAX_EPOCHS}},
            "objective": {"metric": "value", "direction": "maximize"},
            "tracking": {"uri": proxy.uri},
        }
        trust.vouch([trust.mlflow(proxy.uri)])  # as a launch does
        self._journal.append([Created(folder.name, spec, {})])
        rules = Rules(Direction.MAXIMIZE, max_epochs=MAX_EPOCHS, max_trials=1_000_000, reduction_factor=2)
        self.study = Study(rules, Steps(), self._journal.append)
        self._told = threading.Event()

    def run(self) -> None:
        """Ask, report and end, in turns."""
        running: list[Trial] = []
        while running or not self._told.is_set():
            due = len(self.study.trials) < self.ahead + self._proxy.calls / CALLS_A_TRIAL
            if due and len(running) < 2 and not self._told.is_set() and (trial := self.study.ask()):
                running.append(trial)
            for trial in running:
                self._advance(trial)
            running = [trial for trial in running if not trial.state.finished]
            self._told.wait(PACE_S)
        self.study.end(self._reason)
        self._journal.close()

    def finish(self) -> None:
        """End what runs, and then the study; returns when that is in the journal."""
        self._told.set()
        self.join(LIMIT_S)

    def _advance(self, trial: Trial) -> None:
        epoch, kind, x = trial.epoch + 1, trial.params["kind"], float(trial.params["x"])
        if kind == "failing" and epoch == 2:
            return self.study.fail(trial.number, "error", "ValueError: no")
        if kind == "dying" and epoch == 2 and trial.attempts == 1:
            self.study.retry(trial.number, "its worker died")
        value = x - 1 / epoch
        metrics = {"value": value, "loss": math.inf if epoch == 3 else -value}
        self.study.report(trial.number, [Measurement(epoch, value, metrics, 0.5)])
        return None


@dataclass
class Scene:
    """A study at work, its server, and the proxy between its shipper and that."""

    folder: Path
    server: Server
    proxy: Proxy
    study: LiveStudy
    tally: Tally

    def wait_for_calls(self, more: int) -> None:
        """Return when the proxy has seen so many more requests; it is waited for as long as they go on coming."""
        goal = self.proxy.calls + more
        while (seen := self.proxy.calls) < goal:
            self.until(partial(self._has_more_calls, seen), "a call")

    def _has_more_calls(self, seen: int) -> bool:
        return self.proxy.calls > seen

    def wait_for_trials(self, more: int) -> None:
        """Return when the study has so many more trials, which it may ask for whatever the shipper does."""
        self.study.ahead += more
        goal = len(self.study.study.trials) + more
        self.until(lambda: len(self.study.study.trials) >= goal, f"{more} trials")

    def wait_for_error(self) -> None:
        """Return when the shipper has met with an error."""
        self.until(lambda: (state := read_state(self.folder)) and state.error, "an error")

    def until(self, condition: Callable[[], T], what: str) -> T:
        """As `until`, with the shipper's last words."""
        try:
            return until(condition, what)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.log()}") from None

    def log(self) -> str:
        """The last that the shipper said."""
        path = self.folder / LOG_FILE
        return path.read_text()[-500:] if path.exists() else "no log yet"

    def judge(self) -> None:
        """Compare MLflow with the journal, and count what differs."""
        self.proxy.faults = Faults()
        self.tally.seen["calls"] += self.proxy.calls
        found = check(self.folder, PATIENCE_S)
        first = next(map(str, found.differences), "")
        running = [d for d in found.differences if "end: RUNNING" in d.what]
        self.tally.check("rows lost", found.count(Kind.MISSING), first)
        self.tally.check("doubled", found.count(Kind.DOUBLED), first)
        self.tally.check("other differences", found.count(Kind.EXTRA) + found.count(Kind.WRONG), first)
        self.tally.check("running after the end", len(running), first)
        self.tally.seen["runs"] += found.runs
        self.tally.seen["points"] += found.points
        self.tally.tries += 1


@contextmanager
def scene(folder: Path, seed: int, server: Server | None, reason: str = "interrupted") -> Iterator[Scene]:
    """A study that has begun, to be shipped to the server behind its proxy.

    After an interruption no champion is registered, for which the shipper imports torch: seconds that most faults can spare.
    """
    with ExitStack() as stack:
        if server is None:
            server = stack.enter_context(Server(folder / "server"))
        proxy = stack.enter_context(Proxy(server.port, seed))
        stack.enter_context(surroundings(TIMEOUT))
        study = LiveStudy(folder / f"study-{seed}", proxy, reason)
        study.start()
        stack.callback(study.finish)
        yield Scene(study.folder, server, proxy, study, Tally())


def until(condition: Callable[[], T], what: str) -> T:
    """What the condition says, as soon as it holds; AssertionError if it never does."""
    limit, pause = time.monotonic() + LIMIT_S, threading.Event()
    while not (answer := condition()):
        if time.monotonic() > limit:
            raise AssertionError(f"waited in vain for {what}")
        pause.wait(LOOK_S)
    return answer


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
