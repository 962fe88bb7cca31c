"""A real MLflow server over a real PostgreSQL, as `infra/mlflow/serve.sh` starts it: with users, and nobody else let in."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests

from tests.chaos.mlflow_scene import Server, until
from tests.conftest import ROOT
from tests.servers.postgres import ROLE, Postgres

SCRIPT = ROOT / "infra" / "mlflow" / "serve.sh"
ADMIN = "admin"


class GuardedServer(Server):
    """Started by the script, with secrets in files; `password` is the administrator's. What it prints is in `server.log`."""

    def __init__(self, folder: Path, postgres: Postgres, database: str) -> None:
        super().__init__(folder)
        self.postgres, self.database = postgres, database
        self.password, self.key = secrets.token_urlsafe(15), secrets.token_hex(32)

    @property
    def uri(self) -> str:
        """Without a user."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    def start(self) -> None:
        """Returns when it answers."""
        self.begin_again()
        until(self._is_up, f"the server to answer; see {self.log}")

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-2000:]
        return self.is_healthy()

    def begin_again(self) -> None:
        """Does not wait until it answers."""
        self._process = self.begin(**self.environment())

    def begin(self, **environment: str) -> subprocess.Popen[bytes]:
        """The script, started with this environment and nothing of the tests' own."""
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        env = {"PATH": path, "HOME": str(self.folder), "COVERAGE": "", **environment}
        with self.log.open("ab") as log:
            return subprocess.Popen([str(SCRIPT)], stdout=log, stderr=log, env=env, start_new_session=True)

    def environment(self) -> dict[str, str]:
        """All that the script needs; secrets are in files."""
        self.folder.mkdir(parents=True, exist_ok=True)
        found = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.postgres.port),
            "PGUSER": ROLE,
            "PGDATABASE": self.database,
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{self.port}",
            "MLFLOW_PORT": str(self.port),
            "MLFLOW_ARTIFACTS_DESTINATION": str(self.folder / "artifacts"),
        }
        words = {
            "PGPASSWORD": self.postgres.passwords[ROLE],
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.password,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.key,
        }
        for name, word in words.items():
            file = self.folder / name
            file.touch(mode=0o600)
            file.write_text(f"{word}\n")
            found[f"{name}_FILE"] = str(file)
        return found

    @property
    def secrets(self) -> list[str]:
        """What nobody may see."""
        return [self.password, self.key, *self.postgres.passwords.values()]

    def inside(self) -> dict[str, str]:
        """The environment of a process that makes the same application."""
        plain = {
            name.removesuffix("_FILE"): Path(file).read_text().strip()
            for name, file in self.environment().items()
            if name.endswith("_FILE")
        }
        config = str(SCRIPT.with_name("basic_auth.ini"))
        return {
            **os.environ,
            **self.environment(),
            **plain,
            "PYTHONPATH": str(ROOT),
            "MLFLOW_AUTH_CONFIG_PATH": config,
            "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN,
        }

    def client(self, user: str = ADMIN, password: str | None = None) -> dict[str, str]:
        """The environment of a client."""
        known = {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": self.password if password is None else password}
        return {"MLFLOW_TRACKING_URI": self.uri, **known}

    def ask(self, method: str, path: str, user: str | None = ADMIN, password: str | None = None, **more: Any) -> requests.Response:
        """A request, by somebody (None: by nobody)."""
        known = None if user is None else (user, self.password if password is None else password)
        return requests.request(method, f"{self.uri}{path}", auth=known, timeout=60, allow_redirects=False, **more)

    def add_user(self, name: str) -> str:
        """Make a user; his password."""
        password = secrets.token_urlsafe(15)
        answer = self.ask("POST", "/api/2.0/mlflow/users/create", json={"username": name, "password": password})
        assert answer.status_code == 200, answer.text
        return password
