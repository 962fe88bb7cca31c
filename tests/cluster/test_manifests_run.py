"""A study as infra/kubernetes runs it, its driver killed in the middle: users without rights, read-only roots, the volumes and
Secrets of the manifests. This test does what KubeRay would (start Ray, submit, and after a failure again with a new cluster).

Needs root, for namespaces, and PostgreSQL. moto stands in for Garage, this machine's files for the images.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import hosts
from tests.cluster.manifest_pod import Namespace, Pod
from tests.manifests import BIN, FOLDER, INFRA, everything, find, render
from tests.servers import postgres

pytestmark = [
    pytest.mark.skipif(bool(why := hosts.why_not() or postgres.why_not()), reason=why),
    pytest.mark.timeout(1500),
]
ENDS_S = 400.0


@pytest.fixture
def namespace(tmp_path: Path) -> Iterator[Namespace]:
    tmp_path.chmod(0o755)
    made = subprocess.run([sys.executable, "-I", INFRA / "new_secrets.py", "kubernetes"], check=True, capture_output=True, text=True)
    secrets = {item["metadata"]["name"]: item["stringData"] for item in json.loads(made.stdout)["items"]}
    settings = {document["metadata"]["name"]: document["data"] for document in everything() if document["kind"] == "ConfigMap"}
    with hosts.network(tmp_path) as network:
        yield Namespace(tmp_path, network, secrets, settings)


def _template(name: str) -> dict[str, Any]:
    return find(render(), name)["spec"]["template"]["spec"]


def _postgres(namespace: Namespace) -> None:
    """Its image's entrypoint makes the database at the first start; here that is said by hand."""
    pod = namespace.pod("postgres", _template("StatefulSet/postgres"), "hpo")
    script = (
        'initdb -D "$PGDATA" --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-local=trust $POSTGRES_INITDB_ARGS && '
        'echo "CREATE DATABASE $POSTGRES_DB" | postgres --single -D "$PGDATA" postgres && '
        'echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf" && '
        'exec postgres -D "$PGDATA" -c listen_addresses="*" -c unix_socket_directories=/run/postgresql'
    )
    pod.process = pod.start(["sh", "-c", script])
    pod.until_ready()


def _objects(namespace: Namespace) -> None:
    pod = namespace.pod("objects", _template("StatefulSet/objects"), "objects")
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "AWS_DEFAULT_REGION": "us-east-1"}
    pod.process = pod.host.start([BIN / "moto_server", "--host", "0.0.0.0", "--port", "3900"], environment, Path("/"), pod.log)
    until = time.monotonic() + 120
    while pod.get("http://127.0.0.1:3900/hpo", "--request", "PUT") != 200:
        assert time.monotonic() < until, pod.log.read_text()
        time.sleep(0.2)


def _mlflow(namespace: Namespace) -> Pod:
    pod = namespace.pod("mlflow", _template("Deployment/mlflow"), "mlflow")
    pod.process = pod.start(["/usr/local/share/hpo-mlflow/serve.sh"])
    pod.until_ready()
    job = namespace.pod("mlflow-user", _template("Job/mlflow-user"), "mlflow")
    words = [word.replace("$(NAME)", job.environment()["NAME"]) for word in (*job.container["command"], *job.container["args"])]
    code, said = job.run(*words)
    assert (code, said) == (0, "hpo: made\n")
    return pod


def _ray(head: Pod, worker: Pod, cluster: dict[str, Any]) -> None:
    """Start both as KubeRay does, and wait until they are ready."""
    address = f"--address={head.host.address}:6379"
    for pod, params, place in (
        (head, cluster["headGroupSpec"]["rayStartParams"], ["--head", "--port=6379"]),
        (worker, cluster["workerGroupSpecs"][0]["rayStartParams"], [address, "--num-cpus=2"]),
    ):
        options = " ".join([*place, *(f"--{name}={value}" for name, value in params.items()), f"--node-ip-address={pod.host.address}"])
        pod.process = pod.start(
            ["/bin/bash", "-c", "--", f"ulimit -n 65536; ray start {options} --dashboard-agent-listen-port=52365 --block"]
        )
        pod.until_ready()


KILL = """
import os, pathlib, signal
for found in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    words = found.read_bytes().split(b"\\0")
    if b"--or-resume" in words and b"launch" in words:
        os.kill(int(found.parent.name), signal.SIGKILL)
        print(found.parent.name)
"""


def _kill_driver(head: Pod) -> None:
    """`hpo launch` there, whose processes only the host's own namespace has."""
    done = head.host.run([BIN / "python", "-I", "-c", KILL], {"PATH": "/usr/bin:/bin"}, Path("/"))
    assert done.stdout.split(), done.stderr


def _job(submitter: Pod, verb: str, number: int, *words: str) -> str:
    address = f"http://{submitter.namespace.names['digits-head-svc']}:8265"
    name = ["--submission-id", f"digits-{number}"] if verb == "submit" else [f"digits-{number}"]
    return submitter.run("ray", "job", verb, "--address", address, *name, *words)[1]


def _status(submitter: Pod, number: int) -> str:
    said = _job(submitter, "status", number)
    found = re.search(r"[Jj]ob '[\w-]+'(?: \w+)*?:? (SUCCEEDED|FAILED|STOPPED|RUNNING|PENDING)", said, re.IGNORECASE)
    assert found, said
    return found[1].upper()


def _end_of(submitter: Pod, number: int) -> str:
    """How a job ended; AssertionError with what it printed if it does not."""
    until = time.monotonic() + ENDS_S
    while (status := _status(submitter, number)) in ("RUNNING", "PENDING"):
        assert time.monotonic() < until, _job(submitter, "logs", number)[-3000:]
    return status


def test_a_study_ends_though_its_driver_was_killed(namespace: Namespace) -> None:
    job = find(render(FOLDER / "study"), "RayJob/digits")["spec"]
    _postgres(namespace)
    _objects(namespace)
    mlflow = _mlflow(namespace)
    journal = namespace.folder / "claims" / "digits-home" / "studies" / "digits" / "journal.jsonl"

    cluster = job["rayClusterSpec"]
    head = namespace.pod("digits-head-svc", cluster["headGroupSpec"]["template"]["spec"], "hpo")
    worker = namespace.pod("digits-worker", cluster["workerGroupSpecs"][0]["template"]["spec"], "hpo")
    submitter = namespace.pod("digits-submitter", job["submitterPodTemplate"]["spec"], "hpo")
    _ray(head, worker, cluster)
    _job(submitter, "submit", 1, "--no-wait", "--", *job["entrypoint"].split())
    until = time.monotonic() + ENDS_S
    while not journal.exists() or journal.read_bytes().count(b"\n") < 40:
        assert time.monotonic() < until, _job(submitter, "logs", 1)[-3000:]
        time.sleep(0.05)
    _kill_driver(head)
    assert _end_of(submitter, 1) == "FAILED"
    before = journal.read_bytes()

    for pod in (worker, head):
        pod.end()
    _ray(head, worker, cluster)
    _job(submitter, "submit", 2, "--no-wait", "--", *job["entrypoint"].split())
    assert _end_of(submitter, 2) == "SUCCEEDED", _job(submitter, "logs", 2)[-3000:]
    assert journal.read_bytes().startswith(before), "it went on, and began nothing again"
    code, said = head.run("hpo", "verify", "digits")
    assert code == 0, said

    asked = f"http://{mlflow.host.address}:5000/api/2.0/mlflow/experiments/get-by-name?experiment_name=digits"
    user = namespace.secrets["hpo-mlflow-user"]
    named = ("--header", "Host: mlflow:5000")
    assert submitter.get(asked, *named) == 401
    assert submitter.get(asked, *named, "--user", f"{user['username']}:{user['password']}") == 200
    assert submitter.get(asked, "--header", "Host: elsewhere:5000", "--user", f"{user['username']}:{user['password']}") == 403
    assert [submitter.get(f"http://{head.host.address}:8265{path}") for path in ("/api/jobs/", "/api/version")] == [401, 401]
