"""A journal's copies on shared storage: what a run that dies leaves behind, what the next one finds, and who may write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hpo import journal_copies
from hpo.events import Asked, Created, Ended, Event, Measured
from hpo.journal import FILE_NAME, Journal
from hpo.journal_copies import NOT_COPIED, Copy, TakenOver
from hpo.journal_format import JournalDamaged, JournalError, read
from hpo.results import StoredStudy
from tests.simulated_study import simulated, spec

CREATED = Created("study", {"trainer": {"name": "mlp"}}, {"torch": "2.13.0"})
LONG_S = 60  # for a process to do what takes it a second


def epochs(trial: int, count: int) -> list[Event]:
    return [Measured(trial, epoch, 0.5, {"value": 0.5}, 1.0) for epoch in range(1, count + 1)]


class Run:
    """One run on a machine of its own: takes a copy, opens the journal, writes."""

    def __init__(self, tmp_path: Path, number: int) -> None:
        self.room, self.path = tmp_path / "room", tmp_path / f"machine-{number}" / "study" / FILE_NAME
        self.copy = Copy.take(self.room, self.path, f"job {number}")
        self.journal = Journal.open(self.path) if self.path.exists() else Journal.create(self.path)

    def write(self, *events: Event) -> None:
        self.journal.append(events)


def test_the_next_run_goes_on_where_the_copy_ends(tmp_path: Path) -> None:
    first = Run(tmp_path, 1)
    first.write(CREATED)
    first.write(Asked(0, {"x": 0.5}, 7), *epochs(0, 3))
    first.copy.bring()
    first.write(*epochs(0, 1))  # its machine dies before this is copied
    second = Run(tmp_path, 2)
    assert second.path.read_bytes() == first.path.read_bytes()[: second.path.stat().st_size]
    assert [record.event for record in second.journal.records] == [CREATED, Asked(0, {"x": 0.5}, 7), *epochs(0, 3)]
    second.write(Ended("budget", None))
    second.copy.bring()
    assert read(Run(tmp_path, 3).path) == read(second.path)


def test_a_runs_number_is_its_lease_whether_or_not_those_before_wrote_anything(tmp_path: Path) -> None:
    for number in range(1, 8):
        run = Run(tmp_path, number)
        assert run.copy.number == run.journal.lease == number
        if number % 2:
            run.write(CREATED if number == 1 else Ended("interrupted", None))
        if number % 3:
            run.copy.bring()


def test_only_whole_writes_are_copied_wherever_the_journal_is_cut(tmp_path: Path) -> None:
    run = Run(tmp_path, 1)
    ends = [0]
    for events in ([CREATED], [Asked(0, {"x": 0.5}, 7), *epochs(0, 2)], epochs(0, 1), [Ended("budget", None)]):
        run.write(*events)
        ends.append(run.path.stat().st_size)
    whole = run.path.read_bytes()
    growing = tmp_path / "elsewhere" / FILE_NAME
    copy = Copy.take(tmp_path / "other-room", growing, "job 1")
    for size in range(len(whole) + 1):
        growing.write_bytes(whole[:size])
        copy.bring()
        copied = list((tmp_path / "other-room").glob("journal-*.jsonl"))
        written = max(end for end in ends if end <= size)
        assert (copied[0].read_bytes() if copied else b"") == whole[:written]


def test_a_run_that_lives_on_after_it_was_given_up_changes_nothing(tmp_path: Path) -> None:
    old = Run(tmp_path, 1)
    old.write(CREATED)
    old.copy.bring()
    new = Run(tmp_path, 2)
    old.write(*epochs(0, 2))
    with pytest.raises(TakenOver, match="later run than this one, 1"):
        old.copy.bring()
    new.write(Ended("interrupted", None))
    new.copy.bring()
    assert [record.event for record in Run(tmp_path, 3).journal.records] == [CREATED, Ended("interrupted", None)]


def test_what_an_unnoticed_one_adds_to_its_own_copy_is_read_by_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Run(tmp_path, 1)
    old.write(CREATED)
    old.copy.bring()
    new = Run(tmp_path, 2)
    old.write(*epochs(0, 2))
    with monkeypatch.context() as blind:
        blind.setattr(journal_copies, "_numbers", lambda _room: [0, 1])
        old.copy.bring()
    assert read(tmp_path / "room" / "journal-00001.jsonl") == read(old.path)
    new.copy.bring()
    assert [record.event for record in Run(tmp_path, 3).journal.records] == [CREATED]


def test_no_two_runs_get_one_number(tmp_path: Path) -> None:
    room, together = tmp_path / "room", threading.Barrier(16)

    def take(machine: int) -> int:
        together.wait()
        return Copy.take(room, tmp_path / str(machine) / FILE_NAME, str(machine)).number

    with ThreadPoolExecutor(16) as pool:
        assert sorted(pool.map(take, range(16))) == list(range(1, 17))


def test_a_lease_above_all_numbers_is_not_given_again(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        run = Run(tmp_path, number)
        run.write(CREATED if number == 1 else Ended("interrupted", None))
        run.copy.bring()
    (tmp_path / "room" / "journal-00003.jsonl").rename(tmp_path / "room" / "journal-00001.jsonl")
    for path in (tmp_path / "room").glob("journal-0000[23]*"):
        path.unlink()
    assert Run(tmp_path, 4).journal.lease == 4


@pytest.mark.parametrize("at", [0, 20, 150, -2])
def test_a_damaged_copy_is_named_and_nothing_goes_on_from_it(tmp_path: Path, at: int) -> None:
    run = Run(tmp_path, 1)
    run.write(CREATED)
    run.write(*epochs(0, 2))
    run.copy.bring()
    copy = tmp_path / "room" / "journal-00001.jsonl"
    content = bytearray(copy.read_bytes())
    content[at] ^= 1
    copy.chmod(0o600)
    copy.write_bytes(content)
    machine = tmp_path / "machine-2" / FILE_NAME
    with pytest.raises(JournalDamaged, match="journal-00001"):
        Copy.take(tmp_path / "room", machine, "job 2")
    assert not machine.exists()
    assert copy.read_bytes() == bytes(content)


def test_a_journal_that_is_there_is_never_replaced(tmp_path: Path) -> None:
    run = Run(tmp_path, 1)
    run.write(CREATED)
    with pytest.raises(JournalError, match="exists already"):
        Copy.take(tmp_path / "room", run.path, "job 1 again")


def test_a_study_of_its_own_is_no_room_for_copies(tmp_path: Path) -> None:
    study = simulated(tmp_path / "shared", "study", spec("budget.trials=2"))
    before = (study.folder / FILE_NAME).read_bytes()
    with pytest.raises(JournalError, match="holds a study of its own"):
        Copy.take(study.folder, tmp_path / "machine" / FILE_NAME, "job 1")
    assert (study.folder / FILE_NAME).read_bytes() == before


@pytest.mark.parametrize("taken", [0, 1, 100])
def test_what_the_storage_refuses_is_copied_at_the_next_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int) -> None:
    run = Run(tmp_path, 1)
    run.write(CREATED)
    run.copy.bring()
    run.write(*epochs(0, 5))
    write, calls = os.pwrite, iter((True, False))

    def full(file: int, content: bytes, at: int) -> int:
        if taken and next(calls, False):
            return write(file, content[:taken], at)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space left"):
            run.copy.bring()
    run.copy.bring()
    assert (tmp_path / "room" / "journal-00001.jsonl").read_bytes() == run.path.read_bytes()


def test_the_copies_are_a_study_that_can_be_looked_at_but_not_written(tmp_path: Path) -> None:
    study = simulated(tmp_path / "machine", "study", spec("budget.trials=4"))
    room, elsewhere = tmp_path / "shared" / "study", tmp_path / "machine-2" / FILE_NAME
    copy = Copy.take(room, elsewhere, "job 1")
    elsewhere.write_bytes((study.folder / FILE_NAME).read_bytes())
    copy.bring()
    seen = StoredStudy.open(room)
    assert (seen.name, seen.counts, len(seen.trials)) == (study.name, study.counts, 4)
    assert (room / FILE_NAME).stat().st_mode & 0o777 == 0o400
    assert room.stat().st_mode & 0o777 == 0o700


def command(tmp_path: Path, code: str, machine: str = "machine") -> list[str]:
    """`code` in place of a driver; `journal` is what it writes."""
    journal = tmp_path / machine / FILE_NAME
    places = f"journal, ready = Path({str(journal)!r}), Path({str(tmp_path / 'ready')!r})"
    setup = f"import os, signal, sys, time; from pathlib import Path; {places}"
    words = [sys.executable, "-m", "hpo.journal_copies", str(tmp_path / "room"), str(journal), "--owner", "job 1", "--"]
    return [*words, sys.executable, "-c", f"{setup}\n{code}"]


def until(claim: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG_S
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.02)


LINES = (
    "from hpo.journal import Journal; from hpo.events import Created, Ended\n"
    "study = Journal.open(journal) if journal.exists() else Journal.create(journal)\n"
    "study.append([Ended('interrupted', None) if study.records else Created('study', {}, {})])\n"
)
WAIT = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); signal.signal(signal.SIGINT, lambda *_: sys.exit(130)); ready.touch()\n"
WAIT += f"time.sleep({LONG_S}); sys.exit(1)"


@pytest.mark.parametrize(
    ("end", "code"),
    [("sys.exit(0)", 0), ("sys.exit(3)", 3), ("sys.exit(75)", 75), ("os.kill(os.getpid(), signal.SIGKILL)", 137)],
)
def test_the_commands_exit_code_is_handed_on_and_its_last_line_copied(tmp_path: Path, end: str, code: int) -> None:
    assert subprocess.run(command(tmp_path, LINES + end), check=False).returncode == code
    assert len(read(tmp_path / "room" / FILE_NAME)) == 1
    assert subprocess.run(command(tmp_path, LINES + end, "another"), check=False).returncode == code
    records = read(tmp_path / "room" / FILE_NAME)
    assert [record.lease for record in records] == [1, 2]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_signals_reach_the_command_once(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with subprocess.Popen(command(tmp_path, LINES + WAIT)) as process:
        until((tmp_path / "ready").exists)
        process.send_signal(number)
        assert process.wait(LONG_S) == code
    assert len(read(tmp_path / "room" / FILE_NAME)) == 1


def test_the_command_does_not_outlive_it(tmp_path: Path) -> None:
    code = f"{LINES}ready.write_text(str(os.getpid())); time.sleep({LONG_S})"
    with subprocess.Popen(command(tmp_path, code)) as process:
        until(lambda: (tmp_path / "ready").exists() and bool((tmp_path / "ready").read_text()))
        child = int((tmp_path / "ready").read_text())
        process.kill()
    until(lambda: not _runs(child))


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_run_that_is_taken_over_is_ended(tmp_path: Path) -> None:
    with subprocess.Popen(command(tmp_path, LINES + WAIT), stderr=subprocess.PIPE, text=True) as process:
        until((tmp_path / "ready").exists)
        until((tmp_path / "room" / FILE_NAME).exists)
        Copy.take(tmp_path / "room", tmp_path / "another" / FILE_NAME, "job 2")
        _, said = process.communicate(timeout=LONG_S)
    assert process.returncode == 1
    assert "a later run than this one" in said


def test_a_journal_whose_end_was_not_copied_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_copies, "PATIENCE_S", 0.0)
    monkeypatch.setattr(journal_copies, "EVERY_S", 0.01)
    run = Run(tmp_path, 1)
    run.write(CREATED)
    run.copy.bring()
    run.write(*epochs(0, 2))

    def full(file: int, content: bytes, at: int) -> int:
        raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(os, "pwrite", full)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert journal_copies.run(run.copy, [sys.executable, "-c", "pass"]) == NOT_COPIED
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_damaged_copy_ends_the_command_before_it_begins(tmp_path: Path) -> None:
    assert subprocess.run(command(tmp_path, LINES), check=False).returncode == 0
    copy = tmp_path / "room" / "journal-00001.jsonl"
    content = copy.read_bytes()
    copy.chmod(0o600)
    copy.write_bytes(content.replace(b"study", b"stody", 1))
    done = subprocess.run(command(tmp_path, "ready.touch()", "another"), check=False, capture_output=True, text=True)
    assert done.returncode == 65
    assert "is damaged" in done.stderr
    assert not (tmp_path / "ready").exists()
