"""The lines of a journal: written, read back, and every damage named. Reads files, never writes one.

A line is `{"crc":"xxxxxxxx","seq":17,"lease":1,"more":0,"at":"2026-11-20T05:56:10.123456Z","event":"measured",...}`. crc is
the CRC-32 of the bytes between `"crc":"xxxxxxxx",` and the newline; seq is the number of the line, from 1; lease counts the
processes that wrote the study one after another; more is how many lines of the same write follow, so that a write is
read as a whole or not at all.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from hpo.events import Event, from_json, to_json

PREFIX = len(b'{"crc":"xxxxxxxx",')


class JournalError(Exception):
    """The journal cannot be trusted or written: stop, and touch nothing."""


class JournalDamaged(JournalError):
    """The bytes from `offset` on are not what was written: repair, or restore from a copy; never go on."""

    def __init__(self, path: Path, offset: int, line: int | None, what: str) -> None:
        place = f"{path}:{line}" if line else str(path)
        keep = f", or keep what precedes the damage with `hpo verify --repair {path.parent.name}`" if offset else ""
        super().__init__(f"{place}: the line at byte {offset} is damaged: {what}. Nothing was changed; restore the file from a copy{keep}")
        self.path, self.offset = path, offset


class OtherVersion(JournalError):
    """The line is whole, but this version cannot read it: use the one that wrote it; never repair."""


class Record(NamedTuple):
    """One line: its number from 1, when it was written (UTC), what happened, and under which lease."""

    seq: int
    at: datetime
    event: Event
    lease: int = 1


class Follower:
    """Reads a journal from its beginning, and on as it grows: whole writes only, each record once.

    `offset` is where the next write starts, `seq` and `lease` are those of the last record, `stale` counts the lines that
    a writer added after it had lost the lease; these are left out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = self.seq = self.lease = self.stale = 0

    def read(self) -> list[Record]:
        """The records since the last call; JournalDamaged for anything that is neither whole nor a torn last write."""
        content = self._content()
        *lines, torn = content.split(b"\n")
        records: list[Record] = []
        write: list[Record] = []
        at = self.offset
        for line in lines:
            record, more = self._verified(line, at, write)
            at += len(line) + 1
            write.append(record)
            if not more:
                self._accept(write, records, at)
                write = []
        # One append is one write, and a write that was cut short lacks its end: only what follows the last newline is torn.
        if is_whole(torn[:-1]):
            raise JournalDamaged(self.path, at, None, "its newline was changed")
        return records

    def _content(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                file.seek(self.offset)
                content = file.read()
        except OSError as error:
            raise JournalError(f"{self.path} cannot be read: {error.strerror}") from error
        if self.offset > size:
            raise JournalError(f"{self.path} shrank to {size} bytes while it was followed at byte {self.offset}: read it again")
        return content

    def _verified(self, line: bytes, at: int, write: list[Record]) -> tuple[Record, int]:
        due = (write[-1].seq if write else self.seq) + 1
        try:
            record, more = decode(line)
        except OtherVersion as error:
            raise OtherVersion(f"{self.path}:{due}: {error}; nothing was changed") from error
        except ValueError as error:
            raise JournalDamaged(self.path, at, due, str(error)) from error
        lease = write[-1].lease if write else self.lease
        if record.lease == lease and record.seq != due:
            raise JournalDamaged(self.path, at, due, f"it has seq {record.seq}, so lines are missing or doubled")
        if write and record.lease != lease:
            raise JournalDamaged(self.path, at, due, f"it belongs to lease {record.lease}, inside a write of lease {lease}")
        if record.lease > lease and not 0 < record.seq <= due:
            raise JournalDamaged(self.path, at, due, f"it has seq {record.seq}, so lines are missing")
        return record, more

    def _accept(self, write: list[Record], records: list[Record], end: int) -> None:
        self.offset = end
        first = write[0]
        if first.lease < self.lease:
            self.stale += len(write)
            return
        while first.seq <= self.seq:  # the holder of an older lease wrote between this one's start and its first line
            if not records:
                raise JournalError(f"{self.path}: line {first.seq} was written again by a later lease while it was followed: read it again")
            records.pop()
            self.stale += 1
            self.seq -= 1
        records += write
        self.seq, self.lease = write[-1].seq, write[-1].lease


def read(path: Path) -> list[Record]:
    """Every record, each verified; a torn last write is left out. JournalDamaged for damage anywhere else."""
    return Follower(path).read()


def encode(record: Record, more: int = 0) -> bytes:
    """The line of a record, its newline included; `more` lines of the same write follow."""
    at = record.at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    line = {"seq": record.seq, "lease": record.lease, "more": more, "at": at, **to_json(record.event)}
    body = json.dumps(line, allow_nan=False, separators=(",", ":"), default=_plain).encode()[1:]
    return b'{"crc":"%08x",%b\n' % (zlib.crc32(body), body)


def decode(line: bytes) -> tuple[Record, int]:
    """The record of a line without its newline, and how many of the same write follow; ValueError says what is wrong.

    Raises OtherVersion for a line that is whole and says what this version does not know.
    """
    if not is_whole(line):
        raise ValueError("the checksum does not match")
    try:
        fields = json.loads(line)
        del fields["crc"]
        seq, lease, more = fields.pop("seq"), fields.pop("lease"), fields.pop("more")
        at = datetime.fromisoformat(fields.pop("at")).astimezone(UTC)
        return Record(seq, at, from_json(fields), lease), more
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise OtherVersion(f"the line was written by another version of hpo ({type(error).__name__}: {error})") from error


def is_whole(line: bytes) -> bool:
    """Whether a line, without its newline, is as it was written."""
    return len(line) > PREFIX and line[:PREFIX] == b'{"crc":"%08x",' % zlib.crc32(line[PREFIX:])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
