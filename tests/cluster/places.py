"""A Ray cluster on hosts of our own, and a study on it that is watched by its journal."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from hpo.events import Event, Measured
from hpo.journal_format import JournalError, Record
from hpo.results import StoredStudy
from tests.cluster.hosts import Host, Network
from tests.cluster.trainers import ENOUGH

HPO = Path(sys.executable).with_name("hpo")
ROOT = Path(__file__).parent.parent.parent
PORT = 6379
LONGEST_S = 120.0
LOOK_S = 0.05

T = TypeVar("T")


def wait_for(what: Callable[[], T | None], why: str, longest_s: float = LONGEST_S) -> T:
    """What `what` returns, once that is something."""
    until = time.monotonic() + longest_s
    while not (found := what()):
        assert time.monotonic() < until, f"waited {longest_s:g} s for {why}"
        time.sleep(LOOK_S)
    return found


class Cluster:
    """Hosts with a node each, the first one's the head, all with one token; searches run on the head's host."""

    def __init__(self, network: Network, hosts: Sequence[Host]) -> None:
        self.network, self.hosts, self.head = network, hosts, hosts[0]
        self.folder = network.folder
        self.token = self.folder / "token"
        self.token.write_text(secrets.token_hex(32))
        self.token.chmod(0o600)
        self.home, self.storage, self.enough = self.folder / "runs", self.folder / "storage", self.folder / "enough"
        self.storage.mkdir()
        unwanted = ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "HPO_CONFIG", "XDG_CONFIG_HOME", "MLFLOW_TRACKING_URI")
        plain = {name: value for name, value in os.environ.items() if name not in unwanted}
        self.env = plain | {"RAY_AUTH_TOKEN_PATH": str(self.token), "HPO_HOME": str(self.home), ENOUGH: str(self.enough)}
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self._remains: list[Path] = []

    def start(self, host: Host, *words: str, cpus: int = 1) -> None:
        """Make a host a node, and wait until the head knows it."""
        role = ["--head"] if host is self.head else ["--address", f"{self.head.address}:{PORT}"]
        command = [HPO, "node", *role, "--ip", host.address, "--cpus", str(cpus), *words]
        self.nodes[host.name] = host.start(command, self.env, ROOT, self.folder / f"{host.name}.log")
        wait_for(lambda: host.name in self.alive(), f"{host.name} to be a node: {self.folder}/{host.name}.log")

    def alive(self) -> str:
        """What `hpo plan --address` says of the nodes; empty while there is none."""
        found = self.head.run([HPO, "plan", ROOT / "search_spaces" / "digits.yaml", "--address", self.address, "--json"], self.env, ROOT)
        return found.stdout if found.returncode == 0 else ""

    @property
    def address(self) -> str:
        return f"{self.head.address}:{PORT}"

    def run(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """An hpo command on the head's host."""
        return self.head.run([HPO, *words], self.env, ROOT)

    def hpo(self, *words: str | Path) -> list[str | Path]:
        """An hpo command's words."""
        return [HPO, *words]

    def launch(self, spec: Path, *words: str, owner: str = "somebody") -> subprocess.Popen[bytes]:
        """A study on the cluster, in the background, with a trainer of these tests."""
        trainer = ["--trainer", "tests.cluster.trainers:steady", "--address", "auto"]
        storage = ["--set", f"checkpoints.storage={self.storage}"]
        env = {**self.env, "HPO_OWNER": owner}
        return self.head.start(self.hpo("launch", spec, *trainer, *storage, *words), env, ROOT, self.log)

    def serve_mlflow(self, host: Host) -> None:
        """Start MLflow for several people on a host; searches that are launched from now on are recorded there."""
        folder = self.folder / "mlflow"
        folder.mkdir()
        host.start([sys.executable, "-m", "tests.cluster.guarded", folder, host.address], self.env, ROOT, folder / "log")
        wait_for((folder / "client.json").exists, f"MLflow: {folder}/log")
        found = json.loads((folder / "client.json").read_text())
        self.env |= found["client"]
        self._remains.append(Path(found["postgres"]))

    def close(self) -> None:
        """Remove what hosts cannot, being gone."""
        for folder in self._remains:
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def log(self) -> Path:
        """What studies in the background print."""
        return self.folder / "launch.log"

    def events(self, name: str) -> list[Event]:
        """What the study's journal holds by now."""
        return [record.event for record in self.records(name)]

    def measured(self, name: str) -> list[tuple[datetime, float]]:
        """When each epoch was journaled, and the number of the host that trained it."""
        return [(record.at, record.event.metrics["host"]) for record in self.records(name) if isinstance(record.event, Measured)]

    def records(self, name: str) -> list[Record]:
        """The lines of the study's journal by now."""
        try:
            return StoredStudy.open(self.home / name).records
        except (JournalError, OSError):  # it has not begun
            return []
