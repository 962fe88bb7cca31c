"""The batch script on a real Slurm, two nodes of one machine, with a stand-in for hpo: what the stand-ins for Slurm were made after."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpo.events import Measured
from hpo.journal_format import read
from tests import slurm_machine
from tests.slurm_machine import Slurm, why_not
from tests.slurm_stand_ins.cluster import ROOT, Cluster, until

pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not()), pytest.mark.timeout(600)]
SCRIPT = str(ROOT / "infra" / "slurm" / "hpo.sbatch")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    with slurm_machine.slurm(tmp_path_factory.mktemp("slurm")) as found:
        yield found


class Desk:
    """Where a user submits."""

    def __init__(self, slurm: Slurm, cluster: Cluster) -> None:
        self.slurm, self.cluster = slurm, cluster

    def sbatch(self, *words: str) -> str:
        """The number of the job."""
        env = {
            "HPO_VENV": str(self.cluster.venv),
            "HPO_LOCAL": str(self.cluster.local),
            "STAND_INS": str(self.cluster.stand_ins),
            "PYTHONPATH": str(ROOT),
        }
        return self.slurm.run("sbatch", "--parsable", "--cpus-per-task=1", *words, SCRIPT, "search.json", env=env, cwd=self.cluster.desk)

    def until_it_trains(self, job: str, restarts: int = 0, epochs: int = 3) -> None:
        progress = self.cluster.stand_ins / "running"

        def trains() -> bool:
            found = progress.read_text().split() if progress.exists() else []
            return len(found) == 3 and found[:2] == [job, str(restarts)] and int(found[2]) >= epochs

        until(trains)

    @property
    def epochs(self) -> list[int]:
        records = read(self.cluster.desk / "runs" / "study" / "journal.jsonl")
        return [record.event.epoch for record in records if isinstance(record.event, Measured)]

    def said(self, job: str) -> str:
        return (self.cluster.desk / f"hpo-{job}.log").read_text()

    def ends(self, job: str, state: str, restarts: int) -> None:
        """The job leaves the queue so, and leaves nothing behind on its nodes."""
        self.slurm.until(job, state)
        assert self.slurm.state(job) == (state, restarts), self.said(job)
        until(lambda: not list(self.cluster.local.iterdir()))
        assert not list(self.cluster.desk.rglob("token"))


@pytest.fixture
def desk(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    for name in ("RAY_AUTH_TOKEN", "RAY_ADDRESS", "HPO_CONFIG", "HPO_SHARED", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    cluster = Cluster(tmp_path, monkeypatch)
    for name in ("srun", "scontrol", "squeue", "hostname"):
        (cluster.venv / "bin" / name).unlink()
    return Desk(slurm, cluster)


def test_a_search_from_submission_to_its_end(desk: Desk) -> None:
    desk.cluster.search(epochs=5)
    job = desk.sbatch()
    desk.ends(job, "COMPLETED", restarts=0)
    assert desk.epochs == [1, 2, 3, 4, 5]
    assert [call["env"]["SLURMD_NODENAME"] for call in desk.cluster.calls("node")] == ["n1", "n2"]
    assert not Path(f"/tmp/hpo-{os.getuid()}-{job}").exists()


def _signalled(slurm: Slurm, job: str) -> None:
    slurm.run("scancel", "--batch", "--signal=TERM", job)


def _preempted(slurm: Slurm, job: str) -> None:
    slurm.run("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=true")


def _preempted_at_once(slurm: Slurm, job: str) -> None:
    slurm.run("scontrol", "update", "partitionname=low", "gracetime=0")
    _preempted(slurm, job)
    slurm.until(job, "PENDING", restarts=1)
    slurm.run("scontrol", "update", "partitionname=low", "gracetime=30")


def _left_alone(slurm: Slurm, job: str) -> None:
    pass


@pytest.mark.parametrize(
    ("options", "happens"),
    [
        ((), _signalled),
        ((), _preempted),
        ((), _preempted_at_once),
        (("--time=1", "--signal=B:TERM@40"), _left_alone),  # its time limit comes
    ],
)
def test_what_ends_a_run_does_not_end_the_search(desk: Desk, options: tuple[str, ...], happens: Callable[[Slurm, str], None]) -> None:
    desk.cluster.search(epochs=10_000, epoch_s=0.1)
    job = desk.sbatch(*options)
    desk.until_it_trains(job)
    happens(desk.slurm, job)
    desk.until_it_trains(job, restarts=1)
    desk.cluster.enough()
    desk.ends(job, "COMPLETED", restarts=1)
    assert desk.epochs == list(range(1, len(desk.epochs) + 1))
    assert len(desk.epochs) >= 6


def test_a_cancelled_job_stays_out_of_the_queue(desk: Desk) -> None:
    desk.cluster.search(epochs=10_000, epoch_s=0.1)
    job = desk.sbatch()
    desk.until_it_trains(job)
    desk.slurm.run("scancel", job)
    desk.ends(job, "CANCELLED", restarts=0)
    assert len(desk.epochs) >= 3


def test_sigint_stops_it_for_good(desk: Desk) -> None:
    desk.cluster.search(epochs=10_000, epoch_s=0.1)
    job = desk.sbatch("--nodes=1")
    desk.until_it_trains(job)
    desk.slurm.run("scancel", "--batch", "--signal=INT", job)
    desk.ends(job, "FAILED", restarts=0)
    assert "ExitCode=130:0" in desk.slurm.run("scontrol", "show", "job", job)
