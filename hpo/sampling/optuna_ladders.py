"""The ladders' models as a sampler for any Optuna study. Optuna has no promotion: every trial trains until its pruner ends it."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import intersection_search_space
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo import asha
from hpo.rules import CLOSEST_RUNG
from hpo.sampling.cube import Cube
from hpo.sampling.ladder_choice import Ladders
from hpo.sampling.ladder_history import Entry, History
from hpo.space import Categorical, Float, Int, Parameter

Space = dict[str, BaseDistribution]


class MultiFidelitySampler(BaseSampler):
    """Random points, TPE and a Gaussian process over all rungs, one of the three for each trial.

    The parameters that all trials have in common are sampled together; others, and all of the first trial, at random. The rungs
    are `min_resource * reduction_factor^k` steps below `max_resource`; without `max_resource` that is the last step that a trial
    reported so far. Steps that count from 0 are taken as 1, 2, and so on. Seeded by `seed` and the trial's number, so that trials
    that are asked for at the same time get different points.
    """

    def __init__(
        self, *, min_resource: int = 1, reduction_factor: int = 4, max_resource: int | None = None, seed: int | None = None
    ) -> None:
        if min_resource < 1 or reduction_factor < 2 or (max_resource is not None and max_resource < min_resource):
            raise ValueError(
                f"min_resource is {min_resource}, reduction_factor {reduction_factor}, max_resource {max_resource}; "
                "they must be at least 1, 2 and min_resource"
            )
        self._resources = min_resource, reduction_factor, max_resource
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._random = RandomSampler(seed)
        self._view: _View | None = None
        self._lock = threading.Lock()  # of the view, which the threads of one study share

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_view": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def reseed_rng(self) -> None:
        """Only what is sampled independently: the rest is seeded by trial."""
        self._random.reseed_rng()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:  # noqa: ARG002
        """The parameters that all finished trials have, those with one value only left out."""
        common = intersection_search_space(study.get_trials(deepcopy=False))
        return {name: distribution for name, distribution in common.items() if not distribution.single()}

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        """One point of `search_space`."""
        if len(study.directions) > 1:
            raise ValueError(f"the study has {len(study.directions)} objectives; MultiFidelitySampler takes one")
        if not search_space:
            return {}
        with self._lock:
            trials = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
            steps = _Steps.of(trials, *self._resources)
            if self._view is None or (self._view.space, self._view.steps) != (search_space, steps):
                sign = 1.0 if study.direction is StudyDirection.MAXIMIZE else -1.0
                self._view = _View(dict(search_space), steps, sign, self._seed)
            return self._view.sample(trial.number, trials)

    def sample_independent(self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        """A random value."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)


@dataclass(frozen=True, slots=True)
class _Steps:
    """The steps at which trials are compared, and what is added to a reported step, where these count from 0."""

    rungs: tuple[int, ...]
    shift: int

    @classmethod
    def of(cls, trials: Sequence[FrozenTrial], least: int, factor: int, most: int | None) -> _Steps:
        reported = [steps for trial in trials if (steps := trial.intermediate_values.keys())]
        shift = int(any(0 in steps for steps in reported))
        last = most or max((max(steps) + shift for steps in reported), default=least)
        return cls((*asha.rungs(least, factor, last, CLOSEST_RUNG), last), shift)

    def entries(self, trial: FrozenTrial) -> dict[int, float]:
        """The trial's value at every rung that it came to, by rung: that of the first report at it or behind it; NaN for a failure."""
        found: dict[int, float] = {}
        values = sorted(trial.intermediate_values.items())
        for k, rung in enumerate(self.rungs):
            value = next((value for step, value in values if step + self.shift >= rung), None)
            if value is not None:
                found[k] = value
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            found[len(self.rungs) - 1] = trial.value
        elif trial.state is TrialState.FAIL and len(self.rungs) - 1 not in found:
            found[max(found, default=-1) + 1] = math.nan
        return found


class _View:
    """A study's trials over one search space, brought up to date before each point."""

    def __init__(self, space: Space, steps: _Steps, sign: float, seed: int) -> None:
        self.space, self.steps, self._sign = space, steps, sign
        self._cube = Cube({name: _parameter(distribution) for name, distribution in space.items()})
        self._history = History(self._cube.size, len(steps.rungs))
        self._ladders = Ladders(self._cube, self._history, seed)
        self._rows: dict[int, int] = {}
        self._entered: dict[int, set[int]] = {}  # of trials that may still change: the rungs known
        self._done: set[int] = set()

    def sample(self, number: int, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
        self._history.latest += 1
        for trial in trials:
            if trial.number not in self._done and trial.state is not TrialState.WAITING:
                self._take(trial)
        point = self._cube.params(self._ladders.point(number, number))
        return {name: _external(self.space[name], value) for name, value in point.items()}

    def _take(self, trial: FrozenTrial) -> None:
        if trial.state.is_finished():
            self._done.add(trial.number)
        if trial.number not in self._rows:
            if not trial.params.keys() >= self.space.keys():
                return
            self._rows[trial.number] = self._history.append(self._cube.coordinates(self._internal(trial.params)))
            self._entered[trial.number] = set()
        row, known = self._rows[trial.number], self._entered[trial.number]
        self._history.set_running(row, trial.state is TrialState.RUNNING)
        for k, value in self.steps.entries(trial).items():
            if k not in known:
                known.add(k)
                self._history.enter(row, Entry(k, self._sign * value, self._history.latest))

    def _internal(self, params: Mapping[str, Any]) -> dict[str, float | int]:
        """The parameters with each choice as its index; -1, which is no choice, for one that the space lacks."""
        found = {}
        for name, distribution in self.space.items():
            value = params[name]
            if isinstance(distribution, CategoricalDistribution):
                value = int(distribution.to_internal_repr(value)) if value in distribution.choices else -1
            found[name] = value
        return found


def _parameter(distribution: BaseDistribution) -> Parameter:
    """The distribution as a parameter of ours; choices by their index, since they may be anything."""
    match distribution:
        case FloatDistribution(low=low, high=high, log=log, step=step):
            return Float(low, high, log=log, step=step)
        case IntDistribution(low=low, high=high, log=log, step=step):
            return Int(low, high, log=log, step=step)
        case CategoricalDistribution(choices=choices):
            return Categorical(tuple(range(len(choices))))
        case _:
            raise ValueError(f"{distribution} is no distribution that Optuna has")


def _external(distribution: BaseDistribution, value: Any) -> Any:
    return distribution.choices[value] if isinstance(distribution, CategoricalDistribution) else value
