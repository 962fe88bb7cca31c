"""A cluster of stand-ins to submit jobs to: what Slurm does with a job and to it, so that a test can choose when."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.slurm_stand_ins import slurm
from tests.slurm_stand_ins.options import of_script, submitted

ROOT = Path(__file__).parent.parent.parent
KILL_WAIT_S = 20.0
FIRST = os.getpid() * 1_000  # a job's number is in the names of files in /tmp: others may run these tests, too
LONG_S = 240.0


def until(claim: Callable[[], Any]) -> None:
    """Wait for what is bound to come."""
    end = time.monotonic() + LONG_S
    while not claim():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


class Cluster:
    """Nodes n1, n2 ... on this machine, below `folder`; `desk` is where a user submits, and all nodes reach it."""

    def __init__(self, folder: Path, monkeypatch: Any, desk: str = "desk", *, real_hpo: bool = False) -> None:
        self.folder, self.desk, self.venv = folder / "slurm", folder / desk, folder / "venv"
        self.local, self.stand_ins = folder / "local", folder / "stand-ins"
        for path in (self.folder, self.desk, self.venv / "bin", self.local, self.stand_ins):
            path.mkdir(parents=True)
        monkeypatch.setenv(slurm.FOLDER, str(self.folder))
        commands = {name: f"-m tests.slurm_stand_ins.slurm {name}" for name in ("srun", "scontrol", "squeue")}
        commands |= {"hpo": f'"{Path(sys.executable).with_name("hpo")}"' if real_hpo else "-m tests.slurm_stand_ins.hpo", "python": ""}
        for name, module in commands.items():
            script = self.venv / "bin" / name
            script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
            script.chmod(0o755)
        name = self.venv / "bin" / "hostname"
        name.write_text('#!/bin/sh\n[ "$1" = -I ] && echo 127.0.0.1 || echo n1\n')
        name.chmod(0o755)
        self._jobs: list[Job] = []

    def search(self, name: str = "study", *, file: str = "search.json", **what: Any) -> Path:
        """A file that the stand-in for hpo takes for a search."""
        path = self.desk / file
        path.write_text(json.dumps({"name": name, "epochs": 3, **what}))
        return path

    def sbatch(self, *words: str, number: int = 1, gpus: Mapping[str, int] | None = None, env: Mapping[str, str] | None = None) -> Job:
        """Submit as on the command line; the job, of that number from FIRST on, begins at once. `gpus` is how many each node gives it."""
        options, (script, *arguments) = submitted(words)
        job = Job(self, str(FIRST + number), of_script(Path(script).read_text()) | options, [script, *arguments])
        job.begin(gpus or {}, env or {})
        self._jobs.append(job)
        return job

    def enough(self) -> None:
        """Have drivers come to their end, however many epochs they were to train."""
        (self.stand_ins / "enough").touch()

    def calls(self, command: str = "") -> list[dict[str, Any]]:
        """What the stand-in for hpo was given, call by call."""
        path = self.stand_ins / "calls.jsonl"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [call for call in found if not command or call["argv"][0] == command]

    def close(self) -> None:
        """End what a failed test left."""
        for job in self._jobs:
            job.kill()


class Job:
    """A job that runs; `wait` returns the exit code of its last run."""

    def __init__(self, cluster: Cluster, number: str, options: dict[str, str], words: Sequence[str]) -> None:
        self.number, self.options, self._cluster = number, options, cluster
        self.nodes = slurm.hostnames(f"n[1-{options['nodes']}]")
        self.folder, self.log = cluster.folder / number, cluster.desk / options["output"].replace("%j", number)
        (self.folder / "steps").mkdir(parents=True)
        script = Path(shutil.copy(words[0], self.folder / "slurm_script"))  # a copy, as Slurm makes one
        script.chmod(0o755)
        self._words, self._env = [str(script), *words[1:]], {}
        self.restarts, self.code, self._is_closed = 0, -1, False
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def begin(self, gpus: Mapping[str, int], env: Mapping[str, str]) -> None:
        """Run it, and again whenever it comes back into the queue."""
        (self.folder / "gpus").write_text(" ".join(f"{node}={count}" for node, count in gpus.items()))
        self._env = dict(env)
        slurm.set_state(self.number, "RUNNING")
        self._start()
        self._thread.start()

    @property
    def state(self) -> str:
        return slurm.state_of(self.number)

    @property
    def is_there(self) -> bool:
        """Whether it has not left the queue."""
        return self._thread.is_alive()

    @property
    def said(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def wait(self) -> int:
        """Until it has left the queue."""
        self._thread.join(LONG_S)
        assert not self._thread.is_alive(), self.said
        return self.code

    def until_it_trains(self, epochs: int = 1, restarts: int = 0) -> None:
        """Until this run's driver has acknowledged so many epochs."""
        progress = self._cluster.stand_ins / "running"

        def trains() -> bool:
            if not self._thread.is_alive():
                raise AssertionError(self.said)
            found = progress.read_text().split() if progress.exists() else []
            return len(found) == 3 and found[0] == self.number and int(found[1]) == restarts and int(found[2]) >= epochs

        until(trains)

    def time_limit(self, name: str = "TERM") -> None:
        """--signal=B:TERM: to the batch shell alone."""
        assert self._batch.poll() is None, self.said
        os.kill(self._batch.pid, getattr(signal, f"SIG{name}"))

    def preempt(self) -> None:
        """As with a grace time: SIGTERM to all steps, not to the batch shell."""
        slurm.signal_steps(self.number, signal.SIGTERM)

    def cancel(self) -> None:
        """As scancel: SIGTERM to everything, SIGKILL for what is left."""
        slurm.set_state(self.number, "COMPLETING")
        slurm.signal_steps(self.number, signal.SIGTERM)
        slurm.signal_group(self._batch.pid, signal.SIGTERM)

    def lose(self, node: str) -> None:
        """The node dies without a word. With the first one the batch shell goes, and Slurm puts the job back into the queue."""
        left = [name for name in self.nodes if name != node]
        (self.folder / "nodes").write_text(" ".join(left))
        if node == self.nodes[0]:
            slurm.set_state(self.number, "PENDING")
            self._kill_driver()
            slurm.signal_group(self._batch.pid, signal.SIGKILL)
        slurm.signal_steps(self.number, signal.SIGKILL, node)

    def kill(self) -> None:
        """End all of it."""
        self._is_closed = True
        slurm.signal_group(self._batch.pid, signal.SIGKILL)
        self._kill_driver()
        slurm.signal_steps(self.number, signal.SIGKILL)
        self._thread.join(LONG_S)

    def _kill_driver(self) -> None:
        for driver in self._cluster.stand_ins.glob(f"driver-{self.number}-*"):
            slurm.signal_group(int(driver.name.rpartition("-")[2]), signal.SIGKILL)  # it has a group of its own
            driver.unlink()

    def _start(self) -> None:
        options, cluster = self.options, self._cluster
        place = {
            "SLURM_JOB_ID": self.number,
            "SLURM_JOB_NODELIST": f"n[1-{options['nodes']}]" if len(self.nodes) > 1 else "n1",
            "SLURM_CPUS_PER_TASK": options["cpus-per-task"],
            "SLURM_CPUS_ON_NODE": options["cpus-per-task"],
            "SLURM_SUBMIT_DIR": str(cluster.desk),
            "SLURMD_NODENAME": self.nodes[0],
            "PYTHONPATH": str(ROOT),
            "STAND_INS": str(cluster.stand_ins),
            "HPO_VENV": str(cluster.venv),
            "HPO_LOCAL": str(cluster.local),
            "HPO_NODE_WAIT": "60",
        }
        place |= {"SLURM_RESTART_COUNT": str(self.restarts)} if self.restarts else {}
        (self.folder / "nodes").write_text(" ".join(self.nodes))
        with self.log.open("ab" if self.restarts or options.get("open-mode") == "append" else "wb") as log:
            self._batch = subprocess.Popen(
                self._words, cwd=cluster.desk, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env=os.environ | place | self._env, start_new_session=True,
            )  # fmt: skip

    def _follow(self) -> None:
        while True:
            while (code := self._batch.poll()) is None:
                time.sleep(0.02)
            if not slurm.have_ended(self.number, within_s=0.5):
                slurm.signal_steps(self.number, signal.SIGKILL)
                assert slurm.have_ended(self.number, within_s=KILL_WAIT_S)
            self.code = code if code >= 0 else 128 - code
            if self._is_closed or self.state != "PENDING":
                slurm.set_state(self.number, {0: "COMPLETED"}.get(self.code, "FAILED"))
                return
            self.restarts += 1
            slurm.set_state(self.number, "RUNNING")
            self._start()
