"""The command line of a node of a standing Ray cluster: `ray start`, safe by default. Imports no ray.

Every port demands the token; the dashboard is off unless jobs are wanted, and then on this machine's loopback; a node that is
gone is noticed within 15 s.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hpo.engine import ray_token
from hpo.engine.ray_settings import OBJECT_STORE_BYTES
from hpo.home import study_home

PORT, JOBS_PORT = 6379, 8265
TAKEN = range(10_001, 20_000)  # Ray's client, and its workers
HEALTH = {  # of the head's, for all nodes: five missed looks, a second each
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
}
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1"}
CLOSED = {  # Ray's pages for Prometheus ask nobody for a token
    "RAY_enable_metrics_collection": "false",
    "AUTOSCALER_METRIC_PORT": "-1",
    "DASHBOARD_METRIC_PORT": "-1",
}


@dataclass(frozen=True, slots=True)
class Node:
    """What a node is to be: the head (`joins` is None) or a worker that joins the head at HOST:PORT.

    `ip` is the address under which the other nodes reach it; `cpus` and `gpus` are what it has, unless said.
    """

    joins: str | None = None
    ip: str | None = None
    port: int = PORT
    jobs: bool = False
    cpus: int | None = None
    gpus: int | None = None
    custom: Mapping[str, float] | None = None


def command(node: Node) -> list[str]:
    """What to run in its place, in `environment()`; it stays in the foreground and ends with its last process, or by SIGTERM."""
    ray = str(Path(sys.executable).with_name("ray"))
    found = [ray, "start", "--block", "--disable-usage-stats", "--include-log-monitor=false", f"--object-store-memory={OBJECT_STORE_BYTES}"]
    if node.joins is None:
        found += ["--head", f"--port={node.port}", f"--include-dashboard={str(node.jobs).lower()}"]
        found += ["--dashboard-host=127.0.0.1", f"--dashboard-port={JOBS_PORT}"] if node.jobs else []
    else:
        found += [f"--address={node.joins}"]
    numbers = (("--num-cpus", node.cpus), ("--num-gpus", node.gpus))
    found += [f"--node-ip-address={node.ip}"] if node.ip else []
    found += [f"{option}={number}" for option, number in numbers if number is not None]
    return [*found, *([f"--resources={json.dumps(dict(node.custom))}"] if node.custom else [])]


def environment() -> dict[str, str]:
    """What a node needs beside this process's own environment, whose token it takes; its jobs find `hpo`, and the home from here."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    jobs = {"PATH": path, "HPO_HOME": str(study_home().absolute())}
    return {ray_token.MODE: "token", **HEALTH, **QUIET, **CLOSED, **jobs}


def token(node: Node) -> Path | None:
    """See to the node's token; its file, None if the environment holds it. TokenError if a worker has none to join with."""
    if node.joins is None:
        return ray_token.have_or_make()
    ray_token.have_given()
    return None if os.environ.get(ray_token.TOKEN) else ray_token.file()


def become(node: Node) -> None:
    """This process is `ray start` from here on."""
    words = command(node)
    os.execve(words[0], words, os.environ | environment())
