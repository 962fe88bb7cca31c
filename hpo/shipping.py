"""The driver's side of the shipper: starts it, starts it again when it dies, and at the end waits for it. Imports no mlflow.

All of that is a thread's work: the driver's own thread neither calls MLflow nor waits for it while the study runs.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from hpo.tracking import GAVE_UP, PATIENCE_S, start_shipper

RESTARTS = 5
PAUSE_S = 0.5  # before the first restart; twice as long before each further one
HEALTHY_S = 600.0  # whoever lived so long did not die of what killed those before
GRACE_S = 1.5
REAPED_S = 5.0  # until a killed process is gone, however busy the machine


class Shipping:
    """The shipper of one study, from now until `close`.

    A shipper that dies without having given up (killed, out of memory) is started again, `RESTARTS` times in a row.
    Left by an exception the context gives it `GRACE_S`; left without one it waits as long as the shipper does.
    """

    def __init__(self, folder: Path, patience_s: float = PATIENCE_S, pause_s: float = PAUSE_S) -> None:
        self.folder, self.patience_s = folder, patience_s
        self.restarts = 0
        self._pause_s = pause_s
        self._lock = threading.Lock()  # between starting a shipper and ending one
        self._process: subprocess.Popen[bytes] | None = None
        self._over, self._ended = threading.Event(), threading.Event()  # of the study, and of the looking after
        self._killed = self._whole = False
        threading.Thread(target=self._look_after, name="shipping", daemon=True).start()

    @property
    def process(self) -> int | None:
        """The number of the shipper that runs now; None if none does."""
        running = self._process
        return running.pid if running is not None and running.returncode is None else None

    def close(self, wait_s: float | None = None) -> bool:
        """The study's loop is over; whether MLflow has everything. No shipper is left, whatever happens here.

        Without `wait_s` it waits until all is shipped or the shipper gives the server up. With it, what is not shipped
        after so many seconds is left to the next `hpo resume` or to `hpo track`. KeyboardInterrupt ends the wait as
        well, and is raised again.
        """
        if self._killed:
            return False
        try:
            self._over.set()
            with self._lock:
                _let_go(self._process)
            self._ended.wait(wait_s)  # not Thread.join: after a Ctrl-C there, Python takes the thread for ended
        finally:
            if not self._ended.is_set():
                self._kill()
        return self._whole

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close(None if kind is None else GRACE_S)

    def _look_after(self) -> None:
        try:
            self._repeat()
        finally:
            self._ended.set()

    def _repeat(self) -> None:
        deaths = 0
        while True:
            started = time.monotonic()
            code = self._run()
            self._whole = code == 0
            if self._killed or code in (0, GAVE_UP):
                return
            deaths = 1 if time.monotonic() - started > HEALTHY_S else deaths + 1
            if deaths > RESTARTS:
                return
            self._over.wait(self._pause_s * 2 ** (deaths - 1))
            self.restarts += 1

    def _run(self) -> int | None:
        """The exit code of a shipper, run to its end; None if none could be started, or none may be."""
        with self._lock:
            if self._killed:
                return None
            try:
                process = self._process = start_shipper(self.folder, self.patience_s)
            except OSError:  # no memory or no file left for it: tried again like one that died
                return None
            if self._over.is_set():
                _let_go(process)
        try:
            return process.wait()
        finally:
            _let_go(process)

    def kill(self) -> None:
        """End the shipper at once, from any thread and a signal handler too; what it did not ship is left to later."""
        self._killed = True  # without the lock, which whoever was interrupted may hold
        process = self._process
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # it leads a group of its own, and it may be stopped

    def _kill(self) -> None:
        with self._lock:  # none is being started
            self.kill()
        self._ended.wait(REAPED_S)


def _let_go(process: subprocess.Popen[bytes] | None) -> None:
    if process is not None and process.stdin is not None:
        process.stdin.close()
