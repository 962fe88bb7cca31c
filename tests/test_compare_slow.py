"""A tournament in processes of its own: one that a signal breaks off goes on with the same command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

from tests.conftest import ROOT, hpo_command

PLAIN = str(ROOT / "tests" / "specs" / "plain.yaml")


def test_a_tournament_that_a_signal_breaks_off_goes_on_with_the_same_command(home: Path) -> None:
    number, code = signal.SIGTERM, 75
    words = ["compare", PLAIN, "--trainer", "tests.compare_trainers:broken_off_once", "--samplers", "random,qmc", "--repeats", "1"]
    words += [
        "--epochs",
        "12",
        "--local",
        "--json",
        "--name",
        f"broken-{number}",
        "--set",
        f"trainer.settings.number={number}",
        "--set",
        "finals=none",
    ]
    env = os.environ | {"HPO_HOME": str(home), "CUDA_VISIBLE_DEVICES": ""}
    env.pop("MLFLOW_TRACKING_URI", None)

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(hpo_command(*words), capture_output=True, text=True, env=env, cwd=ROOT, timeout=120, check=False)

    first = run()
    assert (first.returncode, first.stdout) == (code, ""), first.stderr
    assert "the same command goes on" in first.stderr
    second = run()
    assert second.returncode == 0, second.stderr
    found = json.loads(second.stdout)
    assert f"broken-{number}-random-r1" not in second.stderr
    assert f"broken-{number}-qmc-r1 (2 of 2, round 1): goes on" in second.stderr
    assert [(run["epochs"], run["state"]) for arm in found["arms"] for run in arm["runs"]] == [(12, "budget"), (12, "budget")]
