"""Two drivers on one study: at the same time, one after the other's death, and one that does not know that it lost the lease."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from hpo.events import Asked, Created, Event, Measured, Resumed
from hpo.home import HomeError, begin
from hpo.journal import FILE_NAME, Journal
from hpo.journal_format import Follower, JournalError, Record, encode, read
from hpo.lease import LeaseHeld, lock_file
from tests.chaos.outcome import Outcome, Tally
from tests.chaos.real_study import Real, ended, wait_until
from tests.chaos.simulated import END_S, SERVER

WITHIN_S = 1.0  # by when the one that comes too late is told so
AT = datetime(2026, 11, 20, tzinfo=UTC)


def contend(folder: Path, is_new: bool, gate: Barrier, delay_s: float, answers: Connection) -> None:
    """Wait at the gate, then take the study; say `won`, or how it was refused, and in how many seconds. The winner keeps it."""
    gate.wait(END_S)
    time.sleep(delay_s)
    began = time.monotonic()
    try:
        journal = begin(folder.parent, folder.name, exactly=True) if is_new else Journal.open(folder / FILE_NAME)
        journal.append([Created(folder.name, {}, {})] if is_new else [Resumed("here", os.getpid(), {})])
    except (JournalError, HomeError) as error:
        answers.send((type(error).__name__, str(error), time.monotonic() - began))
        return
    answers.send(("won", "", time.monotonic() - began))
    answers.recv()
    journal.close()


def two_drivers(folder: Path, tries: int, seed: int) -> Outcome:
    """Two processes that take one study at the same instant, new in half of the tries; every other winner is then killed."""
    tally, draw = Tally(), random.Random(f"drivers/{seed}")
    for number in range(tries):
        is_new = number % 2 == 0
        study = folder / f"contended-{number}"
        if not is_new:
            with begin(folder, study.name, exactly=True) as journal:
                journal.append([Created(study.name, {}, {})])
        _contend_once(tally, study, is_new, draw, f"try {number} of seed {seed}")
    return tally.outcome("two drivers on one study", "simultaneous starts, half of them of a new study")


def _contend_once(tally: Tally, study: Path, is_new: bool, draw: random.Random, where: str) -> None:
    gate, pipes = SERVER.Barrier(2), [SERVER.Pipe() for _ in range(2)]
    delays_s = [0.0, draw.choice([0.0, draw.uniform(0, 0.002)])]
    processes = [
        SERVER.Process(target=contend, args=(study, is_new, gate, delay_s, theirs), daemon=True)
        for (_, theirs), delay_s in zip(pipes, delays_s, strict=True)
    ]
    for process in processes:
        process.start()
    answers = [mine.recv() if mine.poll(END_S) else ("silent", "", END_S) for mine, _ in pipes]
    winners = [process for process, answer in zip(processes, answers, strict=True) if answer[0] == "won"]
    tally.tries += 1
    tally.check("without exactly one winner", len(winners) != 1, f"{where}: {answers}")
    for (kind, words, took_s), process in zip(answers, processes, strict=True):
        if kind != "won" and winners:
            says_who = f"process {winners[0].pid} on " in words or (kind == "NameTaken" and "exists already" in words)
            tally.check("refusals that say not by whom", not says_who, f"{where}: {kind}: {words}")
            tally.check_time(took_s, WITHIN_S, where)
            tally.seen[kind] += 1
            process.join(END_S)
    if draw.random() < 0.5:
        for process in winners:
            process.kill()
        tally.seen["winners killed"] += 1
    for (mine, _), process in zip(pipes, processes, strict=True):
        if process in winners:
            mine.send("enough")
        process.join(END_S)
    with Journal.open(study / FILE_NAME) as journal:
        tally.check("leases not taken over", (journal.lease, journal.seq) != ((2, 1) if is_new else (3, 2)), where)


def refused_commands(folder: Path) -> Outcome:
    """`hpo resume` and `hpo launch` for a study that runs: refused as quickly as a command that only looks, and by whom."""
    tally = Tally()
    study = Real(folder, "taken", folder / "home", local=True, tracked=False)
    process = study.launch()
    wait_until(lambda: process.poll() is not None or study.notes(), f"{study.log}: nothing is trained")
    before = read(study.journal)
    began = time.monotonic()
    ended(study.command("status", study.name))
    looking_s = time.monotonic() - began
    for start in (study.resume, study.launch):
        shown = study.log.stat().st_size
        began = time.monotonic()
        tally.check("exit codes of a success", ended(start()) == 0, study.log)
        tally.check_time(time.monotonic() - began - looking_s, WITHIN_S, study.log)
        words = " ".join(study.log.read_text()[shown:].split())
        tally.check("refusals that say not by whom", f"process {process.pid} on " not in words, words)
        tally.tries += 1
    tally.check("studies disturbed", ended(process) != 0 or not study.is_over() or read(study.journal)[: len(before)] != before, study.log)
    return tally.outcome("two drivers on one study", "`hpo resume` and `hpo launch` while it runs")


def line(seq: int, lease: int, trial: int, more: int = 0) -> bytes:
    """A journal's line; `trial` tells it from others."""
    return encode(Record(seq, AT, Asked(trial, {}, 1), lease), more)


def write(seq: int, lease: int, trials: Sequence[int]) -> bytes:
    """The lines of one write."""
    return b"".join(line(seq + i, lease, trial, len(trials) - 1 - i) for i, trial in enumerate(trials))


def interleavings(first: Sequence[Any], second: Sequence[Any]) -> Iterator[list[Any]]:
    """Every order in which both sequences keep their own."""
    if not first or not second:
        yield [*first, *second]
        return
    yield from ([first[0], *rest] for rest in interleavings(first[1:], second))
    yield from ([second[0], *rest] for rest in interleavings(first, second[1:]))


PAIRS = [
    ((1,), (1,)),
    ((1, 1), (1, 1)),
    ((2,), (1, 1)),
    ((1, 2), (1, 2)),
    ((2, 1), (2,)),
    ((2, 2), (2, 2)),
    ((3,), (3,)),
    ((1, 1, 1), (3, 1)),
]


def zombies(folder: Path) -> Outcome:
    """A writer whose lock file was removed goes on writing beside its successor, in every order of both one's writes."""
    tally = Tally()
    for old_shape, new_shape in PAIRS:  # how many lines each of both one's writes has
        old, new = _writes(3, 1, 100, old_shape), _writes(3, 2, 200, new_shape)
        for number, order in enumerate(interleavings(old, new)):
            path = folder / f"zombie-{old_shape}-{new_shape}-{number}" / FILE_NAME
            path.parent.mkdir(parents=True)
            _read_mixed(tally, path, order, new, sum(old_shape))
    for events in ([0], [0, 1]):
        _notice(tally, folder / f"notice-{len(events)}", [Measured(0, i + 1, 0.5, {}, 0.1) for i in events])
    return tally.outcome("a driver that lost its lease unnoticed", "every order of its writes and its successor's, by one or several lines")


def _writes(seq: int, lease: int, trial: int, shape: Sequence[int]) -> list[bytes]:
    found = []
    for size in shape:
        found.append(write(seq, lease, range(trial, trial + size)))
        seq, trial = seq + size, trial + size
    return found


def _read_mixed(tally: Tally, path: Path, order: list[bytes], new: list[bytes], stale: int) -> None:
    """Of all that was written the successor's lines are what counts."""
    before = write(1, 1, [0]) + write(2, 1, [1])
    path.write_bytes(before + b"".join(order))
    mine = [0, 1, *range(200, 200 + sum(content.count(b"\n") for content in new))]
    where = f"{path}"
    tally.tries += 1
    try:
        follower = Follower(path)
        found = [record.event.trial for record in follower.read() if isinstance(record.event, Asked)]
        with Journal.open(path) as journal:
            journal.append([Asked(300, {}, 1)])
        again = [record.event.trial for record in read(path) if isinstance(record.event, Asked)]
    except JournalError as error:
        tally.check("mixtures taken for damage", 1, f"{where}: {error}")
        return
    tally.check("wrong histories", found != mine or again != [*mine, 300], where)
    tally.check("wrong counts of stale lines", follower.stale != stale, where)
    _follow_mixed(tally, path, before, order, mine)


def _follow_mixed(tally: Tally, path: Path, before: bytes, order: list[bytes], mine: list[int]) -> None:
    """One who follows meanwhile gets the same, or is told to read it again: never anything else."""
    path.write_bytes(before)
    follower, seen = Follower(path), list[int]()
    try:
        for content in (b"", *order):
            with path.open("ab") as file:
                file.write(content)
            seen += [record.event.trial for record in follower.read() if isinstance(record.event, Asked)]
    except JournalError as error:
        tally.check("followers misled", "read it again" not in str(error), f"{path}: {error}")
    else:
        tally.check("followers misled", seen != mine, f"{path}: {seen}")


def _notice(tally: Tally, folder: Path, late: list[Event]) -> None:
    """The writers themselves: the older one stops at its next write, or, where both write at once, at the one after."""
    path = folder / FILE_NAME
    with Journal.create(path) as first:
        first.append([Created("zombie", {}, {}), Asked(0, {}, 1)])
        lock_file(path).unlink()
        with Journal.open(path) as second:
            second.append([Resumed("here", 2, {})])
            first._check_lease = lambda: None  # type: ignore[method-assign]  # it looked just before the other wrote
            first.append(late)
            del first._check_lease
            for journal in (first, second):
                _must_stop(tally, journal, late)
    tally.tries += 1
    try:
        events = [record.event for record in read(path)]
    except JournalError as error:
        tally.check("mixtures taken for damage", 1, f"{path}: {error}")
    else:
        tally.check("wrong histories", events[2:] != [Resumed("here", 2, {})], f"{path}: {events}")


def _must_stop(tally: Tally, journal: Journal, events: list[Event]) -> None:
    before = journal.path.read_bytes()
    try:
        journal.append(events)
    except LeaseHeld:
        raise
    except JournalError as error:
        tally.check("unclear words", "another process took this study over" not in str(error), error)
    else:
        tally.check("writers that did not notice", 1, journal.path)
    tally.check("files changed", journal.path.read_bytes() != before, journal.path)
