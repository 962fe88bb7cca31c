"""Who arrived at each rung, who waits there and who went on; and which rung has a place free. Pure: a fold, no decisions.

Trials compete within their group alone: a sampler's ladder, and in it a bracket, which skips the lowest rungs.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from hpo import asha

Group = tuple[str, int]
Rank = tuple[float, int]  # a loss at the rung, and the trial's number


@dataclass(slots=True)
class Rung:
    """The rung after `epoch` epochs, of one group: `losses` of the trials that came there, and the same in order as `arrivals`.

    `waiting` are the trials that are paused there, the best first and the earliest of equals, `passed` those that went on. `over`
    are those that had ended by themselves when they came here or would have come here: they count as arrivals, by the best loss
    that they had. What is in order is kept so, and nothing here is counted anew: thousands may have come.
    """

    group: Group
    epoch: int
    losses: dict[int, float] = field(default_factory=dict)
    arrivals: asha.Arrivals = field(default_factory=asha.Arrivals)
    waiting: list[int] = field(default_factory=list)
    passed: set[int] = field(default_factory=set)
    over: list[Rank] = field(default_factory=list)
    _ranks: list[Rank] = field(default_factory=list)

    def arrive(self, trial: int, loss: float, *, goes_on: bool = True) -> None:
        """The trial came here; NaN is the worst loss."""
        self.losses[trial] = loss
        self.arrivals.add(loss, went_on=goes_on)
        insort(self._ranks, self._rank(trial))

    def end(self, trial: int) -> None:
        """The trial, which arrived, had ended by itself."""
        insort(self.over, self._rank(trial))

    def wait(self, trial: int) -> None:
        """The trial, which arrived, waits here."""
        insort(self.waiting, trial, key=self._rank)
        self.hold(trial)

    def release(self, trial: int) -> None:
        """The trial waits no longer."""
        del self.waiting[bisect_left(self.waiting, self._rank(trial), key=self._rank)]

    def hold(self, trial: int) -> None:
        """The trial, which was thought to go on, does not."""
        self.arrivals.turn(self.losses[trial], goes_on=False)

    def rank(self, trial: int) -> int:
        """The trial's place among those that came, from 1; equals share it."""
        return self.arrivals.better(self.losses[trial]) + 1

    def places(self, reduction_factor: int) -> int:
        """How many more may go on: of n arrivals floor(n / eta) in all.

        A trial that is over already takes a place where it is among the best: it went on as far as it could.
        """
        quota = len(self.losses) // reduction_factor
        if quota <= len(self.passed) or not self.waiting:
            return 0
        return quota - len(self.passed) - bisect_right(self.over, self._ranks[quota - 1])

    def _rank(self, trial: int) -> Rank:
        return asha.worst_if_nan(self.losses[trial]), trial


class Standings:
    """All rungs of all groups, lowest first; a group comes into being with its first trial."""

    def __init__(self, epochs: Sequence[int]) -> None:
        self._epochs = tuple(epochs)
        self._rungs: dict[tuple[Group, int], Rung] = {}
        self._waiting: dict[int, Rung] = {}
        self._best_first: list[Rank] = []  # of all that wait, each by the best loss that it had anywhere
        self._best: dict[int, float] = {}

    def rung(self, group: Group, epoch: int) -> Rung | None:
        """The rung of `group` after `epoch` epochs; None where it has none."""
        if epoch not in self.epochs(group):
            return None
        if (group, epoch) not in self._rungs:
            self._rungs[group, epoch] = Rung(group, epoch)
        return self._rungs[group, epoch]

    def epochs(self, group: Group) -> tuple[int, ...]:
        """The rungs of a group: those of all, the lowest of them skipped by its bracket."""
        return self._epochs[group[1] :]

    def above(self, group: Group, epoch: int) -> Iterator[Rung]:
        """The rungs of `group` that lie behind `epoch`, the next one first."""
        for later in self.epochs(group):
            if later > epoch and (rung := self.rung(group, later)):
                yield rung

    def all(self) -> list[Rung]:
        """Every rung that somebody came to, by group and then from the lowest up."""
        return sorted((rung for rung in self._rungs.values() if rung.arrivals), key=lambda rung: (rung.group, rung.epoch))

    def wait(self, trial: int, rung: Rung, best: float) -> None:
        """The trial, which has arrived, waits there; `best` is the lowest loss that it had so far."""
        rung.wait(trial)
        self._waiting[trial], self._best[trial] = rung, best
        insort(self._best_first, (best, trial))

    def go_on(self, trial: int) -> None:
        """The trial, which waited, goes on."""
        rung = self._waiting[trial]
        self.leave(trial)
        rung.passed.add(trial)
        rung.arrivals.turn(rung.losses[trial], goes_on=True)

    def leave(self, trial: int) -> None:
        """The trial waits no longer, since it has ended; as one that arrived it stays."""
        if rung := self._waiting.pop(trial, None):
            rung.release(trial)
            del self._best_first[bisect_left(self._best_first, (self._best.pop(trial), trial))]

    def free(self, reduction_factor: int) -> Rung | None:
        """The highest rung with a place for one that waits there; of equally high ones that of the first group by name."""
        found = [rung for rung in self._rungs.values() if rung.places(reduction_factor) > 0]
        return min(found, key=lambda rung: (-rung.epoch, rung.group), default=None)

    @property
    def best(self) -> int:
        """Of those that wait the one with the best loss anywhere, the earliest of equals; IndexError where none waits."""
        return self._best_first[0][1]

    @property
    def waiting(self) -> dict[int, Rung]:
        """The trials that wait, each with its rung."""
        return self._waiting
