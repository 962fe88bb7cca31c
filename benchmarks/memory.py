"""The memory of a command and of all that it starts, watched from /proc while it runs.

Memory is the proportional set size: a page that several processes share is counted once, divided among them.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

PROC = Path("/proc")


class Peak(threading.Thread):
    """While it runs, the most megabytes (10^6 bytes) that a process, its descendants and its session held at once.

    Looks once in `every_s`; a process that was seen once is counted even when its parent has gone.
    """

    def __init__(self, process: int, every_s: float = 1.0) -> None:
        super().__init__(daemon=True)
        self.megabytes = 0.0
        self._family, self._every_s, self._over = {process}, every_s, threading.Event()

    def __enter__(self) -> Peak:
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(self._every_s):
            self._family = family(self._family, ancestry())
            self.megabytes = max(self.megabytes, sum(map(proportional_mb, self._family)))


def ancestry() -> dict[int, tuple[int, int]]:
    """Each process's parent and session."""
    found = {}
    for folder in PROC.glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        found[int(folder.name)] = (int(fields[1]), int(fields[3]))
    return found


def family(known: set[int], living: dict[int, tuple[int, int]]) -> set[int]:
    """Those of `known` that live, their descendants, and the sessions that any of them leads, with their descendants."""
    members, before = known & living.keys(), -1
    while len(members) != before:
        before = len(members)
        members |= {process for process, (parent, session) in living.items() if parent in members or session in members}
    return members


def proportional_mb(process: int) -> float:
    """0 for a process that has ended."""
    try:
        lines = (PROC / str(process) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6
