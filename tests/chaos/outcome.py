"""What a row of the fault table found, and the table as Markdown."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Outcome:
    """A fault, tried `tries` times: what was counted, whether it is what must hold, and what else there is to say."""

    fault: str
    how: str
    tries: int
    counts: dict[str, int]
    ok: bool
    note: str = ""

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The row as it is shown."""
        found = ", ".join([f"{count:,} {name}" for name, count in self.counts.items()] + [self.note] * bool(self.note))
        return self.fault, self.how, f"{self.tries:,}", found if self.ok else f"**FAILED**: {found}"


@dataclass
class Tally:
    """What is counted over the tries of one fault: what must not be, what may be, where the first mistake was, the slowest answer."""

    tries: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    first: str = ""
    slowest: tuple[float, float] = (0.0, 0.0)  # seconds, and the machine's load then

    def check(self, what: str, mistakes: int, where: object) -> None:
        """Count `mistakes` of a kind that must not be."""
        self.wrong[what] += int(mistakes)
        if mistakes and not self.first:
            self.first = f"first {what}: {where}"

    def check_time(self, took_s: float, limit_s: float, where: object) -> None:
        """Count an answer that came too late; on a machine that is overbooked more than twice everything may take longer."""
        load = os.getloadavg()[0]
        self.slowest = max(self.slowest, (took_s, load))
        room = max(1.0, load / (2 * (os.cpu_count() or 1)))
        self.check(f"later than {limit_s:g} s", took_s > limit_s * room, f"{where}: {took_s:.1f} s")

    def outcome(self, fault: str, how: str) -> Outcome:
        """The row; it fails if anything was wrong, or nothing was tried."""
        took_s, load = self.slowest
        notes = [f"the slowest took {took_s:.2g} s (load {load:.0f})"] * (took_s > 0) + [self.first] * bool(self.first)
        ok = self.tries > 0 and not any(self.wrong.values())
        return Outcome(fault, how, self.tries, {**self.wrong, **self.seen}, ok, "; ".join(notes))


def skipped(fault: str, why: str) -> Outcome:
    """A row that cannot be tried here."""
    return Outcome(fault, "not tried", 0, {}, ok=True, note=f"skipped: {why}")


def table(outcomes: Sequence[Outcome]) -> str:
    """The rows as a table for a README."""
    rows = [("fault", "how tried", "times", "found"), ("---",) * 4, *(outcome.cells for outcome in outcomes)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
