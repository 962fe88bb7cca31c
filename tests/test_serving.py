"""What of MLflow is served, to whom: `hpo ui` on loopback, the applications for `mlflow server`, the script of infra/mlflow."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hpo import tracking
from hpo.cli.studies import ui
from hpo.mlflow_app import SAID, closed
from tests.chaos.mlflow_scene import free_port
from tests.conftest import ROOT

SERVE = ROOT / "infra" / "mlflow" / "serve.sh"


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "10.0.0.1", "example.org", "127.0.0.1.example.org", "", "localhost.", "*"]
)
def test_the_ui_is_for_this_machine_alone(host: str) -> None:
    done = CliRunner().invoke(ui, ["--host", host])
    assert done.exit_code == 2
    for words in ("asks nobody for a password", "ssh -L 5000:127.0.0.1:5000", "infra/mlflow/README.md"):
        assert words in done.output


@pytest.mark.parametrize(
    ("host", "names"),
    [("127.0.0.1", "127.0.0.1:5001,localhost:5001"), ("::1", "[::1]:5001,localhost:5001"), ("127.0.0.2", "127.0.0.2:5001,localhost:5001")],
)
def test_the_ui_answers_to_its_own_names(host: str, names: str, tmp_path: Path) -> None:
    options = dict(itertools.pairwise(tracking.ui_command(tmp_path, host, 5001)))
    assert (options["--host"], options["--allowed-hosts"], options["--app-name"]) == (host, names, "hpo")


def test_the_ui_is_served_where_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, command: served.append(command))
    monkeypatch.setattr(tracking, "make_database", lambda _: None)
    monkeypatch.setenv("HPO_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)  # and back: the server's folder is the root
    port = str(free_port())
    done = CliRunner().invoke(ui, ["--host", "localhost", "--port", port, "--json"], catch_exceptions=False)
    assert json.loads(done.output) == {"url": f"http://localhost:{port}"}
    options = dict(itertools.pairwise(served[0]))
    assert (options["--host"], options["--port"]) == ("localhost", port)


def test_the_applications_are_installed() -> None:
    program = (
        "from importlib.metadata import entry_points as e; print(*sorted(f'{a.name} {a.value}' for a in e(group='mlflow.app')), sep='\\n')"
    )
    found = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True, cwd="/").stdout.splitlines()
    assert {f"{tracking.APPLICATION} hpo.mlflow_app:alone", "hpo-basic-auth hpo.mlflow_app:guarded"} <= set(found)


@pytest.mark.parametrize(
    ("path", "open_"),
    [
        ("/ajax-api/3.0/mlflow/assistant/config", False),
        ("/ajax-api/3.0/mlflow/assistant", False),
        ("/prefix/ajax-api/3.0/mlflow/assistant/message", False),
        ("/ajax-api/3.0/jobs/", False),
        ("/gateway/mine/mlflow/invocations", False),
        ("/ajax-api/2.0/mlflow/gateway-proxy", False),
        ("/", True),
        ("/api/2.0/mlflow/runs/search", True),
        ("/api/2.0/mlflow-artifacts/artifacts/1/assistant", True),
        ("/graphql", True),
    ],
)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_nothing_that_runs_programs_is_served(path: str, open_: bool, kind: str) -> None:
    asked, sent = [], []

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        asked.append(scope["path"])

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(closed(app)({"type": kind, "path": path}, None, send))  # type: ignore[arg-type]
    assert asked == ([path] if open_ else [])
    first = {} if open_ else {"http": {"status": 404}, "websocket": {"type": "websocket.close"}}[kind]
    assert all(sent[0][name] == value for name, value in first.items())
    assert kind == "websocket" or open_ or sent[1]["body"] == SAID


def test_a_server_that_starts_and_stops_is_told() -> None:
    asked = []

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        asked.append(scope["type"])

    asyncio.run(closed(app)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert asked == ["lifespan"]


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A folder with a `mlflow` that prints its arguments and environment in the place of the real one."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "mlflow"
    program.write_text('#!/bin/sh\necho "arguments: $*"; echo "folder: $(pwd)"; env\n')
    program.chmod(0o755)
    python = tmp_path / "bin" / "python"
    python.symlink_to(shutil.which("true") or "/bin/true")
    return tmp_path


GOOD = {
    "PGHOST": "db",
    "PGUSER": "mlflow",
    "PGDATABASE": "mlflow",
    "PGPASSWORD": "planted-pg",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "planted-admin",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "planted-" + "k" * 32,
    "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow.example:5000",
}


def serve(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    env = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin", **environment}
    return subprocess.run([str(SERVE)], env=env, capture_output=True, text=True, timeout=30, check=False)


def test_the_server_is_started_closed(stand_in: Path) -> None:
    done = serve(stand_in, GOOD | {"MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true", "MLFLOW_ENABLE_REMOTE_ASSISTANT": "true"})
    assert done.returncode == 0, done.stderr
    first, folder, *lines = done.stdout.splitlines()
    assert first == "arguments: server --app-name hpo-basic-auth"  # nothing else: no password is in a process list
    assert folder == "folder: /"
    found = dict(line.partition("=")[::2] for line in lines)
    wanted = {
        "MLFLOW_HOST": "127.0.0.1",
        "MLFLOW_PORT": "5000",
        "MLFLOW_WORKERS": "1",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
        "MLFLOW_BACKEND_STORE_URI": "postgresql+psycopg://",
        "MLFLOW_AUTH_CONFIG_PATH": str(SERVE.with_name("basic_auth.ini")),
        "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow.example:5000",
    }
    assert {name: found.get(name) for name in wanted} == wanted
    assert not {"MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE", "MLFLOW_ENABLE_REMOTE_ASSISTANT"} & found.keys()


def test_secrets_come_from_files_as_well(stand_in: Path) -> None:
    environment = dict(GOOD)
    secret = ("PGPASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD", "MLFLOW_FLASK_SERVER_SECRET_KEY")
    odd = {name: f"{GOOD[name]} $(touch {stand_in}/ran) `id` '\";%" for name in secret}
    for name, word in odd.items():
        file = stand_in / name
        file.write_text(f"{word}\n")
        del environment[name]
        environment[f"{name}_FILE"] = str(file)
    done = serve(stand_in, environment)
    assert done.returncode == 0, done.stderr
    for name, word in odd.items():
        assert f"\n{name}={word}\n" in done.stdout
    assert "_FILE=" not in done.stdout
    assert not (stand_in / "ran").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"PGHOST": ""}, "PGHOST is not set: the host of PostgreSQL"),
        ({"PGDATABASE": ""}, "PGDATABASE is not set"),
        ({"PGUSER": ""}, "PGUSER is not set"),
        ({"PGPASSWORD": ""}, "PGPASSWORD is not set"),
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": ""}, "MLFLOW_AUTH_ADMIN_PASSWORD is not set"),
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": "short"}, "shorter than 12"),
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": "password1234"}, "everybody knows"),
        ({"MLFLOW_AUTH_ADMIN_PASSWORD": "please-change-me"}, "everybody knows"),
        ({"MLFLOW_AUTH_ADMIN_USERNAME": "planted-admin"}, "is the administrator's name"),
        ({"MLFLOW_FLASK_SERVER_SECRET_KEY": ""}, "MLFLOW_FLASK_SERVER_SECRET_KEY is not set"),
        ({"MLFLOW_FLASK_SERVER_SECRET_KEY": "planted-short"}, "shorter than 32"),
        ({"MLFLOW_SERVER_ALLOWED_HOSTS": ""}, "MLFLOW_SERVER_ALLOWED_HOSTS is not set"),
        ({"MLFLOW_SERVER_ALLOWED_HOSTS": "a:1,*"}, "MLFLOW_SERVER_ALLOWED_HOSTS holds a *"),
        ({"MLFLOW_SERVER_ALLOWED_HOSTS": "*.example"}, "MLFLOW_SERVER_ALLOWED_HOSTS holds a *"),
        ({"MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "*"}, "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS holds a *"),
        ({"MLFLOW_ARTIFACTS_DESTINATION": "artifacts"}, "absolute folder or s3://"),
        ({"MLFLOW_AUTH_CONFIG_PATH": "/nowhere.ini"}, "/nowhere.ini cannot be read"),
        ({"MLFLOW_PORT": "tcp://10.0.0.1:5000"}, "MLFLOW_PORT is tcp://10.0.0.1:5000; a number"),
        ({"MLFLOW_TLS_CERT": "/etc/hostname"}, "both needed"),
        ({"PGPASSWORD_FILE": "/etc/hostname"}, "PGPASSWORD and PGPASSWORD_FILE are both set"),
        ({"PGPASSWORD": "", "PGPASSWORD_FILE": "/nowhere"}, "PGPASSWORD_FILE: /nowhere cannot be read"),
        ({"PGPASSWORD": "", "PGPASSWORD_FILE": "/dev/null"}, "PGPASSWORD_FILE: /dev/null is empty"),
    ],
)
def test_the_server_is_not_started_unsafe(change: dict[str, str], said: str, stand_in: Path) -> None:
    done = serve(stand_in, GOOD | change)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("mlflow: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "planted" not in done.stderr


def test_a_password_file_of_libpq_will_do(stand_in: Path) -> None:
    assert serve(stand_in, GOOD | {"PGPASSWORD": "", "PGPASSFILE": "/etc/hostname"}).returncode == 0


def test_the_application_must_be_there(stand_in: Path) -> None:
    python = stand_in / "bin" / "python"
    python.unlink()
    python.symlink_to(shutil.which("false") or "/bin/false")
    done = serve(stand_in, GOOD)
    assert done.returncode == 78
    assert "pip install" in done.stderr


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs shellcheck (Debian: apt-get install shellcheck)")
def test_the_script_is_clean() -> None:
    done = subprocess.run(["shellcheck", "--shell=sh", str(SERVE)], capture_output=True, text=True, check=False)
    assert done.stdout == ""
