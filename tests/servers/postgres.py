"""A real PostgreSQL of our own: a private folder, a free port on loopback, passwords by SCRAM; killed, stopped and started by pid."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from tests.chaos.mlflow_scene import free_port, until

INSTALL = "install PostgreSQL 15 or later (Debian: apt-get install postgresql) and `pip install 'hpo[postgres]'`"
OWNER, ROLE = "postgres", "mlflow"  # the superuser, and who the studies connect as
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # what a killed server has written is safe with the kernel
    "max_connections": "60",
    "shared_buffers": "16MB",
    "dynamic_shared_memory_type": "mmap",  # in its own folder: nothing of it stays behind in /dev/shm
}


def programs() -> Path | None:
    """The folder of PostgreSQL's own programs, the newest there is; None where there are none."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda file: int(file.parts[-3]))
    found = debian[-1] if debian else shutil.which("postgres")
    return Path(found).parent if found else None


def why_not() -> str:
    """Why no PostgreSQL can be started here, and what to do; empty if one can."""
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return f"no PostgreSQL driver: {INSTALL}"
    if programs() is None:
        return f"no PostgreSQL: {INSTALL}"
    return "" if os.geteuid() or _somebody() else "PostgreSQL will not run as root, and there is no user `postgres` or `nobody`"


def _somebody() -> pwd.struct_passwd | None:
    """Who the server runs as where we are root, which it refuses to be."""
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    return None


class Postgres:
    """One server with a role `mlflow` that owns its databases. `log` is what the server says."""

    def __init__(self) -> None:
        self.port, self.passwords = free_port(), {OWNER: secrets.token_urlsafe(12), ROLE: secrets.token_urlsafe(12)}
        self.folder = Path(tempfile.mkdtemp(prefix="hpo-postgres-"))
        self.log = self.folder / "log"
        self._bin = programs()
        self._process: subprocess.Popen[bytes] | None = None
        somebody = _somebody() if os.geteuid() == 0 else None
        self._as: dict[str, Any] = {} if somebody is None else {"user": somebody.pw_uid, "group": somebody.pw_gid, "extra_groups": []}
        if somebody is not None:
            os.chown(self.folder, somebody.pw_uid, somebody.pw_gid)
        self._make()

    def _make(self) -> None:
        password = self.folder / "password"
        password.write_text(self.passwords[OWNER])
        words = ["--auth=scram-sha-256", f"--pwfile={password}", f"--username={OWNER}", "--encoding=UTF8", "--no-locale", "--no-sync"]
        subprocess.run([f"{self._bin}/initdb", *words, str(self._data)], check=True, capture_output=True, cwd="/", **self._as)
        password.unlink()
        self.start()
        self.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{self.passwords[ROLE]}'")

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def start(self) -> None:
        """Returns when it takes connections (a standby: when it can be read)."""
        until(self._comes_up, f"PostgreSQL to answer; see {self.log}")

    def _comes_up(self) -> bool:
        """Start it if it does not run: after a kill it refuses to until its last child is gone. Whether it answers."""
        if self._process is None or self._process.poll() is not None:
            settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
            with self.log.open("ab") as log:
                command = [f"{self._bin}/postgres", "-D", str(self._data), "-p", str(self.port), *settings]
                self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", start_new_session=True, **self._as)
        return self.answers()

    def answers(self) -> bool:
        """Whether it takes connections now."""
        import psycopg

        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL of the postmaster; its children notice and go."""
        self._end(signal.SIGKILL)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it cleanly and at once ("fast"), or by SIGQUIT ("immediate": it has to recover when it is started)."""
        self._end(how)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def demote(self) -> None:
        """Start it, stopped cleanly, as a standby: in recovery, to be read only."""
        (self._data / "standby.signal").touch()
        self.start()

    def promote(self) -> None:
        """End the recovery of a standby."""
        self.execute("SELECT pg_promote()")

    def execute(self, statement: str, *values: object, database: str = OWNER) -> Sequence[tuple[Any, ...]]:
        """Run a statement as the superuser; its rows."""
        import psycopg

        with psycopg.connect(self.uri(database, user=OWNER), autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def create(self, database: str, template: str = "template1") -> str:
        """Make a database, empty or like another; its address."""
        self.execute(f"CREATE DATABASE {database} OWNER {ROLE} TEMPLATE {template}")
        return self.uri(database)

    def uri(self, database: str, user: str = ROLE, password: str | None = None) -> str:
        """The address of a database, with the password unless another is given; with an empty one without."""
        word = self.passwords[user] if password is None else password
        return f"postgresql://{user}{':' * bool(word)}{quote(word, safe='')}@127.0.0.1:{self.port}/{database}"

    def refuse(self, *, more: bool) -> None:
        """Let nobody in any more as `mlflow`, and throw out who is in; or let them in again."""
        self.execute(f"ALTER ROLE {ROLE} CONNECTION LIMIT {0 if more else -1}")
        if more:
            self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", ROLE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)
