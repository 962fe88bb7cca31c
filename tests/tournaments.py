"""Tournaments on made-up curves, for tests: a file to search, and studies simulated where a launch would train."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from hpo import tournament_rounds
from hpo.engine.simulate import simulate
from hpo.preparing import completed, trainer_of
from hpo.results import StoredStudy
from hpo.spec import Spec
from hpo.typical import typical_curve

TASK: dict[str, Any] = {
    "name": "task",
    "trainer": {"name": "simulated", "settings": {"max_epochs": 9}},
    "objective": {"metric": "value", "direction": "maximize"},
    "space": {
        "x": {"type": "float", "low": 0.0, "high": 1.0, "grid": [0.1, 0.3, 0.5, 0.7, 0.9]},
        "rate": {"type": "float", "low": 1e-4, "high": 1.0, "log": True, "grid": [0.001, 0.1]},
        "width": {"type": "int", "low": 1, "high": 64, "grid": [1, 8, 64]},
    },
    "sampler": {"name": "random"},
    "budget": {"trials": 20, "epochs": 90},
    "seed": 7,
}


def task(folder: Path, **changes: Any) -> Path:
    """A spec file of the trainer `simulated`: 30 grid points, rungs at 1 and 3."""
    file = folder / "task.yaml"
    file.write_text(json.dumps(TASK | changes))
    return file


@dataclass
class Simulator:
    """Takes the place of launching and resuming; `signals` says which study is cut short, and by which signal."""

    signals: dict[str, int] = field(default_factory=dict)
    launched: list[str] = field(default_factory=list)
    resumed: list[str] = field(default_factory=list)

    def launch(self, spec: Spec, *, home: Path, **options: Any) -> StoredStudy:
        assert options["exactly"]
        self.launched.append(spec.name)
        return self._run(spec, home / spec.name)

    def resume(self, folder: Path, **options: Any) -> StoredStudy:  # noqa: ARG002
        self.resumed.append(folder.name)
        spec = StoredStudy.open(folder).spec
        (folder / "journal.jsonl").unlink()
        return self._run(spec, folder)

    def _run(self, spec: Spec, folder: Path) -> StoredStudy:
        whole = completed(spec, trainer_of(spec))
        folder.mkdir(parents=True, exist_ok=True)
        simulate(whole, typical_curve(whole.space, whole.max_epochs, 0), workers=2, seed=whole.seed, folder=folder)
        signal = self.signals.pop(spec.name, None)
        if signal is not None:
            cut_short(folder)
        return StoredStudy.open(folder, signal)


def cut_short(folder: Path) -> None:
    """As if the study's process had died in its middle."""
    file = folder / "journal.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    kept = lines[: len(lines) // 2]
    while json.loads(kept[-1])["more"]:
        kept.pop()
    file.write_bytes(b"".join(kept))


def use(simulator: Simulator, patch: pytest.MonkeyPatch) -> Simulator:
    """Have tournaments simulate their studies."""
    patch.setattr(tournament_rounds, "launch_spec", simulator.launch)
    patch.setattr(tournament_rounds, "resume_study", simulator.resume)
    return simulator
