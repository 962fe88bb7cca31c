"""infra/compose.yaml: what docker compose itself makes of it, the rules it keeps, and that they would notice. Starts no container."""

from __future__ import annotations

import copy
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.dockerfile import targets
from tests.manifest_policy import PINNED, SECRET
from tests.manifests import BIN, INFRA

Project = dict[str, Any]
FILE = INFRA / "compose.yaml"
ASKED = {
    "POSTGRES_PASSWORD",
    "MLFLOW_ADMIN_PASSWORD",
    "MLFLOW_SERVER_SECRET_KEY",
    "OBJECTS_ACCESS_KEY",
    "OBJECTS_SECRET_KEY",
    "OBJECTS_RPC_SECRET",
}
CANARY = "canary-of-the-tests"


def _config(environment: dict[str, str], empty: Path) -> subprocess.CompletedProcess[str]:
    """`docker compose config`, with these variables and no .env: all that compose checks before it talks to a docker engine."""
    words = [str(BIN / "docker-compose"), "--file", str(FILE), "--env-file", str(empty), "config", "--format", "json"]
    return subprocess.run(words, env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, check=False)


@cache
def _text() -> str:
    done = _config({name: f"{CANARY}-{name}" for name in ASKED}, Path(os.devnull))
    assert done.returncode == 0, done.stderr
    return done.stdout


def _project() -> Project:
    return json.loads(_text())


def problems(project: Project) -> list[str]:
    """What lets strangers, or a break-in, further than it must."""
    found = [f"{name}: {problem}" for name, service in project["services"].items() for problem in _of_service(service)]
    networks = {name: set(service.get("networks", {})) for name, service in project["services"].items()}
    inner = {name for name, network in project["networks"].items() if network.get("internal")}
    if not networks["postgres"] <= inner:
        found.append("postgres: its network leads outside")
    met = {name for name, theirs in networks.items() if name != "postgres" and theirs & networks["postgres"]}
    if met != {"mlflow"}:
        found.append(f"postgres: reached by {', '.join(sorted(met))}")
    return found


def _of_service(service: dict[str, Any]) -> Iterator[str]:  # noqa: PLR0912  # a list of rules
    if service.get("privileged") or service.get("cap_add") or service.get("cap_drop") != ["ALL"]:
        yield "keeps capabilities"
    if service.get("security_opt") != ["no-new-privileges:true"]:
        yield "may gain privileges"
    if not service.get("read_only"):
        yield "can write its root file system"
    target = service.get("build", {}).get("target")
    if (service.get("user") or targets()[target].user).split(":")[0] in ("", "0", "root"):
        yield "runs as root"
    if not service.get("healthcheck") and not (target and targets()[target].has_healthcheck):
        yield "nobody looks whether it lives"
    if not PINNED.fullmatch(service["image"]):
        yield f"image {service['image']} is not pinned"
    if any(service.get(key) == "host" for key in ("network_mode", "pid", "ipc", "userns_mode")):
        yield "shares a namespace of the host"
    for port in service.get("ports", []):
        if port.get("host_ip") != "127.0.0.1":
            yield f"port {port['target']} is open to other machines"
    for volume in service.get("volumes", []):
        if volume["type"] != "volume":
            yield f"{volume['source']} of the host is mounted"
    for name, value in service.get("environment", {}).items():
        if SECRET.search(name) and not str(value).startswith(CANARY):
            yield f"{name} is written out"
    if not {"cpus", "memory", "pids"} <= set(service.get("deploy", {}).get("resources", {}).get("limits", {})):
        yield "no limits"


def test_docker_compose_takes_it_and_the_rules_hold() -> None:
    assert sorted(_project()["services"]) == ["mlflow", "objects", "postgres"]
    assert problems(_project()) == []


def test_ports_that_are_opened_ask_for_a_password() -> None:
    """MLflow's by serve.sh, which starts nothing without one; Garage's by signatures. PostgreSQL opens none."""
    opened = {
        name: [port["published"] for port in service["ports"]] for name, service in _project()["services"].items() if "ports" in service
    }
    assert opened == {"mlflow": ["5000"], "objects": ["3900"]}


def _broken(service: str, key: str, value: Any) -> Callable[[Project], None]:
    return lambda project: project["services"][service].update({key: value})


@pytest.mark.parametrize(
    ("broken", "noticed"),
    [
        (_broken("postgres", "cap_drop", []), "keeps capabilities"),
        (_broken("mlflow", "cap_add", ["NET_RAW"]), "keeps capabilities"),
        (_broken("objects", "privileged", True), "keeps capabilities"),
        (_broken("mlflow", "security_opt", None), "may gain privileges"),
        (_broken("postgres", "read_only", False), "root file system"),
        (_broken("postgres", "user", "0:0"), "runs as root"),
        (_broken("mlflow", "user", "root"), "runs as root"),
        (_broken("postgres", "healthcheck", None), "whether it lives"),
        (_broken("postgres", "image", "postgres:latest"), "not pinned"),
        (_broken("postgres", "image", "postgres"), "not pinned"),
        (_broken("objects", "network_mode", "host"), "namespace of the host"),
        (_broken("mlflow", "ports", [{"target": 5000, "published": "5000"}]), "open to other machines"),
        (_broken("postgres", "ports", [{"target": 5432, "published": "5432", "host_ip": "0.0.0.0"}]), "open to other machines"),
        (_broken("mlflow", "volumes", [{"type": "bind", "source": "/", "target": "/host"}]), "of the host is mounted"),
        (_broken("postgres", "environment", {"POSTGRES_PASSWORD": "postgres"}), "written out"),
        (_broken("mlflow", "environment", {"AWS_SECRET_ACCESS_KEY": "minioadmin"}), "written out"),
        (_broken("objects", "deploy", {}), "no limits"),
        (_broken("postgres", "networks", {"outside": None}), "leads outside"),
        (_broken("objects", "networks", {"database": None}), "reached by mlflow, objects"),
    ],
)
def test_a_broken_service_is_noticed(broken: Callable[[Project], None], noticed: str) -> None:
    project = copy.deepcopy(_project())
    broken(project)
    assert any(noticed in problem for problem in problems(project)), problems(project)


@pytest.mark.parametrize("name", sorted(ASKED))
@pytest.mark.parametrize("value", [None, ""])
def test_without_one_of_its_secrets_it_does_not_start(name: str, value: str | None) -> None:
    environment = dict.fromkeys(ASKED - {name}, "x") | ({} if value is None else {name: value})
    done = _config(environment, Path(os.devnull))
    assert done.returncode != 0
    assert name in done.stderr
    assert "new_secrets.py" in done.stderr, "which says where to get it"


def test_every_secret_comes_from_the_environment_and_goes_where_it_is_needed() -> None:
    given = {
        service: {name: value.removeprefix(f"{CANARY}-") for name, value in found["environment"].items() if str(value).startswith(CANARY)}
        for service, found in _project()["services"].items()
    }
    assert given == {
        "postgres": {"POSTGRES_PASSWORD": "POSTGRES_PASSWORD"},
        "objects": {
            "GARAGE_DEFAULT_ACCESS_KEY": "OBJECTS_ACCESS_KEY",
            "GARAGE_DEFAULT_SECRET_KEY": "OBJECTS_SECRET_KEY",
            "GARAGE_RPC_SECRET": "OBJECTS_RPC_SECRET",
        },
        "mlflow": {
            "PGPASSWORD": "POSTGRES_PASSWORD",
            "MLFLOW_AUTH_ADMIN_PASSWORD": "MLFLOW_ADMIN_PASSWORD",
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "MLFLOW_SERVER_SECRET_KEY",
            "AWS_ACCESS_KEY_ID": "OBJECTS_ACCESS_KEY",
            "AWS_SECRET_ACCESS_KEY": "OBJECTS_SECRET_KEY",
        },
    }


def test_what_mlflow_is_told_is_what_its_script_asks_for() -> None:
    """Here and in Kubernetes: every variable that serve.sh needs, and none that it does not know."""
    script = (INFRA / "mlflow" / "serve.sh").read_text()
    needed = set(re.findall(r"^need (\w+)", script, re.MULTILINE)) | {
        "PGPASSWORD",
        "MLFLOW_ARTIFACTS_DESTINATION",
        "MLFLOW_S3_ENDPOINT_URL",
    }
    told = set(_project()["services"]["mlflow"]["environment"])
    (pod,) = [
        document["spec"]["template"]["spec"]["containers"][0]
        for document in yaml.safe_load_all((INFRA / "kubernetes" / "mlflow.yaml").read_text())
        if document["kind"] == "Deployment"
    ]
    assert told == {entry["name"] for entry in pod["env"]}
    assert needed <= told
    assert told - {"AWS_DEFAULT_REGION"} <= set(re.findall(r"\b[A-Z][A-Z0-9_]{3,}\b", script))


def test_the_example_names_all_and_gives_none() -> None:
    lines = [line for line in (INFRA / ".env.example").read_text().splitlines() if line and not line.startswith("#")]
    assert sorted(lines) == sorted(f"{name}=" for name in ASKED)
    variables = set(re.findall(r"\$\{(\w+)", FILE.read_text()))
    assert variables == ASKED | set(re.findall(r"^#(\w+)=", (INFRA / ".env.example").read_text(), re.MULTILINE))


def test_no_default_is_given_for_a_secret() -> None:
    defaults = dict(re.findall(r"\$\{(\w+):?-([^}]*)\}", FILE.read_text()))
    assert defaults == {
        "OBJECTS_BIND": "127.0.0.1",
        "OBJECTS_PORT": "3900",
        "MLFLOW_BIND": "127.0.0.1",
        "MLFLOW_PORT": "5000",
        "MLFLOW_NAME": "localhost",
    }
    assert set(re.findall(r"\$\{(\w+):\?[^}]+\}", FILE.read_text())) == ASKED


def test_new_secrets_writes_what_compose_asks_for_once_and_for_nobody_else(tmp_path: Path) -> None:
    script = tmp_path / "new_secrets.py"
    script.write_text((INFRA / "new_secrets.py").read_text())
    words = [sys.executable, "-I", str(script), "compose"]
    assert subprocess.run(words, check=False).returncode == 0
    written = tmp_path / ".env"
    first = written.read_text()
    assert stat.S_IMODE(written.stat().st_mode) == 0o600
    assert subprocess.run(words, check=False, stderr=subprocess.PIPE).returncode == 73
    assert written.read_text() == first, "what runs depends on it"
    assert _config({}, written).returncode == 0
    assert dict(line.split("=") for line in first.splitlines()).keys() == ASKED


def test_git_and_docker_leave_the_secrets_out() -> None:
    assert "infra/.env" in (INFRA.parent / ".gitignore").read_text().splitlines()
    ignored = (INFRA / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert not any(".env" in line for line in ignored if line.startswith("!"))


def test_the_page_names_files_that_are_there() -> None:
    text = (INFRA / "compose.md").read_text()
    named = set(re.findall(r"infra/[\w./-]*\w", text)) - {"infra/.env"}
    assert {"infra/compose.yaml", "infra/new_secrets.py"} <= named
    assert [name for name in named if not (INFRA.parent / name).exists()] == []
