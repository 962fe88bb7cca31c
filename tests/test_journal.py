"""The journal keeps every acknowledged event, drops only what was never acknowledged, and notices every other change."""

from __future__ import annotations

import json
import math
import os
import resource
import subprocess
import sys
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.errors import exit_code
from hpo.events import Asked, Created, Ended, Event, Finished, Measured, Resumed, Retried
from hpo.journal import Journal, JournalExists, repair
from hpo.journal_format import Follower, JournalDamaged, JournalError, OtherVersion, Record, decode, encode, read
from hpo.lease import LeaseHeld, lock_file
from hpo.trial import State

AT = datetime(2026, 11, 20, 5, 56, 10, 123456, tzinfo=UTC)
EVENTS: tuple[Event, ...] = (
    Created("fashion", {"name": "fashion", "space": {"width": {"type": "int", "low": 32}}}, {"torch": "2.13.0"}, "b719672"),
    Asked(0, {"learning_rate": 1e-4, "width": 64, "optimizer": "adam", "bias": True}, 1234),
    Measured(0, 1, 0.5, {"val_accuracy": 0.5, "train_loss": 1.25}, 0.25),
    Retried(0, 2, "its worker died: signal 9"),
    Resumed("node-1", 4711, {"torch": "2.13.0"}, trials=80),
    Finished(0, State.PRUNED, "asha", "stopped at epoch 1: “0.5” is rank 3 of 4\r\n", {"rung": 1, "cutoff": 0.75}),
    Ended("budget", 0),
)


def written(path: Path, events: Sequence[Event] = EVENTS) -> bytes:
    with Journal.create(path) as journal:
        for event in events:
            journal.append([event])
    return path.read_bytes()


def events_in(path: Path) -> list[Event]:
    return [record.event for record in read(path)]


def test_what_is_appended_is_read_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "home" / "fashion" / "journal.jsonl"
    with Journal.create(path) as journal:
        journal.append(EVENTS[:2])
        journal.append([])
        journal.append(EVENTS[2:])
        assert journal.seq == len(EVENTS)
    records = read(path)
    assert [record.event for record in records] == list(EVENTS)
    assert [record.seq for record in records] == [1, 2, 3, 4, 5, 6, 7]
    assert {record.lease for record in records} == {1}
    assert all(record.at.tzinfo is UTC for record in records)


def test_a_line_is_strict_json_with_a_checksum_in_front(tmp_path: Path) -> None:
    lines = written(tmp_path / "journal.jsonl").splitlines()
    assert len(lines) == len(EVENTS)
    for number, line in enumerate(lines, start=1):
        fields = json.loads(line, parse_constant=pytest.fail)
        assert list(fields)[:6] == ["crc", "seq", "lease", "more", "at", "event"]
        assert fields["seq"] == number
        assert fields["crc"] == f"{zlib.crc32(line[18:]):08x}"
        assert len(fields["at"]) == len("2026-11-20T05:56:10.123456Z")


@given(
    params=st.dictionaries(st.text(), st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)),
    metrics=st.dictionaries(st.text(), st.floats(allow_nan=False)),
    reason=st.text(),
)
def test_any_event_survives_its_line(params: dict[str, float], metrics: dict[str, float], reason: str) -> None:
    for event in (Asked(3, params, 7), Measured(3, 1, 0.5, metrics, 0.1), Retried(3, 2, reason)):
        line = encode(Record(9, AT, event, 2), 1)
        assert line.count(b"\n") == 1
        assert decode(line[:-1]) == (Record(9, AT, event, 2), 1)


def test_metrics_that_are_not_finite_are_kept_and_other_such_numbers_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal.create(path) as journal:
        with pytest.raises(ValueError, match="JSON"):
            journal.append([EVENTS[1], Asked(1, {"learning_rate": math.nan}, 1)])
        assert path.read_bytes() == b""  # nothing of the refused call
        journal.append([Measured(0, 1, 0.5, {"loss": math.inf, "norm": math.nan}, 0.1)])
    (event,) = events_in(path)
    assert isinstance(event, Measured)
    assert event.metrics["loss"] == math.inf
    assert math.isnan(event.metrics["norm"])


def test_one_append_is_one_write_and_one_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    with Journal.create(tmp_path / "journal.jsonl") as journal:
        real_write, real_sync = os.write, os.fdatasync
        monkeypatch.setattr(os, "write", lambda file, content: (calls.append("write"), real_write(file, content))[1])
        monkeypatch.setattr(os, "fdatasync", lambda file: (calls.append("sync"), real_sync(file))[1])
        journal.append(EVENTS)
        assert calls == ["write", "sync"]


def test_a_journal_cut_anywhere_keeps_every_whole_line_and_goes_on(tmp_path: Path) -> None:
    whole = written(tmp_path / "journal.jsonl")
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    path = tmp_path / "cut" / "journal.jsonl"
    path.parent.mkdir()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        kept = sum(end <= size for end in ends)
        assert events_in(path) == list(EVENTS[:kept])
        with Journal.open(path) as journal:
            assert [record.event for record in journal.records] == list(EVENTS[:kept])
            assert journal.healed == size - max((end for end in ends if end <= size), default=0)
            journal.append(EVENTS[-1:])
        assert events_in(path) == [*EVENTS[:kept], EVENTS[-1]]


@pytest.mark.parametrize("change", [lambda b: b ^ 1, lambda b: b ^ 0x80, lambda _: 0, lambda _: ord("\n"), lambda _: ord("\r")])
def test_every_changed_byte_is_noticed_and_nothing_is_touched(tmp_path: Path, change: Callable[[int], int]) -> None:
    path = tmp_path / "journal.jsonl"
    whole = written(path, EVENTS[1:4])
    tried = 0
    for i, byte in enumerate(whole):
        if change(byte) == byte:
            continue
        damaged = whole[:i] + bytes([change(byte)]) + whole[i + 1 :]
        path.write_bytes(damaged)
        for look in (read, Journal.open):
            with pytest.raises(JournalDamaged) as raised:
                look(path)
            assert exit_code(raised.value) == 65
        assert path.read_bytes() == damaged
        tried += 1
    assert tried >= len(whole) - 3


def test_damage_is_named_with_line_offset_and_next_step(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    lines = written(path).splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2].replace(b"0.5", b"0.9"), *lines[3:]]))
    offset = len(lines[0]) + len(lines[1])
    with pytest.raises(JournalError, match=rf"journal.jsonl:3: the line at byte {offset} .*checksum.*hpo verify --repair"):
        read(path)


@pytest.mark.parametrize("order", [(0, 2), (0, 0, 1), (1,), (1, 0)])
def test_missing_doubled_and_swapped_lines_are_damage(tmp_path: Path, order: tuple[int, ...]) -> None:
    path = tmp_path / "journal.jsonl"
    lines = written(path).splitlines(keepends=True)
    path.write_bytes(b"".join(lines[i] for i in order))
    with pytest.raises(JournalError, match="lines are missing"):
        read(path)


def test_a_line_of_a_later_version_is_refused_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    body = b'"seq":1,"lease":1,"more":0,"at":"2026-11-20T05:56:10.123456Z","event":"promoted","trial":0}'
    path.write_bytes(b'{"crc":"%08x",%b\n' % (zlib.crc32(body), body))
    with pytest.raises(JournalError, match="another version of hpo"):
        read(path)


def test_there_is_one_writer_and_the_second_learns_who(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal.create(path), pytest.raises(LeaseHeld, match=rf"written by process {os.getpid()} on .* since .* UTC \(\d+s\)"):
        Journal.open(path)
    Journal.open(path).close()


def test_a_dead_writer_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    program = "import sys, pathlib, hpo.journal as j; k = j.Journal.create(pathlib.Path(sys.argv[1])); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"open\n"
        with pytest.raises(JournalError, match=f"process {writer.pid} "):
            Journal.open(path)
        writer.kill()
    Journal.open(path).close()


def test_a_write_that_fails_leaves_the_file_as_it_was_and_closes_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    before = written(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal.open(path) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, limits[1]))  # cuts the write short, then refuses it
        try:
            with pytest.raises(JournalError, match=r"journal.jsonl: \d+ bytes could not be written: File too large; the 7 events before"):
                journal.append(EVENTS)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert path.read_bytes() == before
        with pytest.raises(JournalError, match="could not be written"):
            journal.append(EVENTS)  # whoever did not stop is stopped here
    with Journal.open(path) as journal:
        assert journal.healed == 0
        journal.append(EVENTS[-1:])
    assert len(read(path)) == 8


def test_a_follower_sees_whole_lines_only_and_each_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    whole = written(path)
    path.write_bytes(b"")
    seen: list[Event] = []
    follower = Follower(path)
    for byte in whole:
        with path.open("ab") as file:
            file.write(bytes([byte]))
        records = follower.read()
        seen += [record.event for record in records]
        assert len(records) == (byte == ord("\n"))
    assert seen == list(EVENTS)
    assert (follower.read(), follower.offset) == ([], len(whole))


def test_a_follower_is_told_when_the_journal_shrank(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    written(path)
    follower = Follower(path)
    follower.read()
    path.write_bytes(b"")
    with pytest.raises(JournalError, match="shrank"):
        follower.read()


def test_creating_and_opening_the_wrong_way_round(tmp_path: Path) -> None:
    path = tmp_path / "study" / "journal.jsonl"
    with pytest.raises(JournalError, match="holds no study"):
        Journal.open(path)
    journal = Journal.create(path)
    journal.append(EVENTS)
    journal.close()
    with pytest.raises(JournalError, match="is closed"):
        journal.append(EVENTS)
    with pytest.raises(JournalExists, match="exists already: continue that study with `hpo resume`"):
        Journal.create(path)
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="cannot be created"):
        Journal.create(tmp_path / "file" / "study" / "journal.jsonl")


def test_a_write_of_several_events_is_read_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "study" / "journal.jsonl"
    with Journal.create(path) as journal:
        journal.append(EVENTS[:1])
        first = path.stat().st_size
        journal.append(EVENTS[1:5])
    whole = path.read_bytes()
    assert whole.count(b"\n") == 5
    for size in range(first, len(whole)):
        path.write_bytes(whole[:size])
        assert events_in(path) == list(EVENTS[:1])
        follower = Follower(path)
        assert len(follower.read()) == 1
        path.write_bytes(whole)
        assert [record.event for record in follower.read()] == list(EVENTS[1:5])
    path.write_bytes(whole[:-1])
    with Journal.open(path) as journal:
        assert journal.healed == len(whole) - 1 - first
    assert path.read_bytes() == whole[:first]


def test_what_is_left_of_a_first_line_is_no_study_and_makes_room_for_one(tmp_path: Path) -> None:
    path = tmp_path / "study" / "journal.jsonl"
    line = written(path, EVENTS[:1])
    for size in range(len(line)):
        path.write_bytes(line[:size])
        with Journal.create(path) as journal:
            journal.append(EVENTS[:2])
        assert events_in(path) == list(EVENTS[:2])


def test_every_holder_has_a_number_of_its_own_in_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    written(path, EVENTS[:2])
    for lease in (2, 3):
        with Journal.open(path) as journal:
            assert journal.lease == lease
            journal.append(EVENTS[2:3])
    assert [(record.seq, record.lease) for record in read(path)] == [(1, 1), (2, 1), (3, 2), (4, 3)]


def test_what_an_older_holder_writes_after_it_lost_the_lease_is_left_out(tmp_path: Path) -> None:
    """Somebody removes the lock file of a writer that lives: a second one takes over, and both write."""
    path = tmp_path / "journal.jsonl"
    before = written(path, EVENTS[:2])
    late = encode(Record(3, AT, EVENTS[2], 1)) + encode(Record(4, AT, EVENTS[3], 1))
    new = encode(Record(3, AT, EVENTS[5], 2)) + encode(Record(4, AT, EVENTS[4], 2))
    for content in (before + new + late, before + late + new):
        path.write_bytes(content)
        follower = Follower(path)
        assert [record.event for record in follower.read()] == [*EVENTS[:2], EVENTS[5], EVENTS[4]]
        assert follower.stale == 2
        with Journal.open(path) as journal:
            assert journal.seq == 4
            assert journal.lease > 2
            journal.append(EVENTS[-1:])
        assert events_in(path)[-1] == EVENTS[-1]


def test_a_holder_that_lost_the_lease_notices_and_stops(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal.create(path) as first:
        first.append(EVENTS[:2])
        lock_file(path).unlink()
        with Journal.open(path) as second:
            second.append(EVENTS[2:3])
        after = path.read_bytes()
        with pytest.raises(JournalError, match="another process took this study over"):
            first.append(EVENTS[3:])
        assert path.read_bytes() == after
    path.unlink()
    written(path)
    with Journal.open(path) as removed:
        path.unlink()
        with pytest.raises(JournalError, match="was removed"):
            removed.append(EVENTS[:1])


def test_a_repair_keeps_what_precedes_the_damage_and_the_rest_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    whole = written(path)
    assert repair(path) is None
    lines = whole.splitlines(keepends=True)
    damaged = b"".join([*lines[:3], lines[3][:20] + b"?" + lines[3][21:], *lines[4:]])
    path.write_bytes(damaged)
    with path.open("rb"), Journal.create(tmp_path / "other.jsonl"):
        dropped = repair(path)
    assert dropped is not None
    assert path.read_bytes() == b"".join(lines[:3])
    assert dropped.kept_in.read_bytes() == damaged[len(path.read_bytes()) :]
    assert (dropped.size, dropped.records) == (len(damaged) - len(path.read_bytes()), 3)
    assert events_in(path) == list(EVENTS[:3])


def test_a_repair_waits_for_no_writer(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Journal.create(path), pytest.raises(LeaseHeld):
        repair(path)


def test_a_lease_has_a_new_number_even_if_the_journal_lost_its_end(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    first = len(written(path, EVENTS[:2]))
    for lease in (2, 3):
        with Journal.open(path) as journal:
            assert journal.lease == lease
            journal.append(EVENTS[2:3])
        path.write_bytes(path.read_bytes()[:first])


def test_a_repair_that_would_leave_nothing_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    whole = written(path)
    damaged = whole[:60] + bytes([whole[60] ^ 1]) + whole[61:]
    path.write_bytes(damaged)
    with pytest.raises(JournalDamaged, match="line at byte 0 "):
        repair(path)
    assert path.read_bytes() == damaged


def test_a_line_of_another_version_is_no_damage_and_not_repaired(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    body = b'"seq":1,"at":"2026-11-20T05:56:10.123456Z","event":"created","study":"a","spec":{},"versions":{}}'
    line = b'{"crc":"%08x",%b\n' % (zlib.crc32(body), body)
    path.write_bytes(line)
    for look in (read, Journal.open, repair):
        with pytest.raises(OtherVersion, match="another version of hpo"):
            look(path)
    assert path.read_bytes() == line
