"""What a result costs the driver, part by part, with 100, 1,000 and 5,000 trials behind it: python -m benchmarks.driver

A real session with its journal on the disk, random points, checkpoints that come and go; no Ray, and nothing is trained. A result
is one epoch of one trial, reported alone, with the eight metrics of the trainer `mlp`. Then the shipper's part over the same
journal, which a process of its own does beside the driver: twice a second it brings a SQLite store of MLflow up to date.
Milliseconds of CPU time, system calls included. What a suggestion costs is in benchmarks/suggestions.py.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tempfile
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from rich.console import Console

from benchmarks.meter import Costs, Meter
from benchmarks.suggestions import spec_of
from hpo import checkpoints
from hpo.engine.assignment import Assignment, Report
from hpo.events import Created
from hpo.journal import FILE_NAME, Journal
from hpo.journal_format import Follower, decode
from hpo.progress import Watch
from hpo.projection import Projection
from hpo.sending import send
from hpo.session import Session
from hpo.specified import rules_of, sampler_of
from hpo.study import replay
from hpo.tracking import environment
from hpo.trial import Decision, Measurement
from hpo.trial_files import best_name, last_name
from hpo.typical import typical_curve

SIZES = (100, 1_000, 5_000)
ROUNDS = 10
RATE = 100  # results a second
REFRESHES = 2  # a second, of the display; so often the shipper looks, too
FULL_PASS = 10  # of ten passes of the shipper one sends what trials that run have
SLOTS = 8


class Driver:
    """A session whose workers are made up: they report epoch after epoch in turn, and write checkpoints without tensors."""

    def __init__(self, folder: Path, rule: str, stopper: str, trials: int, slots: int = SLOTS) -> None:
        self._slots = slots
        spec = spec_of("random", trials, pruner={"name": "asha", "rule": rule, "reduction_factor": 4}, stopper={"name": stopper})
        journal = Journal.create(folder / FILE_NAME)
        journal.append([Created(folder.name, spec.to_dict(), {})])
        self.meter = Meter()
        self.meter.wrap(journal, "journal", "append")
        self.session = Session(spec, "simulated", folder, journal)
        self.meter.wrap(self.session, "decisions", "next", "take")
        self.meter.wrap(self.session._retention, "retention", "let_go", "put_by", "take_up")
        self._curve = typical_curve(spec.space, spec.max_epochs)
        self._console = Console(file=io.StringIO(), force_terminal=True, width=120)
        self._running: deque[tuple[Assignment, Sequence[float]]] = deque()

    def bring_to(self, trials: int) -> None:
        """Go on until so many trials lie behind."""
        while len(self.session.study.trials) < trials:
            self._result()

    def costs(self) -> Costs:
        """What a result of the next second costs."""
        self.meter.reset()
        for number in range(RATE):
            self._result()
            if number % (RATE // REFRESHES) == 0:
                with self.meter.of("progress"):
                    self._console.print(Watch(self.session))
        return self.meter.costs(RATE)

    def trials(self, count: int) -> float:
        """What each of the next `count` trials costs: milliseconds of CPU time."""
        self.meter.reset()
        before = len(self.session.study.trials)
        self.bring_to(before + count)
        return sum(cost for part, cost in self.meter.costs(count).items() if part != "wall")

    def _result(self) -> None:
        while len(self._running) < self._slots and (assignment := self.session.next()) is not None:
            self._running.append((assignment, self._curve(assignment.arguments, assignment.seed)))
        assignment, values = self._running.popleft()
        epoch = self.session.study.trials[assignment.number].epoch + 1
        value = values[epoch - 1]
        if assignment.direction.loss(value) < assignment.keep_below:
            _write(assignment, best_name, epoch, value)
        if epoch in assignment.rungs and assignment.pauses:
            _write(assignment, last_name, epoch, value)
        report = Report((Measurement(epoch, value, metrics(epoch, value), 0.01),))
        if self.session.take(assignment.number, report) is Decision.CONTINUE:
            self._running.append((assignment, values))


def metrics(epoch: int, value: float) -> dict[str, float]:
    """As many as the trainer `mlp` yields, with as many digits."""
    losses = {"train_loss": 1.1 - value, "val_loss": 1.2 - value, "generalisation_gap": 0.1 + value / 9}
    speed = {"learning_rate": 0.001 / epoch, "epoch_seconds": value / 7, "examples_per_second": 1e5 * value}
    return {"value": value, "train_accuracy": value + 0.01} | losses | speed


def _write(assignment: Assignment, name: Callable[[int, int], str], epoch: int, value: float) -> None:
    label = {checkpoints.LABEL: {"epoch": epoch, "value": value}}
    checkpoints.save(assignment.folder / name(assignment.lease, assignment.attempt), label)


def shipped(source: Path, folder: Path, sizes: Sequence[int]) -> Iterator[Costs]:
    """What a result costs the shipper of the journal `source`, of which it sees half a second's results more at each pass."""
    os.environ.update(environment())
    from hpo.opening import open_store  # and with it MLflow, whose memory is none of the driver's

    store, meter = open_store(f"sqlite:///{folder / 'mlflow.db'}", "driver"), Meter()
    projection, follower = Projection(), Follower(folder / FILE_NAME)
    due, passes = list(sizes), 0  # passes that were measured
    with source.open("rb") as journal, follower.path.open("ab") as growing:
        for number, content in enumerate(_passes(journal)):
            growing.write(content)
            growing.flush()
            if len(projection.runs) < due[0]:
                meter.reset()
                passes = 0
            with meter.of("tracking"):
                for record in follower.read():
                    projection.apply(record)
                send(projection, store, everything=number % FULL_PASS == 0)
            passes += 1
            if passes == 2 * FULL_PASS:
                yield meter.costs(passes * RATE // REFRESHES)
                del due[0]
                if not due:
                    return


def _passes(journal: BinaryIO) -> Iterator[bytes]:
    """The journal, half a second's results at a time."""
    content, results = b"", 0
    for line in journal:
        content += line
        results += b'"event":"measured"' in line
        if results == RATE // REFRESHES:
            yield content
            content, results = b"", 0


def memory(session: Session) -> float:
    """Megabytes that 1,000 trials of the session take: what grows in a driver is the study."""
    spec, lines = session.spec, (session.folder / FILE_NAME).read_bytes().splitlines()
    tracemalloc.start()
    again = replay(rules_of(spec), sampler_of(spec), (decode(line)[0].event for line in lines))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return taken / len(again.trials) / 1000


def show(sizes: Sequence[int], rounds: Sequence[Sequence[Costs]]) -> None:
    """A line for each number of trials, the median of the rounds; and what the last costs of the first, round by round."""
    parts = [part for part in rounds[0][0] if part != "wall"]
    print(f"{'trials':>9}" + "".join(f"{part:>11}" for part in (*parts, "all", "of a core", "at most")))
    for size, found in zip(sizes, zip(*rounds, strict=True), strict=True):
        each = "".join(f"{statistics.median(costs[part] for costs in found):11.3f}" for part in parts)
        together = statistics.median(sum(costs[part] for part in parts) for costs in found)
        most = 1000 / statistics.median(costs["wall"] for costs in found)
        print(f"{size:9}{each}{together:11.3f}{together * RATE / 1000:11.1%}{most:9.0f}/s")
    ratios = [statistics.median(costs[-1][part] / costs[0][part] for costs in rounds) for part in parts]
    whole = statistics.median(sum(costs[-1][part] for part in parts) / sum(costs[0][part] for part in parts) for costs in rounds)
    print(f"{'last/first':>9}{ratios[0]:10.2f}" + "".join(f"{ratio:11.2f}" for ratio in (*ratios[1:], whole)), flush=True)


def study(folder: Path, rule: str, stopper: str, sizes: Sequence[int]) -> None:
    """Print what a result costs under one rule: the studies of all sizes take turns, so that all have the machine as it is."""
    drivers = [Driver(folder / f"{rule}-{size}", rule, stopper, 2 * size + ROUNDS * RATE) for size in sizes]
    for driver, size in zip(drivers, sizes, strict=True):
        driver.bring_to(size)
    print(f"\nrule {rule}, stopper {stopper}")
    show(sizes, [[driver.costs() for driver in drivers] for _ in range(ROUNDS)])
    largest = drivers[-1].session
    each = largest.study.epochs / len(largest.study.trials)
    print(f"memory: {memory(largest):.1f} MB for 1,000 trials of {each:.1f} epochs each")


def main() -> None:
    """Print what a result costs under each rule, then the shipper."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", nargs="+", type=int, default=SIZES, help="how many lie behind")
    parser.add_argument("--tracking", nargs="*", type=int, default=(100, 1_000), help="the same of the shipper; none: leave it out")
    options = parser.parse_args()
    print(f"CPU ms a result, and the share of a core at {RATE} results a second; at most: by the wall, with the disk's part")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for rule, stopper in (("stop", "none"), ("promote", "patience")):
            study(folder, rule, stopper, options.trials)
        if options.tracking:
            print("\nthe shipper, under the rule promote")
            source = folder / f"promote-{max(options.trials)}" / FILE_NAME
            show(options.tracking, [list(shipped(source, folder, options.tracking))])


if __name__ == "__main__":
    main()
