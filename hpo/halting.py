"""Stops a study that another process runs: finds who, asks it to end, waits until it let go."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

from hpo import lease
from hpo.durations import span
from hpo.home import HomeError
from hpo.journal import FILE_NAME
from hpo.lease import Holder
from hpo.results import StoredStudy

LOOK_S = 0.05
SETTLED_S = 1.0  # by then whoever took a lease has written down who it is


class StopError(HomeError):
    """This study cannot be stopped from here; the text says what can be done."""


def stop(folder: Path, wait_s: float) -> Holder:
    """Have the process that runs the study in `folder` end as by Ctrl-C, and say which it was; `hpo resume` goes on with it.

    Raises StopError where none runs it, where that is on another host or another user's, and where it still runs after
    `wait_s` seconds.
    """
    journal = folder / FILE_NAME
    who = _holder(journal)
    try:
        os.kill(who.process, signal.SIGTERM)
    except PermissionError:
        raise StopError(f"study {folder.name} is run by another user's {who}: only that user can stop it") from None
    except ProcessLookupError:
        pass  # it ended this moment
    until = time.monotonic() + wait_s
    while lease.is_held(journal):
        if time.monotonic() >= until:
            raise StopError(
                f"study {folder.name} still runs {span(float(wait_s))} after it was asked to end: {who}; "
                f"`kill -9 {who.process}` ends it at once, and nothing that was journaled is lost"
            )
        time.sleep(LOOK_S)
    return who


def _holder(journal: Path) -> Holder:
    """Who holds the lease, on this host and for certain."""
    until = time.monotonic() + SETTLED_S
    while lease.is_held(journal):
        who = lease.holder(journal)
        if who is not None and who.host != socket.gethostname():
            name = journal.parent.name
            raise StopError(f"study {name} is run by {who}, which cannot be reached from here: run `hpo stop {name}` there")
        # The number in the lock file cannot have gone to another process while its writer holds the lock. But who took the
        # lock this moment has not written yet, and then it is the number of the one before, which may be anybody's by now.
        if who is not None and _has_open(who.process, lease.lock_file(journal)):
            return who
        if time.monotonic() >= until:
            raise StopError(f"{lease.lock_file(journal)} is locked, but not by {who or 'one that says who it is'}: `lsof` tells by whom")
        time.sleep(LOOK_S)
    study = StoredStudy.open(journal.parent)
    way = "" if study.state in ("budget", "time") else f"; go on with it by `hpo resume {study.name}`"
    raise StopError(f"study {study.name} is not running: it {study.standing}{way}")


def _has_open(process: int, file: Path) -> bool:
    """Whether the process has the file open; taken for granted where the process is another user's, which forbids to look."""
    wanted = file.stat()
    try:
        descriptors = list(Path(f"/proc/{process}/fd").iterdir())
    except PermissionError:
        return True
    except OSError:
        return False
    for descriptor in descriptors:
        with suppress(OSError):
            if os.path.samestat(descriptor.stat(), wanted):
                return True
    return False
