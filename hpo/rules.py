"""What a study is told from outside: its rules, where its points come from, and who chooses among those that wait. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from hpo import asha
from hpo.space import Params
from hpo.stopping import NoStopper, Stopper
from hpo.trial import Direction, Trial

CLOSEST_RUNG = 1.7  # under promotion: a rung nearer to the end than this factor decides too little to wait for


class Sampler(Protocol):
    """Where the next trial's parameters come from: a function of the history and the study's seed.

    One that `remembers` depends on what it suggested, too, and on when: to go on it must be asked all of it again.
    """

    remembers: bool

    def suggest(self, number: int, trials: Sequence[Trial]) -> Params | None:
        """Parameters for trial `number`; None when the sampler has no further point. Asked twice, it answers the same."""


@runtime_checkable
class Preparing(Protocol):
    """A sampler that can do some of its work before it is asked, while the workers are busy."""

    def prepare(self, trials: Sequence[Trial]) -> None:
        """Get to know the history as it stands: whenever and however often that happens, every suggestion stays what it is without."""


@runtime_checkable
class Promoter(Protocol):
    """Who competes with whom under promotion, and which of those that wait at a rung goes on: functions of the history, too."""

    def ladder(self, number: int, trials: Sequence[Trial]) -> str:
        """The ladder of trial `number`, which is asked for now: it competes with the others of that name."""

    def choose(self, paused: Sequence[int], trials: Sequence[Trial], turn: int) -> int:
        """Which of `paused` goes on: numbers of trials that wait at one rung of one ladder, the best there first, the earliest of equals.

        `turn` counts promotions from 0.
        """


class BestFirst:
    """One ladder; of those that wait the best at the rung goes on, the earliest of equals."""

    def ladder(self, number: int, trials: Sequence[Trial]) -> str:  # noqa: ARG002
        return ""

    def choose(self, paused: Sequence[int], trials: Sequence[Trial], turn: int) -> int:  # noqa: ARG002
        return paused[0]


class NoFurther:
    """The sampler of a study that is only read: it has no further point."""

    remembers = False

    def suggest(self, number: int, trials: Sequence[Trial]) -> None:  # noqa: ARG002
        return None


@dataclass(frozen=True, slots=True)
class Rules:
    """When trials end and how many there are.

    `reduction_factor` None switches pruning off; `promotes` has trials wait at rungs instead of ending there; `audit` is the
    share of those that would end or wait that trains on; `epoch_budget` bounds the epochs of all trials together.
    `retries` is how often a trial whose worker died is tried again. `finalists` configurations, each `final_seeds` times, are
    trained again after the search; 0: there are no finals.
    """

    direction: Direction
    max_epochs: int
    max_trials: int
    seed: int = 0
    grace_epochs: int = 1
    reduction_factor: int | None = 3
    stopper: Stopper = field(default_factory=NoStopper)
    retries: int = 3
    promotes: bool = False
    brackets: int = 1
    audit: float = 0.0
    epoch_budget: int | None = None
    finalists: int = 0
    final_seeds: int = 2

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs at which a trial is compared with others."""
        if self.reduction_factor is None:
            return ()
        return asha.rungs(self.grace_epochs, self.reduction_factor, self.max_epochs, CLOSEST_RUNG if self.promotes else 1.0)

    def bracket(self, seed: int) -> int:
        """How many of the lowest rungs the trial of that seed skips."""
        if self.brackets == 1 or self.reduction_factor is None:
            return 0
        return asha.bracket(seed, self.rungs, self.reduction_factor, self.max_epochs, self.brackets)

    def audits(self, seed: int, epoch: int) -> bool:
        """Whether the trial of that seed trains on to its end if it is not among the best at the rung `epoch`."""
        return asha.share(seed, f"audit at {epoch}") < self.audit
