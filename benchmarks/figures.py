"""What a search cost, from its reports: shares, rates and ratios. Pure: no files, no clock.

A report is one epoch of one trial, validation included. Where a search is ours, its journal says when an epoch was recorded and
how many seconds it took; several that were recorded together are laid one after another, the last ending then.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.arithmetic import multiply_adds
from benchmarks.peers.task import Report
from hpo.events import Asked, Measured
from hpo.journal_format import Record

PASSES, FLOPS = 3, 2  # forward, gradient of the inputs, gradient of the weights; a multiply-add is two operations


@dataclass(frozen=True)
class Workload:
    """What an epoch is made of: training examples, columns of an example, outputs of the network."""

    examples: int
    columns: int
    outputs: int


@dataclass(frozen=True)
class Search:
    """One whole command: its wall seconds, its epochs, its peak memory in MB."""

    side: str
    wall_s: float
    reports: tuple[Report, ...]
    peak_mb: float
    workload: Workload

    @property
    def epochs(self) -> int:
        return len(self.reports)

    @property
    def trials(self) -> int:
        return len({report.trial for report in self.reports})

    @property
    def best(self) -> float:
        return max(report.value for report in self.reports)

    @property
    def work(self) -> float:
        """Multiply-adds of one pass forward over all training examples of all epochs."""
        columns, outputs = self.workload.columns, self.workload.outputs
        return self.workload.examples * sum(multiply_adds(report.width, columns, outputs) for report in self.reports)

    @property
    def ms_per_epoch(self) -> float:
        """Wall milliseconds of the whole command per epoch trained."""
        return 1000 * self.wall_s / self.epochs

    @property
    def ns_per_work(self) -> float:
        """Wall nanoseconds of the whole command per 1,000 multiply-adds."""
        return 1e12 * self.wall_s / self.work if self.work else float("nan")

    def training_share(self, cores: int) -> float:
        """The share of the cores' time between the first and the last report that was spent inside epochs."""
        first, last = self._reported
        inside = sum(max(0.0, r.ended - max(r.began, first)) for r in self.reports)
        return inside / (cores * (last - first)) if last > first else float("nan")

    def speed_share(self, cores: int, gflops: float) -> float:
        """The share of what `cores` could multiply in the wall of the command at `gflops` each; validation is not counted."""
        return FLOPS * PASSES * self.work / self.wall_s / (cores * gflops * 1e9)

    def wall_for(self, trials: int) -> float:
        """Its wall seconds had it run so many trials of the same cost: what is before its first and after its last report counts once."""
        first, last = self._reported
        between = last - first
        return self.wall_s - between + between * trials / self.trials

    @property
    def _reported(self) -> tuple[float, float]:
        """When its first and its last report came."""
        ends = [report.ended for report in self.reports]
        return min(ends), max(ends)


def from_journal(records: Sequence[Record], width: int = 0) -> tuple[Report, ...]:
    """The epochs of a study in the order in which they ended; `width` where it was not searched.

    The first epoch of a trial includes the making of its network.
    """
    widths = {e.trial: int(e.params.get("width", width)) for e in (r.event for r in records) if isinstance(e, Asked)}
    starts: dict[int, float] = {}
    found: list[Report] = []
    for record in reversed(records):
        if isinstance(m := record.event, Measured):
            ended = min(record.at.timestamp(), starts.get(m.trial, float("inf")))
            starts[m.trial] = ended - m.seconds
            found.append(Report(str(m.trial), m.epoch, starts[m.trial], ended, m.value, widths[m.trial]))
    return tuple(sorted(found, key=lambda report: report.ended))


def epochs_of(reports: Iterable[Report], trials: int) -> list[int]:
    """How many epochs each of the trials 0, 1, 2 ... of our search got."""
    numbers = [int(report.trial) for report in reports]
    return [numbers.count(trial) for trial in range(trials)]


MEASURES: dict[str, Callable[[Search, Search], float]] = {
    "wall per epoch": lambda ours, peer: ours.ms_per_epoch / peer.ms_per_epoch,
    "wall per multiply-add": lambda ours, peer: ours.ns_per_work / peer.ns_per_work,
    "wall": lambda ours, peer: ours.wall_s / peer.wall_s,
    "wall per trial": lambda ours, peer: ours.wall_s / peer.wall_for(ours.trials),
}


@dataclass(frozen=True)
class Spread:
    """The median of some repeats and their range."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(measure: str, pairs: Sequence[tuple[Search, Search]]) -> Spread:
    """Ours / peer, by one of MEASURES, over pairs that were run with the same configurations."""
    return spread([MEASURES[measure](ours, peer) for ours, peer in pairs])
