"""A study that the command line runs with a real trainer: begun, resumed, looked at from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from hpo.events import Ended
from hpo.journal import FILE_NAME
from hpo.journal_format import Record, read
from tests.chaos.outcome import Tally
from tests.chaos.simulated import Fact, facts
from tests.conftest import ROOT, hpo_command

EPOCH_S = 0.35  # longer than a worker's slice, so that every epoch is a report
EVERY_S = 1.0  # between two checkpoints
END_S = 240.0  # by when a command is over, on any machine
LOOK_S = 0.02
SPEC = """
name: {name}
trainer: {{settings: {{max_epochs: {epochs}, seconds: {epoch_s}, notes: {notes}}}}}
objective: {{metric: value, direction: maximize}}
space: {{x: {{type: float, low: 0.0, high: 1.0}}}}
sampler: {{name: tpe}}
pruner: {{name: asha, rule: {rule}, grace_epochs: {grace}, reduction_factor: 2}}
budget: {{trials: {trials}}}
resources: {{cpus: 1, gpus: 0}}
checkpoints: {{every: {every_s}s, keep: 2}}
limits: {{retries: 100}}
tracking: {{uri: {uri}, experiment: chaos, registered_model: chaos, patience: {patience}}}
"""
NOBODY = "http://127.0.0.1:1"  # where no MLflow is, for faults that do not concern it


class Note(NamedTuple):
    """What the trainer noted: it was asked for an epoch, or had trained it. `first` is its attempt's first epoch."""

    trial: int
    first: int
    epoch: int
    time: float
    process: int
    kind: str


@dataclass(frozen=True)
class Real:
    """The study `name` in `home`; its spec, log and notes are in `folder`. It runs on Ray unless it is `local`.

    Its trials end at a rung after 4 epochs, or, if it `promotes`, wait there and after 2. Its MLflow is at `uri`, of which
    `secrets` says what the spec does not; without one it is the home's database. It is waited for as long as `patience` says.
    """

    folder: Path
    name: str
    home: Path
    trials: int = 6
    epochs: int = 8
    local: bool = False
    tracked: bool = True
    promotes: bool = False
    uri: str = "null"
    patience: str = "20s"
    secrets: Mapping[str, str] = field(default_factory=dict)

    @property
    def journal(self) -> Path:
        return self.home / self.name / FILE_NAME

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def launch(self) -> subprocess.Popen[str]:
        """`hpo launch`, begun."""
        file, uri = self.folder / f"{self.name}.yaml", (self.uri, self.patience) if self.tracked else (NOBODY, "0.1s")
        names = {
            "name": self.name,
            "notes": self._notes,
            "trials": self.trials,
            "epochs": self.epochs,
            "epoch_s": EPOCH_S,
            "every_s": EVERY_S,
            "rule": "promote" if self.promotes else "stop",
            "grace": 2 if self.promotes else 4,
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        file.write_text(SPEC.format(uri=uri[0], patience=uri[1], **names))
        return self.command("launch", str(file), "--name", self.name, "--trainer", "tests.chaos.trainers:steady", *self._engine)

    def resume(self) -> subprocess.Popen[str]:
        """`hpo resume`, begun; or the launch again, where it died before the study's first line."""
        return self.command("resume", self.name, *self._engine) if self.records() else self.launch()

    def command(self, *words: str) -> subprocess.Popen[str]:
        """Any command, begun; what it prints goes to the log."""
        env = os.environ | {"HPO_HOME": str(self.home), "CUDA_VISIBLE_DEVICES": ""}
        env.pop("MLFLOW_TRACKING_URI", None)
        env |= self.secrets
        with self.log.open("a") as log:
            return subprocess.Popen(hpo_command(*words), stdout=log, stderr=log, text=True, env=env, cwd=ROOT, start_new_session=True)

    def records(self) -> list[Record]:
        """Its journal."""
        return read(self.journal) if self.journal.exists() else []

    def is_over(self) -> bool:
        """Whether it came to the end of its budget."""
        records = self.records()
        return bool(records) and isinstance(end := records[-1].event, Ended) and end.reason == "budget"

    def notes(self) -> list[Note]:
        """What its trainers noted so far."""
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        return [Note(int(a), int(b), int(c), float(d), int(e), kind) for a, b, c, d, e, kind in map(str.split, lines)]

    def acknowledged(self) -> set[tuple[int, int]]:
        """The trials and epochs that the study must have: a worker that was asked for one more had reported all before."""
        later = [note for note in self.notes() if note.kind == "asked" and note.epoch > note.first]
        return {(note.trial, epoch) for note in later for epoch in range(1, note.epoch)}

    @property
    def _notes(self) -> Path:
        return self.folder / f"{self.name}.notes"

    @property
    def _engine(self) -> list[str]:
        return ["--local"] if self.local else []


def ended(process: subprocess.Popen[str]) -> int:
    """The exit code of a command that must end by itself."""
    try:
        return process.wait(END_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def wait_until(holds: Callable[[], object], what: str, limit_s: float = END_S) -> None:
    """Return as soon as it holds; RuntimeError with `what` if it never does."""
    until = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > until:
            raise RuntimeError(f"{what} within {limit_s:g} s")
        time.sleep(LOOK_S)


def check_study(tally: Tally, study: Real, before: list[Fact], where: str) -> list[Fact]:
    """Nothing that was acknowledged, or journaled before, is missing, and nothing is there twice; returns what is journaled."""
    now = list(facts(record.event for record in study.records()))
    measured = [fact[1:3] for fact in now if fact[0] == "measured"]
    tally.check("acknowledged lost", len(study.acknowledged() - set(measured)) + (now[: len(before)] != before), where)
    finished = Counter(fact[1] for fact in now if fact[0] == "finished")
    tally.check("doubled", len(measured) - len(set(measured)) + sum(finished.values()) - len(finished), where)
    return now


def check_end(tally: Tally, study: Real, where: str) -> None:
    """The study is over, and the oracles agree."""
    tally.check("studies not over", not study.is_over(), where)
    for command in ("verify", "replay"):
        tally.check(f"`hpo {command}` not clean", ended(study.command(command, study.name)) != 0, f"{where}: see {study.log}")
    tally.seen["studies"] += 1
