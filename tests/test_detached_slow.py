"""Studies as jobs of a real Ray: two owners side by side, found again, stopped, killed, gone on with, and who is refused."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpo.engine import ray_node, ray_processes
from hpo.engine.ray_jobs import IdTaken, Jobs
from hpo.engine.ray_node import Node
from hpo.events import Ended, Measured
from hpo.journal import FILE_NAME
from hpo.journal_format import JournalError, Record, read
from hpo.submissions import driver, latest, launch_words
from tests.conftest import Done

HPO = Path(sys.executable).with_name("hpo")
LONGEST_S = 120.0
# Trains an epoch at once, and each further one when its study's gate is open; what it yields says whose code it is.
TRAINER = """
import time
from pathlib import Path

from helper import OWNER


def train(trial, *, x: float, gate: str):
    state = trial.restored()
    epoch = int(state["epoch"]) if state else 0
    while True:
        time.sleep(0.4)  # longer than a worker keeps an epoch for itself
        while epoch and not Path(gate).exists():
            time.sleep(0.02)
        epoch += 1
        trial.save(epoch=epoch)
        yield {"value": x + epoch, "owner": OWNER}
"""
SPEC = """
name: side
trainer: {settings: {max_epochs: 4, gate: GATE}}
objective: {metric: value, direction: maximize}
space: {x: {type: float, low: 0.0, high: 1.0}}
sampler: {name: random}
pruner: {name: none}
budget: {trials: 4}
resources: {max_concurrent: 1}
checkpoints: {every: 0.01s}
finals: none
"""


@dataclass
class Head:
    """A head that takes jobs."""

    folder: Path
    jobs: str

    @property
    def home(self) -> Path:
        return self.folder / "runs"

    @property
    def token(self) -> Path:
        return self.folder / "token"

    def said(self, study: str) -> str:
        """All that a study's drivers wrote, for a test that fails."""
        jobs = Jobs(self.jobs)
        logs = [jobs.log(job.id) for job in jobs.all() if job.study == study]
        return "\n".join([*logs, *(path.read_text(errors="replace") for path in (self.home / study).glob("*.log"))])

    def records(self, study: str) -> list[Record]:
        try:
            return read(self.home / study / FILE_NAME)
        except JournalError:
            return []


@dataclass
class Person:
    """Somebody with code and a token, on what might be another machine: of the head's files nothing is known."""

    name: str
    folder: Path
    head: Head

    def hpo(self, *words: str, **environment: str) -> Done:
        env = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "HPO_", "MLFLOW_"))},
            **{"HOME": str(self.folder), "HPO_HOME": str(self.folder / "runs"), "HPO_OWNER": self.name},
            **{"RAY_AUTH_TOKEN_PATH": str(self.head.token), "RAY_API_SERVER_ADDRESS": self.head.jobs},
            **environment,
        }
        done = subprocess.run([HPO, *words], capture_output=True, text=True, env=env, cwd=self.folder, timeout=280, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    def launch(self, *words: str) -> Done:
        return self.hpo("launch", "side.yaml", "--trainer", "mine:train", "--detach", *words)

    def status(self, study: str) -> dict[str, object]:
        (row,) = self.hpo("status", study, "--json").json
        return row

    def gate(self, study: str) -> Path:
        return self.head.folder / f"gate-{study}"


def wait_for(what: Callable[[], object], why: str, said: Callable[[], str] = str) -> None:
    until = time.monotonic() + LONGEST_S
    while not what():
        assert time.monotonic() < until, f"waited {LONGEST_S:g} s for {why}: {said()}"
        time.sleep(0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def belonging_to(folder: Path) -> set[int]:
    """The processes that a Ray in `folder` consists of, or whose working directory or command has to do with it."""
    found = ray_processes.belonging(folder)
    for path in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if int(path.name) != os.getpid() and str(folder).encode() in (path / "cmdline").read_bytes():
                found.add(int(path.name))
    return found


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """What `hpo node --head --jobs` is, on ports of its own: others may run a Ray on this machine."""
    folder = Path(tempfile.mkdtemp(prefix="hpo-t-", dir="/tmp"))  # Ray's sockets have short names
    token = folder / "token"
    token.touch(0o600)
    token.write_text(secrets.token_hex(32))
    ports = ("dashboard-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port", "ray-client-server-port")
    options = {name: free_port() for name in ports}
    command = [*ray_node.command(Node(port=free_port(), jobs=True, cpus=2)), f"--temp-dir={folder / 'ray'}"]
    command += [f"--{name}={port}" for name, port in options.items()]
    unwanted = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "HPO_CONFIG", "MLFLOW_TRACKING_URI")
    env = {name: value for name, value in os.environ.items() if name not in unwanted} | ray_node.environment()
    env |= {"RAY_AUTH_TOKEN_PATH": str(token), "HPO_HOME": str(folder / "runs"), "XDG_STATE_HOME": str(folder / "state")}
    with (folder / "node.log").open("wb") as log:
        node = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder, start_new_session=True)
    found = Head(folder, f"http://127.0.0.1:{options['dashboard-port']}")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
            patch.delenv("RAY_AUTH_TOKEN", raising=False)
            wait_for(lambda: node.poll() is not None or answers(found), f"the head: {folder}/node.log")
            assert node.poll() is None, (folder / "node.log").read_text()
            yield found
    finally:
        node.terminate()
        with suppress(subprocess.TimeoutExpired):
            node.wait(30)
        for process in belonging_to(folder):
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        node.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def answers(head: Head) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", int(head.jobs.rpartition(":")[2]))) == 0 and can_ask(head)


def can_ask(head: Head) -> bool:
    try:
        return Jobs(head.jobs).all() == []
    except Exception:  # in whatever way it is not up yet
        return False


@pytest.fixture(scope="module")
def ada(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Person:
    return person("Ada L.", "1", head, tmp_path_factory.mktemp("ada"))


@pytest.fixture(scope="module")
def bob(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Person:
    return person("bob", "2", head, tmp_path_factory.mktemp("bob"))


def person(name: str, code: str, head: Head, folder: Path) -> Person:
    (folder / "mine.py").write_text(TRAINER)
    (folder / "helper.py").write_text(f"OWNER = {code}\n")
    (folder / "side.yaml").write_text(SPEC.replace("GATE", str(head.folder / "gate-side")))
    (folder / "my_token.txt").write_text("do not take this along")
    (folder / "data.csv").write_text("1,2\n")
    return Person(name, folder, head)


def measured(head: Head, study: str) -> list[Measured]:
    return [record.event for record in head.records(study) if isinstance(record.event, Measured)]


def test_two_people_run_side_by_side_and_find_their_studies_again(head: Head, ada: Person, bob: Person) -> None:
    first, second = ada.launch("--json"), bob.launch("--set", f"trainer.settings.gate={bob.gate('side-2')}")
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert (first.json["study"], first.json["job"], first.json["owner"]) == ("side", "hpo-side-1", "Ada L.")
    assert set(first.json["packed"]) == {"mine.py", "helper.py", "side.yaml"}
    assert first.json["left_out"] == {"my_token.txt": "may hold secrets, by its name"}
    assert "side-2 went to" in second.out  # the name was taken, by another person's study
    for line in ("3 files", "my_token.txt may hold secrets", "hpo status side-2", "hpo logs side-2 --follow", "hpo stop side-2"):
        assert line in second.out

    for study in ("side", "side-2"):
        wait_for(lambda study=study: measured(head, study), f"{study}'s first epoch", lambda study=study: head.said(study))
    assert {event.metrics["owner"] for event in measured(head, "side")} == {1.0}
    assert {event.metrics["owner"] for event in measured(head, "side-2")} == {2.0}  # modules of the same names, each its own

    where = head.jobs.removeprefix("http://")
    for who in (ada, bob):
        rows = {row["study"]: row for row in who.hpo("list", "--json").json}
        assert {(name, row["owner"], row["state"], row["where"]) for name, row in rows.items()} == {
            ("side", "Ada L.", "running", where),
            ("side-2", "bob", "running", where),
        }
        shown = who.hpo("list").out
        assert f"Ada L.  {where}  running" in shown
        assert "since" in shown
    assert ada.status("side-2")["job"] == "hpo-side-2-1"
    assert bob.hpo("trials", "side").out.count("running") >= 1
    assert "Running entrypoint for job hpo-side-1" in bob.hpo("logs", "side").out


def test_a_study_that_runs_cannot_be_resumed_or_replaced(ada: Person, bob: Person) -> None:
    resumed = ada.hpo("resume", "side")
    assert (resumed.code, "study side runs on" in resumed.err, "`hpo stop side` stops it" in resumed.err) == (2, True, True)
    taken = bob.launch("--name", "side")
    assert taken.code == 2
    assert "already (Ada L.'s): running; go on with it by `hpo resume side`, or choose another name" in taken.err


def test_a_stopped_study_ends_with_75_and_goes_on_to_a_clean_end(head: Head, ada: Person, bob: Person) -> None:
    stopped = bob.hpo("stop", "side-2")
    assert (stopped.code, stopped.err) == (0, "")
    assert "go on with it by `hpo resume side-2`" in stopped.out
    wait_for(lambda: bob.status("side-2")["job_state"] == "FAILED", "Ray's notice of the end")
    row = bob.status("side-2")
    assert (row["state"], row["job_exit_code"], row["job"]) == ("interrupted", 75, "hpo-side-2-1")
    text = ada.hpo("status", "side-2").out
    assert "its driver was stopped (exit code 75); go on with it by `hpo resume side-2`" in text
    again = bob.hpo("stop", "side-2")
    assert (again.code, "study side-2 is not running" in again.err) == (2, True)
    assert ada.status("side")["state"] == "running"  # the other one's went on

    bob.gate("side-2").touch()
    resumed = bob.hpo("resume", "side-2", "--json")
    assert (resumed.code, resumed.json["job"]) == (0, "hpo-side-2-2"), resumed.err
    followed = bob.hpo("logs", "side-2", "--follow")  # until its driver ends
    assert followed.code == 0
    assert "side-2 is done: 4 complete" in followed.out
    row = bob.status("side-2")
    assert (row["state"], row["trials"]["complete"], row["owner"], row["job"]) == ("budget", 4, "bob", "hpo-side-2-2")
    verified = bob.hpo("verify", "side-2")
    assert verified.code == 0, verified.out


def kill_driver(head: Head, study: str) -> None:
    lock = json.loads((head.home / study / "journal.lock").read_text())
    os.kill(lock["process"], signal.SIGKILL)


def test_a_killed_driver_is_named_and_its_study_goes_on(head: Head, ada: Person) -> None:
    before = len(measured(head, "side"))
    kill_driver(head, "side")
    wait_for(lambda: ada.status("side")["job_state"] == "FAILED", "Ray's notice of the death")
    assert ada.status("side")["state"] == "stopped"
    assert ada.status("side")["job_exit_code"] == -signal.SIGKILL
    said = "its driver was killed (SIGKILL: by hand, or for want of memory); go on with it by `hpo resume side`"
    assert said in ada.hpo("status", "side").out
    assert f"side: {said}" in ada.hpo("list").out

    ada.gate("side").touch()
    assert ada.hpo("resume", "side", "--trials", "5").code == 0
    assert "side is done: 5 complete" in ada.hpo("logs", "side", "--follow").out
    verified, replayed = ada.hpo("verify", "side"), ada.hpo("replay", "side")
    assert (verified.code, replayed.code) == (0, 0), verified.out + replayed.out
    epochs = [(event.trial, event.epoch) for event in measured(head, "side")]
    assert len(epochs) == len(set(epochs)) == 20 > before
    (row,) = [row for row in ada.hpo("list", "--json").json if row["study"] == "side"]
    assert (row["state"], row["done"], row["most"], row["job"]) == ("budget", 5, 5, "hpo-side-2")


def test_the_same_command_run_again_goes_on_from_the_journal(head: Head, ada: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    """As KubeRay's and Slurm's retries do: the very line of a launched driver, in the same folder."""
    gate = ada.gate("again")
    assert ada.launch("--name", "again", "--set", f"trainer.settings.gate={gate}").code == 0
    wait_for(lambda: measured(head, "again"), "the first epoch")
    kill_driver(head, "again")
    jobs = Jobs(head.jobs)
    wait_for(lambda: latest("again", jobs.all()).state.over, "Ray's notice of the death")
    gate.touch()
    details = jobs._client.get_job_info("hpo-again-1")
    line = driver(launch_words("again", "mine:train"), "Ada L.")
    assert details.entrypoint == line
    jobs._client.submit_job(entrypoint=line, submission_id="hpo-again-2", metadata=details.metadata, runtime_env=details.runtime_env)
    wait_for(lambda: latest("again", jobs.all()).state.over, "the end")
    assert latest("again", jobs.all()).exit_code == 0, jobs.log("hpo-again-2")
    assert [record.event.reason for record in head.records("again") if isinstance(record.event, Ended)] == ["budget"]
    assert ada.hpo("verify", "again").code == 0


def test_no_secret_is_in_what_the_cluster_keeps(head: Head) -> None:
    token, jobs = head.token.read_text(), Jobs(head.jobs)
    for details in jobs._client.list_jobs():
        assert token not in str(details)
        assert token not in jobs.log(details.submission_id)
    assert not list(head.folder.rglob("my_token.txt"))
    assert not list(head.folder.rglob("data.csv"))


def test_an_id_is_given_once(head: Head, tmp_path: Path) -> None:
    jobs = Jobs(head.jobs)
    with pytest.raises(IdTaken):
        jobs.submit("hpo-side-1", "true", {}, tmp_path)


def test_questions_leave_nothing_behind(head: Head) -> None:
    jobs = Jobs(head.jobs)
    assert [job.study for job in jobs.all()].count("side") == 2  # and no question among them
    said = jobs.ask(["status", "--json", "--", "no such"])
    assert (said.code, said.out) == (2, "")
    assert "no study is called 'no such'" in said.err
    wait_for(lambda: jobs.ask(["list", "--here", "--json"]).code == 0 and questions(jobs) <= 12, "old questions to be swept")


def questions(jobs: Jobs) -> int:
    return sum((details.submission_id or "").startswith("hpo.question-") for details in jobs._client.list_jobs())


def test_a_driver_that_is_refused_says_why(head: Head, ada: Person) -> None:
    """What can only be seen on the cluster: here a demand that no node meets."""
    assert ada.launch("--name", "greedy", "--set", "resources.cpus=99").code == 0
    wait_for(lambda: ada.status("greedy")["state"] == "failed", "the refusal")
    assert "its driver was refused (exit code 2); `hpo logs greedy`" in ada.hpo("status", "greedy").out
    assert "resources.cpus: a trial asks for 99 CPUs" in ada.hpo("logs", "greedy").out
    resumed = ada.hpo("resume", "greedy")
    assert (resumed.code, "study greedy never began" in resumed.err) == (2, True)
    retry = ada.launch("--name", "greedy", "--trials", "1", "--json")  # such a name is free
    assert (retry.code, retry.json["job"]) == (0, "hpo-greedy-2"), retry.err
    assert "greedy is done: 1 complete" in ada.hpo("logs", "greedy", "--follow").out


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        (["launch", "side.yaml", "--trainer", "mine:train", "--detach"], {"RAY_AUTH_TOKEN_PATH": "{wrong}"}, "refuses this token"),
        (["list"], {"RAY_AUTH_TOKEN_PATH": "{wrong}"}, "refuses this token"),
        (["status", "side"], {"RAY_AUTH_TOKEN_PATH": "{wrong}"}, "refuses this token"),
        (["status", "side"], {"RAY_AUTH_TOKEN_PATH": "/nowhere"}, "neither RAY_AUTH_TOKEN nor /nowhere is there"),
        (["status", "sid"], {}, "no study is called 'sid' in {home}; did you mean `side"),
        (["stop", "nosuch"], {}, "no study is called 'nosuch' in {home}"),
        (["resume", "nosuch"], {}, "no study is called 'nosuch' on 127.0.0.1:"),
        (["logs", "nosuch"], {}, "no study is called 'nosuch' on 127.0.0.1:"),
        (["trials", "nosuch"], {}, "no study is called 'nosuch' in {home}"),
        (["launch", "wrong.yaml", "--trainer", "mine:train", "--detach"], {}, "wrong.yaml:2:1: bugdet: "),
        (["launch", "side.yaml", "--trainer", "mine:other", "--detach"], {}, "mine:other"),
        (["launch", "side.yaml", "--trainer", "big.mine:train", "--detach"], {}, "holds more source than may go along"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_who_and_what_is_refused(ada: Person, tmp_path: Path, words: list[str], environment: dict[str, str], said: str) -> None:
    head = ada.head
    (tmp_path / "wrong").write_text(secrets.token_hex(32))
    (tmp_path / "wrong").chmod(0o600)
    (ada.folder / "wrong.yaml").write_text("name: side\nbugdet: {trials: 3}\n")
    names = {"wrong": tmp_path / "wrong", "home": head.home}
    if "big.mine:train" in words:
        (ada.folder / "big").mkdir()
        (ada.folder / "big" / "mine.py").write_text(TRAINER + "# " + "x" * 11 * 2**20)
    before = {job.id for job in Jobs(head.jobs).all()}
    done = ada.hpo(*words, **{name: value.format(**names) for name, value in environment.items()})
    assert done.code == (1 if words == ["list"] else 2), done.out + done.err
    assert said.format(**names) in done.err
    assert "Traceback" not in done.err
    assert {job.id for job in Jobs(head.jobs).all()} == before


def test_on_the_head_its_studies_are_here_and_listed_once(head: Head, ada: Person) -> None:
    rows = [row for row in ada.hpo("list", "--json", HPO_HOME=str(head.home)).json if row["study"] == "side"]
    assert [(row["where"], row["job"]) for row in rows] == [("this machine", "hpo-side-2")]
    local = ada.hpo("best", "side", "--json", HPO_HOME=str(head.home), RAY_API_SERVER_ADDRESS="http://127.0.0.1:1")
    assert local.json == ada.hpo("best", "side", "--json").json
