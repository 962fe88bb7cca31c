"""What the parts of a program cost, each without what it spends inside another one."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

Costs = dict[str, float]
"""Milliseconds of CPU time a result by part, and under `wall` what all parts took by the clock."""


class Meter:
    """CPU time by part, system calls included, and the wall time of all."""

    def __init__(self) -> None:
        self._inside: list[str] = []
        self._since = 0, 0
        self.reset()

    def reset(self) -> None:
        """Begin again."""
        self._cpu: Counter[str] = Counter()
        self._wall = 0

    def costs(self, results: int) -> Costs:
        """What each of so many results took since the last reset."""
        return {part: self._cpu[part] / results / 1e6 for part in sorted(self._cpu)} | {"wall": self._wall / results / 1e6}

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        """What is done inside is that part's."""
        self._turn()
        self._inside.append(part)
        try:
            yield
        finally:
            self._turn()
            self._inside.pop()

    def wrap(self, owner: object, part: str, *methods: str) -> None:
        """What these methods of one object do is that part's."""
        for name in methods:
            setattr(owner, name, self.of(part)(getattr(owner, name)))

    def _turn(self) -> None:
        now = time.process_time_ns(), time.perf_counter_ns()
        if self._inside:
            self._cpu[self._inside[-1]] += now[0] - self._since[0]
            self._wall += now[1] - self._since[1]
        self._since = now
