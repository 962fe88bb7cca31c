"""A shipper that a store keeps waiting without end is ended, but not while there is progress, nor while its parent lives."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from hpo import overdue
from hpo.overdue import Overdue
from hpo.tracking import GAVE_UP


class Clock:
    """Time passes by sleeping alone; after `end` looks it is enough."""

    def __init__(self, end: int) -> None:
        self.now, self._left = 0.0, end

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self._left -= 1
        if not self._left:
            raise InterruptedError


def looked(monkeypatch: pytest.MonkeyPatch, seen: Iterator[object], gone: Iterator[bool], limit_s: float = 10.0) -> tuple[float, list[str]]:
    """When the process was ended (0: it was not), and what was said."""
    clock, said, left = Clock(100), list[str](), list[int]()
    monkeypatch.setattr(overdue, "time", clock)
    watch = Overdue(lambda: next(seen), lambda: limit_s, said.append, lambda: next(gone), left.append)
    try:
        watch.run()
    except InterruptedError:
        return 0.0, said
    assert left == [GAVE_UP]
    return clock.now, said


def test_whoever_waits_for_it_is_set_free(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, said = looked(monkeypatch, itertools.repeat(1), itertools.repeat(True))
    assert 10.0 < ended <= 10.0 + 2 * overdue.LOOK_S
    assert "has kept a call waiting for 11 s" in said[0]


def test_the_wait_counts_from_the_parents_end(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, _ = looked(monkeypatch, itertools.repeat(1), itertools.chain([False] * 50, itertools.repeat(True)))
    assert 60.0 < ended <= 60.0 + 2 * overdue.LOOK_S


def test_progress_is_no_hanging(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked(monkeypatch, (number // 9 for number in itertools.count()), itertools.repeat(True)) == (0.0, [])


def test_while_the_study_runs_nobody_minds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert looked(monkeypatch, itertools.repeat(1), itertools.repeat(False)) == (0.0, [])
