"""Says in an object store that a trainer hangs, and then ends it: a process beside the worker, which cannot act any more by then.

A worker that hangs in C runs no Python, and its node may be none of the driver's: so what the driver has to find is written by a
process of its own, before the worker's death tells the driver to look.
"""

from __future__ import annotations

import faulthandler
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hpo import objects
from hpo.durable import make_folder
from hpo.engine.ray_processes import die_with_parent
from hpo.engine.watchdog import ProcessWatchdog
from hpo.objects import ObjectPath, StorageError

LATER_S = 0.2  # than the worker, which writes where it is
PATIENCE_S = 5.0  # with that
READY = b"1"
_NOTHING = b"{}\n"


class ReportingWatchdog(ProcessWatchdog):
    """As ProcessWatchdog, and what it wrote to `log` is at `stored` before the process ends."""

    _beside: subprocess.Popen[bytes] | None = None  # one for all trials of this process

    def __init__(self, timeout_s: float, log: Path, stored: ObjectPath) -> None:
        super().__init__(timeout_s, log)
        self._order = json.dumps({"timeout_s": timeout_s, "log": str(log), "stored": stored.uri}).encode() + b"\n"

    @contextmanager
    def watching(self) -> Iterator[None]:
        if self._log is None:
            make_folder(self._path.parent)
            self._log = self._path.open("ab")
        is_watched = self._say(self._order)
        faulthandler.dump_traceback_later(self._timeout_s, exit=not is_watched, file=self._log)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()
            self._say(_NOTHING)

    @classmethod
    def _say(cls, order: bytes) -> bool:
        """Whether the process beside hears that; where it is gone the worker ends by itself, unreported."""
        if cls._beside is None:
            command = [sys.executable, "-P", "-m", "hpo.engine.hang_report"]
            cls._beside = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            assert cls._beside.stdout is not None
            if cls._beside.stdout.read(1) != READY:  # it never came to read anything
                cls._beside = None
                return False
        try:
            assert cls._beside.stdin is not None
            cls._beside.stdin.write(order)
            cls._beside.stdin.flush()
        except OSError:
            cls._beside = None
            return False
        return True


def main() -> None:
    """Follow the worker's orders on stdin, each a line: whom to watch for how long, or nobody."""
    die_with_parent()
    os.write(1, READY)
    worker, waiting = os.getppid(), b""
    order: dict[str, Any] = {}
    until = math.inf
    while True:
        patience = None if until == math.inf else max(0.0, until - time.monotonic())
        if not select.select([0], [], [], patience)[0]:
            _report(order)
            os.kill(worker, signal.SIGKILL)
            return
        content = os.read(0, 65536)
        if not content:
            return
        *lines, waiting = (waiting + content).split(b"\n")
        if lines:
            order = json.loads(lines[-1])
            until = time.monotonic() + order["timeout_s"] + LATER_S if order else math.inf


def _report(order: dict[str, Any]) -> None:
    log, until = Path(order["log"]), time.monotonic() + PATIENCE_S
    content = b""
    while not content and time.monotonic() < until:
        with suppress(OSError):  # the trainer may have removed it
            content = log.read_bytes()
        time.sleep(0.05)
    with suppress(StorageError):  # then the driver hears of a worker that died
        objects.write(ObjectPath(order["stored"]), content or b"where it hung could not be written\n")


if __name__ == "__main__":
    main()
