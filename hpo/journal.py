"""The study's memory: one checksummed line an event, fsynced before the event takes effect, by one writer at a time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from hpo import lease
from hpo.events import Event
from hpo.journal_format import Follower, JournalDamaged, JournalError, Record, encode

FILE_NAME = "journal.jsonl"


class JournalExists(JournalError):
    """There is a journal already: continue that study, or choose another name."""


class Journal:
    """A journal open for appending, under a lease of its own.

    `records` is what it held when it was opened; `healed` counts the bytes of a torn last write that were dropped then.
    """

    def __init__(self, path: Path, *, new: bool) -> None:
        self.path = path
        self._refusal = ""
        self._lock, self._file = lease.take(path), -1
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT if new else 0), 0o644)
            follower = Follower(path)
            self.records = follower.read()
            if new and (self.records or follower.stale):
                raise JournalExists(f"{path} exists already: continue that study with `hpo resume`, or choose another name")
            self.seq, self._length = follower.seq, follower.offset
            self.lease = lease.sign(self._lock, follower.lease)
            self.healed = os.fstat(self._file).st_size - self._length
            if self.healed:
                os.ftruncate(self._file, self._length)
                os.fsync(self._file)
            if new:
                for folder in (path.parent, path.parent.parent):
                    _sync_folder(folder)
        except BaseException:  # whatever it is goes on: a journal that was not opened must not keep the lease
            self.close()
            raise

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new, empty journal, durable with its folder; JournalExists where a study has begun, LeaseHeld where one begins.

        What is left of a first line that was never whole is no study, and overwritten.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return cls(path, new=True)
        except OSError as error:
            raise JournalError(f"{path} cannot be created: {error.strerror}") from error

    @classmethod
    def open(cls, path: Path) -> Self:
        """The journal at `path`, verified and without its torn last write if it had one.

        Raises LeaseHeld while it has another writer, JournalDamaged, or JournalError where there is none.
        """
        if not path.exists():
            raise JournalError(f"{path} does not exist: this folder holds no study")
        try:
            return cls(path, new=False)
        except OSError as error:
            raise JournalError(f"{path} cannot be opened for writing: {error.strerror}") from error

    def append(self, events: Sequence[Event]) -> None:
        """Make the events durable, all in one write and one sync; after an error the file is as before and takes no more.

        Raises ValueError or TypeError for an event that is not strict JSON, before anything is written.
        """
        if self._refusal:
            raise JournalError(self._refusal)
        now, after = datetime.now(UTC), len(events)
        numbered = enumerate(events, start=1)
        lines = b"".join(encode(Record(self.seq + i, now, event, self.lease), after - i) for i, event in numbered)
        if not lines:
            return
        self._check_lease()
        try:
            _write(self._file, lines)
            os.fdatasync(self._file)
        except OSError as error:
            self._refusal = (
                f"{self.path}: {len(lines)} bytes could not be written: {error.strerror}; the {self.seq} events before "
                f"are intact. Mend that (free space on this disk), then go on with `hpo resume {self.path.parent.name}`"
            )
            self._cut()
            raise JournalError(self._refusal) from error
        self._length += len(lines)
        self.seq += len(events)

    def close(self) -> None:
        """Let another writer in. Harmless when closed already."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1
        self._refusal = f"{self.path} is closed"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _check_lease(self) -> None:
        """Notice a second writer (somebody removed the lock file, or the whole study) before adding to what it wrote."""
        found = os.fstat(self._file)
        if found.st_nlink == 0 or found.st_size != self._length:
            what = "was removed" if found.st_nlink == 0 else f"has {found.st_size} bytes where {self._length} were written"
            self._refusal = f"{self.path} {what}: another process took this study over, and this one stops"
            raise JournalError(self._refusal)

    def _cut(self) -> None:
        # What cannot be cut off is a torn write, which every reader leaves out and the next `open` drops.
        with suppress(OSError):
            os.ftruncate(self._file, self._length)
            os.fsync(self._file)


class Dropped(NamedTuple):
    """What a repair took out of a journal: so many bytes, now in the file `kept_in`; `records` are left."""

    size: int
    kept_in: Path
    records: int


def repair(path: Path) -> Dropped | None:
    """Cut a damaged journal before its first damaged write, and keep the rest beside it; None where nothing is damaged.

    Raises LeaseHeld while the study has a writer, and JournalDamaged where nothing would be left.
    """
    follower = Follower(path)
    with lease.holding(path):
        try:
            follower.read()
        except JournalDamaged:
            if not follower.seq:
                raise
            return _cut_out(follower)
    return None


def _cut_out(follower: Follower) -> Dropped:
    path, whole = follower.path, follower.offset  # up to here every write is whole
    damaged = path.read_bytes()[whole:]
    kept_in = path.with_name(f"{path.stem}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S%f}")
    with kept_in.open("xb") as file:
        file.write(damaged)
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)
    with path.open("r+b") as file:
        file.truncate(whole)
        os.fsync(file.fileno())
    return Dropped(len(damaged), kept_in, follower.seq)


def _write(file: int, content: bytes) -> None:
    # A full disk shortens a write before it refuses one: the second write brings the reason.
    while content:
        content = content[os.write(file, content) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)
