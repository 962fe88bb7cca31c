"""A study on two hosts whose link is cut again and again: what is lost is noticed and made up, and a zombie changes nothing."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.events import Measured, Retried
from hpo.results import StoredStudy
from hpo.trial import State
from tests.cluster.hosts import network, why_not
from tests.cluster.places import ROOT, Cluster, wait_for
from tests.servers.postgres import why_not as why_no_postgres

CUTS = int(os.environ.get("HPO_TEST_CUTS", "10"))
NOTICED_S = 15.0
SPEC = ROOT / "tests" / "cluster" / "steady.yaml"

pytestmark = [pytest.mark.skipif(bool(why_not()), reason=why_not()), pytest.mark.timeout(1200)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with network(tmp_path) as net:
        found = Cluster(net, [net.host(), net.host()])
        for host in found.hosts:
            found.start(host)
        yield found


def _on(cluster: Cluster, host: float, since: int) -> Measured | None:
    """A measurement of that host among the journal's lines from `since` on."""
    found = [event for event in cluster.events("steady")[since:] if isinstance(event, Measured) and event.metrics["host"] == host]
    return found[-1] if found else None


def _assert_whole(cluster: Cluster) -> None:
    """Every trial and every epoch is there once, and all copies agree."""
    study = StoredStudy.open(cluster.home / "steady")
    assert {trial.state for trial in study.trials} == {State.COMPLETE}
    assert len(study.trials) == 60
    epochs = Counter((event.trial, event.epoch) for event in cluster.events("steady") if isinstance(event, Measured))
    assert set(epochs.values()) == {1}
    assert len(epochs) == 60 * 25
    verified = cluster.run("verify", "steady")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_ten_cuts_of_a_workers_link(cluster: Cluster) -> None:
    launch = cluster.launch(SPEC)
    worker, noticed = cluster.hosts[1], []
    for cut in range(CUTS):
        seen = len(cluster.events("steady"))
        wait_for(lambda since=seen: _on(cluster, 2.0, since), f"a trial on the second host before cut {cut}")
        since, began = len(cluster.events("steady")), time.monotonic()
        worker.cut()
        lost = wait_for(
            lambda since=since: next((event for event in cluster.events("steady")[since:] if isinstance(event, Retried)), None), "the loss"
        )
        noticed.append(time.monotonic() - began)
        gone_on = wait_for(
            lambda lost=lost, since=since: next(
                (
                    e
                    for e in cluster.events("steady")[since:]
                    if isinstance(e, Measured) and e.trial == lost.trial and e.metrics["host"] == 1
                ),
                None,
            ),
            f"trial {lost.trial} on the other host",
        )
        assert gone_on.metrics["restored"] > 0, "it began again"
        worker.heal()
        cluster.nodes[worker.name].wait()  # Ray has a node that was given up for dead end itself
        cluster.start(worker)
    cluster.enough.touch()
    assert launch.wait(300) == 0, cluster.log.read_text()
    print("noticed after", [round(seconds, 1) for seconds in noticed], "s")
    assert max(noticed) <= NOTICED_S
    _assert_whole(cluster)


@pytest.mark.skipif(bool(why_no_postgres()), reason=why_no_postgres())
def test_ten_cuts_between_the_driver_and_mlflow(tmp_path: Path) -> None:
    """MLflow is on a host of its own. Training does not wait for it, and what it missed it gets."""
    with network(tmp_path) as net:
        cluster, recorder = Cluster(net, [net.host()]), net.host()
        cluster.start(cluster.head, cpus=2)
        cluster.serve_mlflow(recorder)
        launch = cluster.launch(SPEC)
        for cut in range(CUTS):
            seen = len(cluster.events("steady"))
            wait_for(lambda since=seen: len(cluster.events("steady")) > since + 20, f"the study to train before cut {cut}")
            recorder.cut()
            seen = len(cluster.events("steady"))
            wait_for(lambda since=seen: len(cluster.events("steady")) > since + 40, "training that goes on without MLflow")
            recorder.heal()
        cluster.enough.touch()
        assert launch.wait(300) == 0, cluster.log.read_text()
        _assert_whole(cluster)
    cluster.close()
