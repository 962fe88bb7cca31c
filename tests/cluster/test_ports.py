"""What a stranger on another host gets from every port that a study, Ray, MLflow or we opened: nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.hosts import Host, network, why_not
from tests.cluster.places import ROOT, Cluster, wait_for
from tests.cluster.stranger import TOKEN
from tests.servers.postgres import why_not as why_no_postgres

pytest.importorskip("grpc", reason="Ray's own protocol is gRPC: pip install '.[cluster]'")
pytestmark = [pytest.mark.skipif(bool(why_not() or why_no_postgres()), reason=why_not() or why_no_postgres()), pytest.mark.timeout(600)]

ANSWERS = {"UNIMPLEMENTED", "UNAUTHENTICATED", "UNAVAILABLE", "DEADLINE_EXCEEDED"}  # to a stranger's call of any method
REFUSED = {401, 403}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Two nodes, the head with jobs, and a third host that is none."""
    with network(tmp_path) as net:
        found = Cluster(net, [net.host(), net.host()])
        net.host()
        found.start(found.head, "--jobs")
        found.start(found.hosts[1])
        yield found
    found.close()


def _ports(host: Host, env: dict[str, str]) -> dict[int, str]:
    """Every TCP port that anything on the host listens at, and which program."""
    listed = host.run(["ss", "--listening", "--tcp", "--numeric", "--processes", "--no-header"], env, ROOT).stdout.splitlines()
    return {int(line.split()[3].rpartition(":")[2]): line.split()[-1] for line in listed}


def _asked(by: Host, of: Host, ports: list[int], env: dict[str, str]) -> dict[int, Any]:
    done = by.run([sys.executable, "-m", "tests.cluster.stranger", of.address, *map(str, ports)], env, ROOT)
    assert done.returncode == 0, done.stderr
    return {int(port): answer for port, answer in json.loads(done.stdout).items()}


def test_no_port_gives_a_stranger_anything(cluster: Cluster) -> None:
    stranger = cluster.network.hosts[2]
    cluster.serve_mlflow(cluster.head)
    launch = cluster.launch(ROOT / "tests" / "cluster" / "steady.yaml")
    wait_for(lambda: len(cluster.events("steady")) > 10, "the study to train")
    looked = 0
    for host in cluster.hosts:
        ports = _ports(host, cluster.env)
        assert len(ports) >= 4, ports
        answers = _asked(stranger, host, list(ports), cluster.env)
        known = _asked(stranger, host, list(ports), {**cluster.env, TOKEN: cluster.token.read_text()})
        for port, program in ports.items():
            answer, place = answers[port], f"port {port} of {host.name}: {program}"
            if "closed" in answer:  # it is on the host's loopback only
                continue
            looked += 1
            by_http = {status for status in answer["http"].values() if isinstance(status, int)}
            assert by_http <= REFUSED, f"{place}: {answer}"
            assert answer["grpc"].keys() <= ANSWERS, f"{place}: {answer}"
            assert by_http or answer["grpc"].get("UNAUTHENTICATED"), f"{place}: it refuses nothing: {answer}"
            is_known = not by_http or any(isinstance(status, int) and status not in REFUSED for status in known[port]["http"].values())
            assert not known[port]["grpc"].get("UNAUTHENTICATED"), f"{place}: it refuses the token, too: {known[port]}"
            assert is_known or "uvicorn" in program or "python" in program, f"{place}: it refuses the token, too: {known[port]}"
    assert looked >= 8
    cluster.enough.touch()
    assert launch.wait(300) == 0
