"""The batch script run against stand-ins for Slurm and hpo: ends, signals, lost nodes, tokens, ports. Slow: a run takes seconds.

The copies of the journal are real, and so is the journal.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.events import Measured
from hpo.journal_format import read
from tests.slurm_stand_ins.cluster import ROOT, Cluster, Job, until

SCRIPT = str(ROOT / "infra" / "slurm" / "hpo.sbatch")
STOPPED, INTERRUPTED, KILLED = 75, 130, 137


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    for name in ("RAY_AUTH_TOKEN", "RAY_ADDRESS", "HPO_CONFIG", "HPO_SHARED", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    found = Cluster(tmp_path, monkeypatch)
    yield found
    found.close()


def epochs(cluster: Cluster, name: str = "study", shared: str = "runs") -> list[int]:
    """The epochs in the study's newest copy, in order."""
    records = read(cluster.desk / shared / name / "journal.jsonl")
    return [record.event.epoch for record in records if isinstance(record.event, Measured)]


def leases(cluster: Cluster) -> list[int]:
    return sorted({record.lease for record in read(cluster.desk / "runs" / "study" / "journal.jsonl")})


def tidy(cluster: Cluster, job: Job) -> bool:
    """Nothing is left on the nodes, nor of the token."""
    return closed(cluster) and not Path(f"/tmp/hpo-{os.getuid()}-{job.number}").exists()


def closed(cluster: Cluster) -> bool:
    """No journal is left on a node, no token anywhere; what is Ray's may be, where Slurm kills the steps."""
    return not list(cluster.local.iterdir()) and not list(cluster.desk.rglob("token"))


def test_a_search_from_submission_to_its_end(cluster: Cluster) -> None:
    cluster.search()
    job = cluster.sbatch("--cpus-per-task=6", SCRIPT, "search.json", "--trials", "40", number=711, gpus={"n1": 1, "n2": 4})
    assert job.wait() == 0, job.said
    assert (job.restarts, job.state) == (0, "COMPLETED")
    assert epochs(cluster) == [1, 2, 3]
    head, worker = cluster.calls("node")
    ip, port = "127.0.0.1", str(20_000 + int(job.number) % 10_000)
    assert head["argv"] == ["node", "--head", "--port", port, "--ip", ip, "--cpus", "6", "--gpus", "1"]
    assert worker["argv"] == ["node", "--address", f"{ip}:{port}", "--cpus", "6", "--gpus", "4"]
    (driver,) = cluster.calls("launch")
    storage = cluster.desk / "runs" / "checkpoints"
    assert driver["argv"] == [
        *("launch", "search.json", "--trials", "40", "--name", "study", "--or-resume"),
        *("--address", f"{ip}:{port}", "--set", f"checkpoints.storage={storage}"),
    ]
    assert storage.is_dir()
    assert driver["cwd"] == str(cluster.desk)
    assert driver["env"]["HPO_HOME"].startswith(f"{cluster.local}/hpo-{job.number}-")
    assert (cluster.desk / "runs" / "study" / "ray.log").read_text() == "what Ray said\n"
    assert tidy(cluster, job)


def test_the_token_is_one_for_all_nodes_and_nobody_elses(cluster: Cluster) -> None:
    cluster.search(epochs=10_000)
    job = cluster.sbatch(SCRIPT, "search.json", env={"RAY_AUTH_TOKEN": "somebody's", "RAY_ADDRESS": "10.0.0.9:6379"})
    job.until_it_trains()
    nodes = cluster.calls("node")
    (token,) = {call["token"] for call in nodes}
    assert len(nodes) == 2
    assert len(token) == 64
    assert all(call["modes"] == ["0o600", "0o700", "0o700"] for call in nodes)
    assert all(call["umask"] == "0o77" for call in cluster.calls())
    for call in cluster.calls():
        assert (call["env"]["RAY_AUTH_TOKEN"], call["env"]["RAY_ADDRESS"]) == (None, None)
        assert call["env"]["RAY_AUTH_TOKEN_PATH"] == str(cluster.desk / "runs" / ".jobs" / job.number / "token")
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _is_mine(path)]
    assert any(b"hpo_node" in line or b"slurm_script" in line for line in lines)
    assert not any(token.encode() in line for line in lines)
    job.time_limit("INT")
    assert job.wait() == INTERRUPTED
    written = [path for path in [*cluster.desk.rglob("*"), *cluster.folder.rglob("*")] if path.is_file()]
    assert job.log in written
    assert not [path for path in written if token.encode() in path.read_bytes()]


def _is_mine(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.getuid() and bool(path.read_bytes())
    except OSError:
        return False


def test_every_run_has_a_token_of_its_own(cluster: Cluster) -> None:
    cluster.search(epochs=10_000)
    job = cluster.sbatch("--nodes=1", SCRIPT, "search.json")
    job.until_it_trains()
    job.time_limit()
    job.until_it_trains(restarts=1)
    cluster.enough()
    assert job.wait() == 0
    assert len({call["token"] for call in cluster.calls("node")}) == 2


@pytest.mark.parametrize("way", ["time_limit", "preempt"])
def test_a_job_whose_time_is_up_goes_on_in_another_run(cluster: Cluster, way: str) -> None:
    cluster.search(epochs=10_000)
    job = cluster.sbatch(SCRIPT, "search.json")
    for run in range(2):
        job.until_it_trains(3, restarts=run)
        getattr(job, way)()
    job.until_it_trains(3, restarts=2)
    cluster.enough()
    assert job.wait() == 0, job.said
    assert job.restarts == 2
    assert epochs(cluster) == list(range(1, len(epochs(cluster)) + 1))
    assert len(epochs(cluster)) >= 9
    assert leases(cluster) == [1, 2, 3]
    assert tidy(cluster, job)


@pytest.mark.parametrize("when", ["at once", "before the head is up", "before the others are up"])
def test_a_signal_before_the_search_began_loses_nothing(cluster: Cluster, when: str) -> None:
    cluster.search(epochs=5)
    job = cluster.sbatch(SCRIPT, "search.json")
    if when == "before the head is up":
        until(lambda: "restart 0" in job.said)
    elif when == "before the others are up":
        until(lambda: cluster.calls("node"))
    job.time_limit()
    code = job.wait()
    if job.restarts == 0:  # bash itself was ended, before it could say anything
        assert (when, code) == ("at once", 128 + 15)
    else:
        assert (code, epochs(cluster)) == (0, [1, 2, 3, 4, 5])


def test_a_cancelled_job_stays_out_of_the_queue_and_its_study_goes_on_when_asked(cluster: Cluster) -> None:
    cluster.search(epochs=10_000)
    job = cluster.sbatch(SCRIPT, "search.json")
    job.until_it_trains(3)
    job.cancel()
    assert job.wait() == STOPPED
    assert job.restarts == 0
    before = len(epochs(cluster))
    assert before >= 3
    again = cluster.sbatch(SCRIPT, "search.json", number=2)
    again.until_it_trains()
    cluster.enough()
    assert again.wait() == 0, again.said
    assert epochs(cluster) == list(range(1, len(epochs(cluster)) + 1))
    assert len(epochs(cluster)) > before
    assert closed(cluster)


def test_sigint_stops_it_for_good(cluster: Cluster) -> None:
    cluster.search(epochs=10_000)
    job = cluster.sbatch(SCRIPT, "search.json")
    job.until_it_trains()
    job.time_limit("INT")
    assert job.wait() == INTERRUPTED
    assert job.restarts == 0
    assert "submit it again" in job.said
    assert tidy(cluster, job)


@pytest.mark.parametrize("code", [0, 1, 2, 3, 65, 75])
def test_the_jobs_exit_code_is_the_searchs_and_no_failure_is_tried_for_ever(cluster: Cluster, code: int) -> None:
    cluster.search(exit=code)
    job = cluster.sbatch("--nodes=1", SCRIPT, "search.json")
    assert job.wait() == code, job.said
    assert job.restarts == 0
    assert tidy(cluster, job)


def test_a_search_that_cannot_be_meant_starts_nothing(cluster: Cluster) -> None:
    cluster.search(mistake="search.json:1:1: trials: 0 is too few")
    job = cluster.sbatch(SCRIPT, "search.json")
    assert job.wait() == 2
    assert "0 is too few" in job.said
    assert cluster.calls() == []
    assert not (cluster.desk / "runs").exists()


@pytest.mark.parametrize(("most", "restarts", "code"), [("0", 0, STOPPED), ("2", 2, STOPPED)])
def test_it_goes_back_into_the_queue_so_often_and_no_oftener(cluster: Cluster, most: str, restarts: int, code: int) -> None:
    cluster.search(epochs=10_000)
    job = cluster.sbatch("--nodes=1", SCRIPT, "search.json", env={"HPO_MAX_RESTARTS": most})
    for run in range(restarts + 1):
        job.until_it_trains(restarts=run)
        job.time_limit()
    assert job.wait() == code
    assert job.restarts == restarts
    assert "submit it again" in job.said


def test_a_job_that_slurm_itself_restarts_for_ever_ends(cluster: Cluster) -> None:
    cluster.search()
    job = cluster.sbatch("--nodes=1", SCRIPT, "search.json", env={"HPO_MAX_RESTARTS": "3", "SLURM_RESTART_COUNT": "4"})
    assert job.wait() == 1
    assert "was restarted 4 times" in job.said
    assert cluster.calls() == []


def test_when_the_first_node_dies_without_a_word_what_was_copied_is_kept(cluster: Cluster) -> None:
    cluster.search(epochs=10_000)
    job = cluster.sbatch(SCRIPT, "search.json")
    job.until_it_trains()
    copy = cluster.desk / "runs" / "study" / "journal-00001.jsonl"
    until(lambda: copy.exists() and len(read(copy)) > 10)
    kept = len(read(copy))
    job.lose("n1")
    job.until_it_trains(restarts=1)
    cluster.enough()
    assert job.wait() == 0, job.said
    assert job.restarts == 1
    assert epochs(cluster) == list(range(1, len(epochs(cluster)) + 1))
    assert sum(record.lease == 1 for record in read(cluster.desk / "runs" / "study" / "journal.jsonl")) >= kept
    assert leases(cluster) == [1, 2]


def test_when_another_node_dies_the_search_goes_on(cluster: Cluster) -> None:
    cluster.search(epochs=10_000)
    job = cluster.sbatch("--nodes=3", SCRIPT, "search.json")
    job.until_it_trains()
    job.lose("n2")
    job.until_it_trains(int((cluster.stand_ins / "running").read_text().split()[2]) + 5)
    cluster.enough()
    assert job.wait() == 0, job.said
    assert job.restarts == 0
    assert epochs(cluster) == list(range(1, len(epochs(cluster)) + 1))


def test_two_jobs_on_the_same_nodes_do_not_meet(cluster: Cluster) -> None:
    cluster.search("one", file="one.json", epochs=10_000)
    cluster.search("two", file="two.json", epochs=10_000)
    jobs = [cluster.sbatch(SCRIPT, "one.json", number=7), cluster.sbatch(SCRIPT, "two.json", number=10_007)]  # of one remainder
    for job in jobs:
        until(lambda job=job: len([call for call in cluster.calls("launch") if call["job"] == job.number]) == 1)
    drivers = cluster.calls("launch")
    assert len({call["argv"][call["argv"].index("--address") + 1] for call in drivers}) == 2
    tokens = {call["job"]: call["token"] for call in cluster.calls("node")}
    assert len(set(tokens.values())) == 2
    for job in jobs:
        job.time_limit("INT")
        assert job.wait() == INTERRUPTED
    assert all(tidy(cluster, job) for job in jobs)


def test_a_study_that_another_job_runs_is_left_alone(cluster: Cluster) -> None:
    cluster.search(epochs=10_000)
    job = cluster.sbatch("--nodes=1", SCRIPT, "search.json")
    job.until_it_trains()
    second = cluster.sbatch("--nodes=1", SCRIPT, "search.json", number=2)
    assert second.wait() == 2
    assert f"study study is job {job.number}'s, which is RUNNING" in second.said
    other = cluster.sbatch("--nodes=1", SCRIPT, "search.json", "--name", "another", number=3)
    other.until_it_trains()
    for left in (job, other):
        left.time_limit("INT")
        assert left.wait() == INTERRUPTED


@pytest.mark.parametrize("whose", ["the search's", "the site's", "the shared folder's"])
def test_checkpoints_go_where_the_search_or_the_site_says(cluster: Cluster, whose: str, tmp_path: Path) -> None:
    cluster.search(**({"storage": "s3://bucket/of-the-search"} if whose == "the search's" else {}))
    env = {}
    if whose == "the site's":
        (tmp_path / "site.yaml").write_text("cluster: {storage: s3://bucket/of-the-site, address: '10.0.0.9:6379'}\n")
        env = {"HPO_CONFIG": str(tmp_path / "site.yaml")}
    if whose == "the shared folder's":
        env = {"HPO_SHARED": str(tmp_path / "elsewhere")}
    job = cluster.sbatch("--nodes=1", SCRIPT, "search.json", env=env)
    assert job.wait() == 0, job.said
    argv = cluster.calls("launch")[0]["argv"]
    given = argv[argv.index("--set") + 1] if "--set" in argv else None
    assert given == (f"checkpoints.storage={tmp_path}/elsewhere/checkpoints" if whose == "the shared folder's" else None)
    if whose == "the shared folder's":
        assert (tmp_path / "elsewhere" / "study" / "journal.jsonl").exists()


def test_names_with_spaces_go_through_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    cluster = Cluster(tmp_path, monkeypatch, desk="my searches")
    try:
        cluster.search(file="the search.json", epochs=2)
        job = cluster.sbatch("--nodes=1", SCRIPT, "the search.json", "--set", "trainer.settings.note=two words; $HOME *")
        assert job.wait() == 0, job.said
        argv = cluster.calls("launch")[0]["argv"]
        assert argv[1:4] == ["the search.json", "--set", "trainer.settings.note=two words; $HOME *"]
        assert argv[-1] == f"checkpoints.storage={cluster.desk}/runs/checkpoints"
        assert epochs(cluster) == [1, 2]
    finally:
        cluster.close()


def test_outside_of_slurm_it_says_how_it_is_meant(cluster: Cluster) -> None:
    cluster.search()
    job = cluster.sbatch("--nodes=1", SCRIPT, "search.json", env={"SLURM_JOB_ID": ""})
    assert job.wait() == 2
    assert "sbatch infra/slurm/hpo.sbatch FILE" in job.said
