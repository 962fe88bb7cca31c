"""The batch script with the real thing: two nodes of Ray by a stand-in for srun, a search that is stopped and requeued in the middle."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from hpo.events import Finished, Measured
from hpo.journal_format import read
from hpo.results import StoredStudy
from tests.slurm_stand_ins.cluster import ROOT, Cluster, until

pytestmark = pytest.mark.timeout(600)
SCRIPT = str(ROOT / "infra" / "slurm" / "hpo.sbatch")
HPO = Path(sys.executable).with_name("hpo")
SHORT = ("--set", "budget.trials=40", "--set", "budget.time=30m", "--set", "trainer.settings.max_epochs=9", "--set", "finals=none")


def test_a_real_search_goes_on_after_its_job_was_requeued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_ADDRESS", "HPO_CONFIG", "HPO_SHARED", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    cluster = Cluster(tmp_path, monkeypatch, real_hpo=True)
    room, search = cluster.desk / "runs" / "digits", str(ROOT / "search_spaces" / "digits.yaml")
    try:
        job = cluster.sbatch("--cpus-per-task=1", SCRIPT, search, *SHORT, number=1)
        until(lambda: (room / "journal.jsonl").exists() and len(read(room / "journal.jsonl")) > 40)
        assert Counter(path.name.split("-")[0] for path in (job.folder / "steps").iterdir()) == {"n1": 1, "n2": 1}
        job.time_limit()
        until(lambda: job.restarts == 1 or not job.is_there)
        assert job.wait() == 0, job.said
    finally:
        cluster.close()
    assert job.restarts == 1
    study = StoredStudy.open(room)
    assert (study.state, len(study.trials)) == ("budget", 40)
    assert sorted({record.lease for record in study.records}) == [1, 2]
    events = [record.event for record in study.records]
    epochs = Counter((event.trial, event.epoch) for event in events if isinstance(event, Measured))
    ends = Counter(event.trial for event in events if isinstance(event, Finished))
    assert set(epochs.values()) == set(ends.values()) == {1}
    assert len(ends) == 40

    # what the page says of MLflow's record, which went with the nodes: made again from the journal's copy, and all of it agrees
    kept = tmp_path / "kept" / "digits"
    kept.mkdir(parents=True)
    (kept / "journal.jsonl").write_bytes((room / "journal.jsonl").read_bytes())
    env = os.environ | {"HPO_HOME": str(kept.parent)}
    for words in (["track", "digits"], ["verify", "digits"]):
        done = subprocess.run([HPO, *words], env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
