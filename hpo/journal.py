"""The study's memory: one checksummed, fsynced JSON line an event, written before the event takes effect.

Format of a line: `{"crc":"xxxxxxxx","seq":17,"at":"2026-11-20T05:56:10.123456Z","event":"measured",...}`, where crc is
the CRC-32 of the bytes between `"crc":"xxxxxxxx",` and the newline, and seq is the number of the line, from 1.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from hpo.events import Event, from_json, to_json

FILE_NAME = "journal.jsonl"
LOOKS, LOOK_S = 5, 0.01
PREFIX = len(b'{"crc":"xxxxxxxx",')


class JournalError(Exception):
    """The journal cannot be trusted or written: stop, and touch nothing."""


class Record(NamedTuple):
    """One line: its number from 1, when it was written (UTC), and what happened."""

    seq: int
    at: datetime
    event: Event


class Journal:
    """A journal open for appending, by one writer at a time.

    `records` is what it held when it was opened; `healed` counts the bytes of a torn last line that were dropped then.
    """

    def __init__(self, path: Path, *, new: bool) -> None:
        self.path = path
        self._refusal = ""
        self._lock, self._file = _lock(path), -1
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if new else 0), 0o644)
            self.records, self._length = tail(path, 0)
            self.seq = len(self.records)
            self.healed = os.fstat(self._file).st_size - self._length
            if self.healed:
                os.ftruncate(self._file, self._length)
                os.fsync(self._file)
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: Path) -> Self:
        """A new, empty journal, durable with its folder; JournalError where there is one already, or a writer."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            journal = cls(path, new=True)
            for folder in (path.parent, path.parent.parent):
                _sync_folder(folder)
        except FileExistsError:
            raise JournalError(f"{path} exists already: continue that study, or choose another name") from None
        except OSError as error:
            raise JournalError(f"{path} cannot be created: {error.strerror}") from error
        return journal

    @classmethod
    def open(cls, path: Path) -> Self:
        """The journal at `path`, verified and without its torn tail if it had one; JournalError if damaged or in use."""
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
        now = datetime.now(UTC)
        lines = b"".join(encode(Record(self.seq + i, now, event)) for i, event in enumerate(events, start=1))
        if not lines:
            return
        try:
            _write(self._file, lines)
            os.fdatasync(self._file)
        except OSError as error:
            self._refusal = (
                f"{self.path}: {len(lines)} bytes could not be written: {error.strerror}; the {self.seq} events before "
                "are intact. Mend that (free space on this disk), then continue the study"
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

    def _cut(self) -> None:
        # What cannot be cut off is a torn tail, which every reader ignores and the next `open` drops.
        with suppress(OSError):
            os.ftruncate(self._file, self._length)
            os.fsync(self._file)


def read(path: Path) -> list[Record]:
    """Every record, each verified; a torn tail is ignored. JournalError for damage anywhere else."""
    return tail(path, 0)[0]


def tail(path: Path, offset: int) -> tuple[list[Record], int]:
    """The whole lines that follow byte `offset`, and the offset to go on from; never a line that is still being written.

    `offset` is 0 or what an earlier call returned.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(offset)
            content = file.read()
    except OSError as error:
        raise JournalError(f"{path} cannot be read: {error.strerror}") from error
    if offset > size:
        raise JournalError(f"{path} shrank to {size} bytes while it was followed at byte {offset}: its last write failed; read it again")
    # One append is one write, and a write that was cut short lacks its end: only what follows the last newline is torn.
    *lines, torn = content.split(b"\n")
    records = list(_verified(path, lines, offset))
    end = offset + len(content) - len(torn)
    if _is_whole(torn[:-1]):
        raise _damage(path, records[-1].seq + 1 if records else None, end, "its newline was changed")
    return records, end


def encode(record: Record) -> bytes:
    """The line of a record, its newline included."""
    line = {"seq": record.seq, "at": record.at.isoformat(timespec="microseconds").replace("+00:00", "Z"), **to_json(record.event)}
    body = json.dumps(line, allow_nan=False, separators=(",", ":"), default=_plain).encode()[1:]
    return b'{"crc":"%08x",%b\n' % (zlib.crc32(body), body)


def decode(line: bytes) -> Record:
    """The record of a line without its newline; ValueError saying what is wrong with it."""
    if not _is_whole(line):
        raise ValueError("the checksum does not match")
    try:
        fields = json.loads(line)
        del fields["crc"]
        return Record(fields.pop("seq"), datetime.fromisoformat(fields.pop("at")), from_json(fields))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"it was written by another version of hpo ({type(error).__name__}: {error})") from error


def _verified(path: Path, lines: Sequence[bytes], offset: int) -> Iterator[Record]:
    expected = None if offset else 1
    for line in lines:
        try:
            record = decode(line)
        except ValueError as error:
            raise _damage(path, expected, offset, str(error)) from error
        if record.seq != (expected or record.seq):
            raise _damage(path, expected, offset, f"it has seq {record.seq}, so lines are missing or doubled")
        expected = record.seq + 1
        offset += len(line) + 1
        yield record


def _damage(path: Path, line: int | None, offset: int, what: str) -> JournalError:
    place = f"{path}:{line}" if line else str(path)
    return JournalError(
        f"{place}: the line at byte {offset} is damaged: {what}. Nothing was changed; restore the file from a copy, or keep "
        f"only what precedes the damage with `head -c {offset}`"
    )


def _is_whole(line: bytes) -> bool:
    return len(line) > PREFIX and line[:PREFIX] == b'{"crc":"%08x",' % zlib.crc32(line[PREFIX:])


def _lock(path: Path) -> int:
    """The descriptor that holds the writer's lock; it goes with the process, however that dies."""
    file = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not _locked(file):
            holder = os.pread(file, 1000, 0).decode(errors="replace").strip() or "another process"
            raise JournalError(f"{path} is being written by {holder}: wait for it, or stop it")
        os.ftruncate(file, 0)
        holder = f"process {os.getpid()} on {socket.gethostname()} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        os.pwrite(file, f"{holder}\n".encode(), 0)
    except (OSError, JournalError) as error:
        os.close(file)
        if isinstance(error, JournalError):
            raise
        raise JournalError(f"{path} cannot be locked: {error.strerror}; a study is kept on a local disk with room left") from error
    return file


def _locked(file: int) -> bool:
    # Whoever looks whether a study runs holds the lock for an instant: that is no writer, and gone at the next try.
    for _ in range(LOOKS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(LOOK_S)
    return False


def _write(file: int, content: bytes) -> None:
    # A full disk shortens a write before it refuses one: the second write brings the reason.
    while content:
        content = content[os.write(file, content) :]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(descriptor)
    os.close(descriptor)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
