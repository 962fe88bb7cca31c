"""Whole commands, timed and watched, and a running `mlflow server` for those that record to one."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory import Peak

PATIENCE_S = 120.0
QUIET = 0.1


class CommandFailed(Exception):
    """A side of the comparison did not do what it was asked to: its row is left out."""


@dataclass(frozen=True)
class Run:
    """The wall seconds of a command, and the most memory of all its processes together."""

    wall_s: float
    peak_mb: float


def timed(command: Sequence[str], environment: Mapping[str, str | None], log: Path) -> Run:
    """Run it to its end in a session of its own, where its `log` is; what it prints goes there. A variable that is None is unset.

    Raises CommandFailed with the end of the log.
    """
    variables = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    with log.open("wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=log.parent, stdout=output, stderr=subprocess.STDOUT, env=variables, start_new_session=True)
        try:
            with Peak(process.pid) as peak:
                status = process.wait()
                wall = time.perf_counter() - began
        finally:
            _end(process)
    if status:
        tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-12:])
        raise CommandFailed(f"`{' '.join(map(str, command[:4]))} ...` ended with {status}:\n  {tail}")
    return Run(wall, peak.megabytes)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command that still runs, and then what is left of its process group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def mlflow_server(program: str) -> Iterator[str]:
    """The address of a fresh `mlflow server` of default settings, an empty SQLite store among them, until the block ends.

    It runs, all of it: its workers have started, which takes two cores some five seconds after the first of them answers.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, (Path(folder) / "log").open("wb") as log:
        port = _free_port()
        command = [program, "server", "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            _await(f"http://127.0.0.1:{port}/health", process)
            _settle(process)
            yield f"http://127.0.0.1:{port}"
        finally:
            _end(process)


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    """Until it answers; CommandFailed if it ends or takes too long."""
    over = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < over:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            if answer.status == 200:
                return
        time.sleep(0.2)
    raise CommandFailed(f"mlflow server did not answer at {url} within {PATIENCE_S:.0f} s")


def _settle(process: subprocess.Popen[bytes]) -> None:
    """Until the session of a command has taken less than `QUIET` of a core for a second."""
    over = time.monotonic() + PATIENCE_S
    took = -math.inf
    while (now := _processor_s(process.pid)) - took > QUIET and time.monotonic() < over:
        took = now
        time.sleep(1)
    if time.monotonic() >= over:
        raise CommandFailed(f"mlflow server was not at rest within {PATIENCE_S:.0f} s")


def _processor_s(session: int) -> float:
    """What the living processes of a session have taken of the processors."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # gone meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12]) if int(fields[3]) == session else 0
    return total / os.sysconf("SC_CLK_TCK")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
