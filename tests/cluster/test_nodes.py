"""A study on two hosts: code, data, checkpoints and what fits where."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.events import Measured
from hpo.results import StoredStudy
from hpo.trial import State
from tests.cluster.hosts import network, why_not
from tests.cluster.places import ROOT, Cluster, wait_for

pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not()), pytest.mark.timeout(600)]

SPEC = ROOT / "tests" / "cluster" / "steady.yaml"


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder, with a trainer and what it imports; the second host does not see it."""
    folder = tmp_path_factory.mktemp("code")
    shutil.copy(ROOT / "tests" / "cluster" / "trainers.py", folder / "mine.py")
    (folder / "helping.py").write_text("BONUS = 100.0\n")
    text = (
        (folder / "mine.py")
        .read_text()
        .replace("from hpo.trainer", "from helping import BONUS\nfrom hpo.trainer")
        .replace("x + epoch", "BONUS + x + epoch")
    )
    (folder / "mine.py").write_text(text)
    return folder


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, code: Path) -> Iterator[Cluster]:
    """The second host has a resource of its own."""
    with network(tmp_path_factory.mktemp("network")) as net:
        found = Cluster(net, [net.host(), net.host(hidden=[code])])
        found.enough.touch()
        found.start(found.head)
        found.start(found.hosts[1], "--resource", "tpu=1")
        yield found


def _hosts(study: StoredStudy) -> set[float]:
    return {record.event.metrics["host"] for record in study.records if isinstance(record.event, Measured)}


def test_a_users_own_code_goes_along_to_nodes_that_have_no_such_folder(cluster: Cluster, code: Path) -> None:
    words = ["launch", SPEC, "--trainer", "mine:steady", "--address", "auto", "--trials", "4", "--name", "carried"]
    done = cluster.head.run(
        [*cluster.hpo(*words), "--set", f"checkpoints.storage={cluster.storage}", "--set", "resources.custom={tpu: 1}"], cluster.env, code
    )
    assert done.returncode == 0, done.stderr
    study = StoredStudy.open(cluster.home / "carried")
    assert {trial.state for trial in study.trials} == {State.COMPLETE}
    assert _hosts(study) == {2.0}
    assert all(m.value > 100 for trial in study.trials for m in trial.measurements)  # helping.py was there, too
    assert not list(code.glob("runs*"))


def test_an_installed_trainer_needs_nothing_carried_and_finds_its_data(cluster: Cluster) -> None:
    words = [
        "launch",
        ROOT / "search_spaces" / "digits.yaml",
        "--address",
        "auto",
        "--trials",
        "6",
        "--name",
        "installed",
        "--set",
        "finals=none",
    ]
    done = cluster.run(*words, "--set", f"checkpoints.storage={cluster.storage}")
    assert done.returncode == 0, done.stderr
    study = StoredStudy.open(cluster.home / "installed")
    assert study.best is not None
    assert list(cluster.storage.glob("installed-*/trials/*/best/state.json"))
    verified = cluster.run("verify", "installed")
    assert verified.returncode == 0, verified.stdout


def test_the_plan_says_what_fits_where_and_what_never_will(cluster: Cluster) -> None:
    found = json.loads(cluster.run("plan", ROOT / "search_spaces" / "digits.yaml", "--address", "auto", "--json").stdout)
    assert [machine["name"].split()[0] for machine in found["there"]] == ["host1", "host2"]
    assert (found["placement"]["on"], found["placement"]["slots"]) == ([1, 1], 2)
    for setting, message in (
        ("resources.cpus=2", "resources.cpus: a trial asks for 2 CPUs, the largest of 2 machines has 1"),
        ("resources.custom={tpu: 2}", "no machine has more than 1"),
        ("resources.custom={gpux: 1}", "resources.custom.gpux"),
        ("resources.gpus=1", "no machine of 2 has more than 0"),
    ):
        refused = cluster.run("plan", ROOT / "search_spaces" / "digits.yaml", "--address", "auto", "--set", setting)
        assert (refused.returncode, message in refused.stderr) == (2, True), refused.stderr


def test_on_two_nodes_a_launch_without_storage_is_refused_before_it_begins(cluster: Cluster) -> None:
    refused = cluster.run("launch", ROOT / "search_spaces" / "digits.yaml", "--address", "auto", "--name", "nowhere")
    assert refused.returncode == 2
    assert "checkpoints.storage: this cluster has 2 nodes" in refused.stderr
    assert not (cluster.home / "nowhere").exists()


@pytest.mark.parametrize("host", [0, 1])
def test_with_another_token_nobody_joins(cluster: Cluster, host: int, tmp_path: Path) -> None:
    other = tmp_path / "token"
    other.write_text("0" * 64)
    env = {**cluster.env, "RAY_AUTH_TOKEN_PATH": str(other)}
    words = ["--address", cluster.address, "--trainer", "tests.cluster.trainers:steady", "--name", "stranger"]
    refused = cluster.hosts[host].run(cluster.hpo("launch", SPEC, *words), env, ROOT)
    assert (refused.returncode, "refuses this token" in refused.stderr) == (2, True), refused.stderr
    assert not (cluster.home / "stranger").exists()
    planned = cluster.hosts[host].run(cluster.hpo("plan", ROOT / "search_spaces" / "digits.yaml", "--address", cluster.address), env, ROOT)
    assert (planned.returncode, "refuses this token" in planned.stderr) == (2, True), planned.stderr


def test_two_searches_share_the_cluster(cluster: Cluster) -> None:
    """Two owners, two slots: while both run neither has both hosts; when one is over the other has."""
    cluster.enough.unlink(missing_ok=True)
    first = cluster.launch(SPEC, "--name", "first", "--trials", "12", owner="ann")
    try:
        wait_for(lambda: {host for _, host in cluster.measured("first")} == {1.0, 2.0}, "the first search to have both hosts")
        second = cluster.launch(SPEC, "--name", "second", "--trials", "4", owner="bob")
        assert second.wait(400) == 0, cluster.log.read_text()
        wait_for(lambda: len({host for at, host in cluster.measured("first") if at > cluster.measured("second")[-1][0]}) == 2, "both again")
    finally:
        cluster.enough.touch()
    assert first.wait(300) == 0, cluster.log.read_text()
    for name, trials in (("first", 12), ("second", 4)):
        study = StoredStudy.open(cluster.home / name)
        assert len(study.trials) == trials
        assert {trial.state for trial in study.trials} == {State.COMPLETE}
    began, ended = cluster.measured("second")[0][0], cluster.measured("second")[-1][0]
    meanwhile = [host for at, host in cluster.measured("first") if began < at < ended]
    assert len(meanwhile) > 25  # it went on all the time, a trial behind the other
    assert len(set(meanwhile)) == 1, "it took a host from the other"


def test_a_node_that_cannot_train_the_study_is_named_before_it_eats_trials(cluster: Cluster) -> None:
    """The third host does not see the storage."""
    third = cluster.network.host(hidden=[cluster.storage])
    cluster.start(third)
    refused = cluster.launch(SPEC, "--name", "unmounted")
    assert refused.wait(120) == 2, cluster.log.read_text()
    said = cluster.log.read_text()
    assert "not every node can train this study" in said
    assert f"{third.name} ({third.address}): checkpoints.storage: " in said
    assert "host2 (" not in said.partition("not every node")[2]
    study = StoredStudy.open(cluster.home / "unmounted")
    assert study.trials == []
