"""A trial's own folder on this node, and its logs, which are handed over to the object store where people find them."""

from __future__ import annotations

import os
import socket
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hpo import objects
from hpo.durable import make_folder
from hpo.engine.assignment import Assignment, Failure
from hpo.objects import ObjectPath, StorageError
from hpo.trial_files import hang_log

MOST_BYTES = 1024 * 1024  # of a log that is handed over: its end


class TrialLogs:
    """Where a trial's files are while it is trained here: in its folder, or, where that is in an object store, on this node's disk.

    There its logs have the attempt in their names, as checkpoints have, and each is copied to the store from time to time, the last time
    at the attempt's end. What else the trainer leaves in the folder stays on this node.
    """

    def __init__(self, assignment: Assignment) -> None:
        a = assignment
        self._stored = a.folder if isinstance(a.folder, ObjectPath) else None
        self.folder = a.folder.absolute() if isinstance(a.folder, Path) else _on_this_node(a.folder)
        own = f"-{a.lease}.{a.attempt}" if self._stored else ""
        self.output = self.folder / f"output{own}.log"
        self.error = self.folder / f"error{own}.log"
        self.hang = hang_log(self.folder, a.lease, a.attempt)
        self._handed_over: dict[Path, int] = {}  # how many bytes of which log

    def hand_over(self) -> None:
        """Copy what is new in the logs. A store that refuses leaves them here; training goes on, and checkpoints will say so."""
        if self._stored is None:
            return
        for log in (self.output, self.error):
            with suppress(StorageError, FileNotFoundError):
                size = log.stat().st_size
                if size and size != self._handed_over.get(log):
                    objects.write(self._stored / log.name, _end(log, size))
                    self._handed_over[log] = size

    def close(self) -> None:
        """The attempt is over here: hand over what is new, and remove what has arrived whole."""
        if self._stored is None:
            return
        self.hand_over()
        for log, size in self._handed_over.items():
            with suppress(OSError):
                if size == log.stat().st_size <= MOST_BYTES:
                    log.unlink()
        with suppress(OSError):  # what a trainer put there stays, and other trials' folders
            for folder in (self.folder, *list(self.folder.parents)[:2]):
                folder.rmdir()

    def public(self, failure: Failure) -> Failure:
        """The failure in words that hold on every node: its log is where it was handed over to."""
        if self._stored is None:
            return failure
        return replace(failure, reason=failure.reason.replace(str(self.error), str(self._stored / self.error.name)))


def _end(log: Path, size: int) -> bytes:
    """A log as it is handed over: if it is long, its end, and where the rest is."""
    with log.open("rb") as file:
        left_out = max(0, size - MOST_BYTES)
        file.seek(left_out)
        content = file.read(MOST_BYTES)
    head = f"[{left_out:,} bytes before this are in {log} on {socket.gethostname()}]\n" if left_out else ""
    return head.encode() + content


def _on_this_node(stored: ObjectPath) -> Path:
    """A folder for what lies at `stored`, below one that is this user's alone."""
    mine = Path(tempfile.gettempdir()) / f"hpo-{os.getuid()}"
    with suppress(FileExistsError):
        mine.mkdir(mode=0o700)
    found = mine.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077 or mine.is_symlink():
        raise PermissionError(f"{mine} is not this user's alone, and trials' files would be written there; remove it, or set TMPDIR")
    folder = mine.joinpath(*stored.uri.split("/")[-3:])
    while not folder.is_dir():
        with suppress(FileNotFoundError):  # another trial that ended removed a folder that was empty
            make_folder(folder)
    return folder
