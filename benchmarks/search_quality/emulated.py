"""Optuna's ask and tell on a virtual clock, wired as other tools wire it: what is told, when, and what never arrives."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Protocol

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from benchmarks.curves import Table
from benchmarks.search_quality.progress import Epoch
from hpo.sampling.with_optuna import distribution
from hpo.trial import Direction


class Rule(Protocol):
    """What becomes of a trial that has measured an epoch before its last."""

    def stops(self, trial: optuna.Trial, epoch: int, value: float) -> bool:
        """Whether the trial ends here; reports to Optuna what the tool would."""

    def stopped(self, study: optuna.Study, trial: optuna.Trial, value: float) -> None:
        """Tell Optuna of a trial that ended here."""


class NoRule:
    """Every trial trains to its end."""

    def stops(self, trial: optuna.Trial, epoch: int, value: float) -> bool:
        trial.report(value, epoch)
        return False

    def stopped(self, study: optuna.Study, trial: optuna.Trial, value: float) -> None:  # noqa: ARG002
        raise AssertionError("nothing is stopped")


@dataclass(slots=True)
class RayAsha:
    """`ray.tune.schedulers.ASHAScheduler` (one bracket, grace of one epoch) behind `OptunaSearch`.

    A trial goes on if it is not below the (1 - 1/eta) quantile of those that came to the rung before it. The one that is
    stopped is told as COMPLETE with the value that it has by then, and that value's own report never arrives.
    """

    direction: Direction
    max_epochs: int
    eta: int = 4
    _rungs: dict[int, list[float]] = field(init=False)

    def __post_init__(self) -> None:
        count = int(math.log(self.max_epochs) / math.log(self.eta) + 1)
        self._rungs = {self.eta**k: [] for k in range(count)}

    def stops(self, trial: optuna.Trial, epoch: int, value: float) -> bool:
        reward = -self.direction.loss(value)
        before = self._rungs.get(epoch)
        if before is not None:
            cutoff = np.percentile(before, (1 - 1 / self.eta) * 100) if before else -math.inf
            before.append(reward)
            if reward < cutoff:
                return True
        trial.report(value, epoch)
        return False

    def stopped(self, study: optuna.Study, trial: optuna.Trial, value: float) -> None:
        study.tell(trial, value)


class OptunaPruner:
    """The pruner of the study itself, told everything, as in Optuna's own `optimize`."""

    def stops(self, trial: optuna.Trial, epoch: int, value: float) -> bool:
        trial.report(value, epoch)
        return trial.should_prune()

    def stopped(self, study: optuna.Study, trial: optuna.Trial, value: float) -> None:  # noqa: ARG002
        study.tell(trial, state=TrialState.PRUNED)


@dataclass(slots=True)
class _Running:
    trial: optuna.Trial
    curve: list[float]
    epoch: int = 0


@dataclass(slots=True)
class Emulation:
    """A search of `workers` workers over a table, an epoch a virtual second; `pending` trials are asked for ahead of time."""

    table: Table
    study: optuna.Study
    rule: Rule
    workers: int
    pending: int = 0
    _distributions: dict[str, BaseDistribution] = field(init=False)
    _asked: deque[optuna.Trial] = field(init=False, default_factory=deque)
    _due: list[tuple[int, int, _Running]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self._distributions = {name: distribution(parameter) for name, parameter in self.table.space.items()}

    def run(self, epochs: int) -> list[Epoch]:
        """Until so many epochs were trained in all; a value that is not finite fails its trial."""
        done: list[Epoch] = []
        for _ in range(self.workers):
            self._start(0)
        while len(done) < epochs:
            now, number, running = heappop(self._due)
            running.epoch += 1
            value = running.curve[running.epoch - 1]
            done.append(Epoch(now, number, running.epoch, value))
            if self._ends(running, value):
                self._start(now)
            else:
                heappush(self._due, (now + 1, number, running))
        return done

    def _start(self, now: int) -> None:
        while len(self._asked) <= self.pending:
            self._asked.append(self.study.ask(self._distributions))
        trial = self._asked.popleft()
        curve = self.table.curve(trial.params, trial.number)
        heappush(self._due, (now + 1, trial.number, _Running(trial, curve)))

    def _ends(self, running: _Running, value: float) -> bool:
        """Whether the trial is over, told to Optuna if so."""
        if not math.isfinite(value):
            self.study.tell(running.trial, state=TrialState.FAIL)
        elif running.epoch == len(running.curve):
            self.study.tell(running.trial, value)
        elif self.rule.stops(running.trial, running.epoch, value):
            self.rule.stopped(self.study, running.trial, value)
        else:
            return False
        return True


def emulate(
    sampler: Callable[[int], BaseSampler],
    rule: Callable[[Table], Rule],
    pruner: Callable[[Table], optuna.pruners.BasePruner] = lambda _: optuna.pruners.NopPruner(),
    *,
    pending: int = 0,
) -> Callable[[Table, int, int, int], list[Epoch]]:
    """The search (table, workers, seed, epochs) -> its epochs, of this sampler (made of a seed), rule and pruner."""

    def search(table: Table, workers: int, seed: int, epochs: int) -> list[Epoch]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna warns of every experimental class, at each use
            study = optuna.create_study(
                direction=table.direction.value, sampler=sampler(seed), pruner=pruner(table), study_name=f"{table.task}-{seed}"
            )
            return Emulation(table, study, rule(table), workers, pending).run(epochs)

    return search
