"""A journal's copy on storage that outlives its machine: `python -m hpo.journal_copies ROOM JOURNAL --owner JOB -- COMMAND`.

For places where a driver ends on one machine and goes on at another, as under Slurm: the journal is on the machine's own disk, where
its lock holds, and its copy in ROOM, which all machines reach. Before COMMAND runs, the journal is restored from the newest copy; as
it grows, whole writes are copied, a second late at most; what is left follows when COMMAND has ended, whose exit code is this one's.

Nobody ever writes what another process writes. Each run takes a number, above all before, that no other gets; its copy has that
number, and so has its lease, hence its checkpoints. One that was given up but lives on, behind a cut link, say, adds to a copy that
nobody reads any more, and ends itself as soon as it sees that there is a later one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

from hpo.durable import replace_file, sync_folder
from hpo.engine.ray_processes import die_with_parent
from hpo.journal import FILE_NAME
from hpo.journal_format import Follower, JournalDamaged, JournalError
from hpo.lease import lock_file

EVERY_S = 1.0
PATIENCE_S = 60.0  # with the storage, when all else is over
NOT_COPIED = 74  # EX_IOERR
FAILURE, DAMAGED = 1, 65
_NUMBERED = re.compile(r"journal-([0-9]+)\.(?:jsonl|owner)")


class TakenOver(JournalError):
    """A later run goes on with the study: this one ends, and writes nothing more."""


class Copy:
    """The copy of one run's journal in `room`, under the run's own number; `take` makes it."""

    def __init__(self, room: Path, number: int, journal: Path) -> None:
        self._room, self.number, self._follower = room, number, Follower(journal)
        self._file, self._length = -1, 0

    @classmethod
    def take(cls, room: Path, journal: Path, owner: str) -> Copy:
        """A number of one's own in `room`, for `owner`, and the newest copy there restored at `journal`.

        Raises JournalDamaged for a copy that is not what was written, JournalError where there is a journal already.
        """
        if journal.exists():
            raise JournalError(f"{journal} exists already; a copy is restored into a new folder only")
        if (room / FILE_NAME).exists() and not (room / FILE_NAME).is_symlink():
            raise JournalError(f"{room} holds a study of its own, not copies of one: choose another folder, or another name")
        room.mkdir(mode=0o700, parents=True, exist_ok=True)
        journal.parent.mkdir(parents=True, exist_ok=True)
        number, source = _claimed(room, owner, above=0), _newest(room)  # in this order: whoever claims later reads what this run writes
        if source is not None:
            follower = Follower(source)
            follower.read()
            if follower.lease >= number:  # somebody took files out of the room
                number = _claimed(room, owner, above=follower.lease)
            content = source.read_bytes()[: follower.offset]
            _write_whole(_copy(room, number), content)  # whole or not at all: its beginning would pass for all there was
            _write_whole(journal, content)
        lock_file(journal).write_text(json.dumps({"lease": number - 1}))  # the next lease is the number after it
        return cls(room, number, journal)

    def bring(self) -> None:
        """Copy what was written since, durably; after an OSError all of it is tried again the next time.

        Raises TakenOver if there is a later run, and JournalError where the journal cannot be followed.
        """
        if _numbers(self._room)[-1] > self.number:
            raise TakenOver(f"{self._room} has a later run than this one, {self.number}: it goes on with the study, and this one ends")
        if not self._follower.path.exists():  # not yet, or its launch was refused
            return
        self._follower.read()
        if self._follower.offset <= self._length:
            return
        if self._file < 0:
            self._open()
        with self._follower.path.open("rb") as journal:
            journal.seek(self._length)
            content = journal.read(self._follower.offset - self._length)
        at = self._length
        while content:  # at its place, whatever an earlier try left there
            done = os.pwrite(self._file, content, at)
            at, content = at + done, content[done:]
        os.fsync(self._file)
        self._length = at

    def _open(self) -> None:
        path = _copy(self._room, self.number)
        if not path.exists():
            _write_whole(path, b"")
        path.chmod(0o600)
        self._file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        path.chmod(0o400)  # from here on nobody adds to it by mistake
        self._length = os.fstat(self._file).st_size
        link = self._room / f".{FILE_NAME}.{self.number}"
        link.symlink_to(path.name)
        link.replace(self._room / FILE_NAME)  # where `hpo status` looks for a study


def _copy(room: Path, number: int) -> Path:
    return room / f"journal-{number:05d}.jsonl"


def _claimed(room: Path, owner: str, above: int) -> int:
    number = max(above, _numbers(room)[-1]) + 1
    while True:
        try:
            with _copy(room, number).with_suffix(".owner").open("x") as file:  # which succeeds once only, on NFS too
                file.write(owner + "\n")
                file.flush()
                os.fsync(file.fileno())
            return number
        except FileExistsError:
            number += 1


def _numbers(room: Path) -> list[int]:
    """The numbers that were taken, in order, after a 0."""
    found = (_NUMBERED.fullmatch(path.name) for path in room.iterdir())
    return sorted({0, *(int(match[1]) for match in found if match)})


def _newest(room: Path) -> Path | None:
    """The copy of the latest run that journaled anything, or None."""
    copies = (_copy(room, number) for number in reversed(_numbers(room)))
    return next((path for path in copies if path.exists() and path.stat().st_size), None)


def _write_whole(path: Path, content: bytes) -> None:
    replace_file(path, content)
    sync_folder(path.parent)


class Command:
    """The process that runs the study. SIGTERM and SIGINT are handed on to it; it dies with this process."""

    def __init__(self, words: Sequence[str]) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._came: list[int] = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._hand_on)
        # a group of its own, so that no signal reaches it twice
        self._child = subprocess.Popen(words, process_group=0, preexec_fn=die_with_parent)  # noqa: PLW1509  # one thread only
        for early in self._came:
            self._child.send_signal(early)

    def _hand_on(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._child is None:
            self._came.append(number)
        else:
            self._child.send_signal(number)  # nothing, if it has ended

    def wait(self, seconds: float | None) -> int | None:
        """Its exit code, as a shell counts; None if it still runs after that time."""
        assert self._child is not None
        with suppress(subprocess.TimeoutExpired):
            code = self._child.wait(seconds)
            return code if code >= 0 else 128 - code
        return None

    def stop(self) -> None:
        """End it as SIGTERM does, and wait for that."""
        assert self._child is not None
        self._child.terminate()
        self._child.wait()


def run(copy: Copy, words: Sequence[str]) -> int:
    """Run the command beside the copying and return its exit code; NOT_COPIED if the storage did not take the journal's end."""
    command, said = Command(words), ""
    while (code := command.wait(EVERY_S)) is None:
        try:
            copy.bring()
        except JournalError as error:
            _say(str(error))
            command.stop()
            return FAILURE
        except OSError as error:
            if said != str(error):
                _say(f"the journal is not copied: {error}; the study goes on, and so do the tries")
            said = str(error)
    return code if _finish(copy) else NOT_COPIED


def _finish(copy: Copy) -> bool:
    """Whether the storage took what was left, within PATIENCE_S."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            copy.bring()
            return True
        except (OSError, JournalError) as error:
            if isinstance(error, JournalError) or time.monotonic() > until:
                _say(f"the journal's end was not copied: {error}")
                return False
        time.sleep(EVERY_S)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Restore, run, copy; see above. 65 for a copy that is damaged, 1 where none can be made."""
    parser = argparse.ArgumentParser(prog="python -m hpo.journal_copies", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("room", type=Path, help="the folder of the study's copies, which all machines reach")
    parser.add_argument("journal", type=Path, help=f"the study's {FILE_NAME}, on this machine")
    parser.add_argument("--owner", required=True, help="whom the run belongs to, such as a job's number")
    parser.add_argument("command", nargs="+", help="what runs the study")
    options = parser.parse_args(arguments)
    try:
        return run(Copy.take(options.room, options.journal, options.owner), options.command)
    except (JournalError, OSError) as error:
        _say(str(error))
        return DAMAGED if isinstance(error, JournalDamaged) else FAILURE


if __name__ == "__main__":
    sys.exit(main())
