"""Optuna's samplers, told the truth: every reported value, PRUNED for the pruned, FAIL for the failed.

The Optuna study here is a view of ours, kept in memory, brought up to date before every suggestion, never stored.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Literal, assert_never

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.space import Categorical, Float, Int, Parameter, Params, SearchSpace
from hpo.trial import Direction, State, Trial, trial_seed

optuna.logging.set_verbosity(optuna.logging.WARNING)

_ENDED = {State.COMPLETE: TrialState.COMPLETE, State.PRUNED: TrialState.PRUNED, State.FAILED: TrialState.FAIL}


def distribution(parameter: Parameter) -> BaseDistribution:
    """Optuna's name for a parameter of ours."""
    match parameter:
        case Float(low, high, log=log, step=step):
            return FloatDistribution(low, high, log=log, step=step)
        case Int(low, high, log=log, step=step_i):
            return IntDistribution(low, high, log=log, step=step_i or 1)
        case Categorical(choices):
            return CategoricalDistribution(choices)
        case _:
            assert_never(parameter)


def misfits(space: SearchSpace, direction: Direction, trials: Sequence[Trial]) -> list[str]:
    """Where Optuna's view of `trials` is not what they are: states, parameters, values at every epoch."""
    found = []
    for ours, theirs in zip(trials, OptunaSampler("tpe", space, direction, 0).history(trials), strict=True):
        best = ours.best(direction)
        value = best.value if best is not None and ours.state is State.COMPLETE else None
        expected = (_ENDED.get(ours.state, TrialState.RUNNING), dict(ours.params), {m.epoch: m.value for m in ours.measurements})
        told = (theirs.state, theirs.params, theirs.intermediate_values)
        if told != expected or (value is not None and theirs.value != value):
            epochs = len(theirs.intermediate_values)
            found.append(f"trial {ours.number} is {ours.state} with {ours.epoch} epochs, Optuna has it {theirs.state.name} with {epochs}")
    return found


class OptunaSampler:
    """TPE, Gaussian process or CMA-ES over the true history.

    A sampler is made afresh for each suggestion, seeded by the study's seed and the trial's number, so that a suggestion
    is a function of the history and can be made again.
    """

    def __init__(self, name: Literal["tpe", "gp", "cmaes"], space: SearchSpace, direction: Direction, seed: int) -> None:
        self._name, self._seed, self._direction = name, seed, direction
        self.remembers = name == "cmaes"  # it keeps its state with the trials that it suggested
        self._distributions = {key: distribution(parameter) for key, parameter in space.items()}
        self._study = optuna.create_study(direction=direction.value, sampler=self._sampler(0))
        self._open: list[int] = []  # trials that Optuna holds as RUNNING
        self._asked: Params = {}
        self._reported: dict[int, int] = {}  # trial -> measurements shown to Optuna

    def suggest(self, number: int, trials: Sequence[Trial]) -> Params:
        if number == len(self._study.get_trials(deepcopy=False)) - 1:
            return self._asked  # asked twice before it was used
        self._bring_up_to_date(trials)
        self._study.sampler = self._sampler(number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna warns of every experimental class, at each use
            asked = self._study.ask(self._distributions)
        self._open.append(asked.number)
        self._asked = dict(asked.params)
        return self._asked

    def history(self, trials: Sequence[Trial]) -> list[FrozenTrial]:
        """Optuna's view of `trials`."""
        self._bring_up_to_date(trials)
        return self._study.get_trials()

    def _bring_up_to_date(self, trials: Sequence[Trial]) -> None:
        for trial in trials[len(self._study.get_trials(deepcopy=False)) :]:
            self._study.add_trial(
                create_trial(state=TrialState.RUNNING, params=dict(trial.params), distributions=dict(self._distributions))
            )
            self._open.append(trial.number)
        for number in list(self._open):
            if number < len(trials):
                self._show(trials[number])

    def _show(self, trial: Trial) -> None:
        storage, trial_id = self._study._storage, self._study.get_trials(deepcopy=False)[trial.number]._trial_id
        for measurement in trial.measurements[self._reported.get(trial.number, 0) :]:
            storage.set_trial_intermediate_value(trial_id, measurement.epoch, measurement.value)
        self._reported[trial.number] = len(trial.measurements)
        if trial.state.finished:
            best = trial.best(self._direction)
            value = best.value if best is not None and trial.state is State.COMPLETE else None
            self._study.tell(trial.number, value, state=_ENDED[trial.state])
            self._open.remove(trial.number)

    def _sampler(self, number: int) -> BaseSampler:
        seed = trial_seed(self._seed, number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            match self._name:
                case "tpe":
                    return TPESampler(seed=seed, multivariate=True, constant_liar=True)
                case "gp":
                    return GPSampler(seed=seed)
                case "cmaes":
                    return CmaEsSampler(seed=seed)
                case _:
                    assert_never(self._name)
