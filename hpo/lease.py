"""Who may write a study's journal: one process at a time, by a lock that goes with it however it dies."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hpo.durations import span
from hpo.journal_format import JournalError

LOOKS, LOOK_S = 5, 0.01
SHARED = {
    "9p", "afs", "beegfs", "ceph", "cifs", "drvfs", "fuse", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2",
    "orangefs", "panfs", "prl_fs", "pvfs2", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "wekafs",
}  # fmt: skip
MOUNTS = Path("/proc/self/mountinfo")


class LeaseHeld(JournalError):
    """Another process writes this study: wait for it, or stop it."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that writes a study: `process` is its number on `host`, `since` when it began."""

    host: str
    process: int
    since: datetime

    @classmethod
    def me(cls) -> Holder:
        """This process, from now on."""
        return cls(socket.gethostname(), os.getpid(), datetime.now(UTC).replace(microsecond=0))

    def __str__(self) -> str:
        age = span(float(max(1, round((datetime.now(UTC) - self.since).total_seconds()))))
        return f"process {self.process} on {self.host} since {self.since:%Y-%m-%d %H:%M:%S} UTC ({age})"


def lock_file(journal: Path) -> Path:
    """The file beside a journal that is locked for writing it."""
    return journal.with_suffix(".lock")


def take(journal: Path) -> int:
    """The descriptor that holds the lease on `journal` until it is closed; LeaseHeld, which says by whom, if it is taken.

    Raises JournalError on a file system that is shared between machines, where a lock does not hold.
    """
    _refuse_shared(journal)
    try:
        file = os.open(lock_file(journal), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise JournalError(f"{lock_file(journal)} cannot be opened: {error.strerror}; only who may write a study runs it") from error
    try:
        if not _locked(file):
            who = holder(journal) or "another process"
            raise LeaseHeld(f"{journal} is being written by {who}: wait for it, or stop it with `hpo stop {journal.parent.name}`")
        _refuse_useless_locks(journal)
        _write(file, Holder.me(), _number(file))
    except (OSError, JournalError) as error:
        os.close(file)
        if isinstance(error, JournalError):
            raise
        raise JournalError(f"{journal} cannot be locked: {error.strerror}; a study is kept on a local disk with room left") from error
    return file


@contextmanager
def holding(journal: Path) -> Iterator[None]:
    """The lease for what does not add to the journal; LeaseHeld if it is taken."""
    file = take(journal)
    try:
        yield
    finally:
        os.close(file)


def sign(file: int, latest: int) -> int:
    """The number of this lease, above `latest` in the journal and above all before: a journal may have lost its end."""
    number = max(latest, _number(file)) + 1
    _write(file, Holder.me(), number)
    return number


def holder(journal: Path) -> Holder | None:
    """Who took the lease last, as it wrote itself; whether it still holds it is what `is_held` says."""
    try:
        found = _written(lock_file(journal).read_bytes())
        return Holder(found["host"], found["process"], datetime.fromisoformat(found["since"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def is_held(journal: Path) -> bool:
    """Whether a process is writing the journal now."""
    try:
        with lock_file(journal).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def file_system(path: Path, mounts: str) -> str:
    """The type of the file system that `path` is on; `mounts` is the text of /proc/self/mountinfo. Empty if unknown."""
    best, found = -1, ""
    for mounted, kind in _mounted(mounts):
        if path.is_relative_to(mounted) and len(mounted.parts) >= best:  # of equal ones the last covers the others
            best, found = len(mounted.parts), kind
    return found


def is_shared(kind: str) -> bool:
    """Whether a file system of this type may be written by several machines, or ignores locks."""
    return kind in SHARED or (kind.startswith("fuse.") and kind != "fuse.fuse-overlayfs")


def _mounted(mounts: str) -> Iterator[tuple[Path, str]]:
    for line in mounts.splitlines():
        fields, _, kind = line.partition(" - ")
        where = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields.split(" ")[4])  # a space in a path is \040 there
        yield Path(where), kind.split(" ")[0]


def _refuse_shared(journal: Path) -> None:
    try:
        kind = file_system(journal.parent.resolve(), MOUNTS.read_text())
    except OSError:
        return  # no Linux: the lock's own trial has to do
    if is_shared(kind):
        raise JournalError(
            f"{journal.parent} is on a {kind} file system, where a lock does not keep other machines out and a write may not "
            "last; set HPO_HOME to a folder on a local disk (checkpoints and MLflow may be elsewhere)"
        )


def _refuse_useless_locks(journal: Path) -> None:
    """Try the lock that was just taken: a second one must be refused."""
    if not is_held(journal):
        raise JournalError(
            f"{journal.parent} is on a file system without locks, so nothing keeps a second writer out; "
            "set HPO_HOME to a folder on a local disk"
        )


def _number(file: int) -> int:
    try:
        return int(_written(os.pread(file, 1000, 0))["lease"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return 0


def _written(content: bytes) -> Any:
    found, _ = json.JSONDecoder().raw_decode(content.decode())  # a longer text's end may follow: who wrote this died before cutting it
    return found


def _write(file: int, holder: Holder, number: int) -> None:
    text = json.dumps(asdict(holder) | {"since": holder.since.isoformat(), "lease": number}).encode()
    os.pwrite(file, text, 0)
    os.ftruncate(file, len(text))


def _locked(file: int) -> bool:
    # Whoever looks whether a study runs holds the lock for an instant: that is no writer, and gone at the next try.
    for _ in range(LOOKS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(LOOK_S)
    return False
