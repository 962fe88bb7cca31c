"""Optuna's samplers, told the truth: every reported value, PRUNED for the pruned, FAIL for the failed.

The Optuna study here is a view of ours, kept in memory, brought up to date before every suggestion, never stored.
"""

from __future__ import annotations

import copy
import math
import warnings
from bisect import bisect_left, bisect_right
from collections.abc import Container, Mapping, Sequence
from statistics import NormalDist
from typing import Any, Literal, assert_never

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.space import Categorical, Float, Int, Parameter, Params, SearchSpace
from hpo.trial import Direction, State, Trial, trial_seed

optuna.logging.set_verbosity(optuna.logging.ERROR)  # what it warns of is settled here: which sampler draws what, and how fast

_LARGEST = 1e150  # the squares of larger values, and with them a variance, are no numbers
OptunaName = Literal["tpe", "gp", "cmaes"]


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


def told(trial: Trial, direction: Direction) -> tuple[TrialState, float | None]:
    """What Optuna calls a trial's state, and the value that it has there.

    One that the study's end cut short before its first epoch is FAIL, which says nothing: of a PRUNED one without a value
    Optuna would learn that its parameters are bad.
    COMPLETE has the value of its best epoch. PRUNED has that of its last, as `optuna.Study.tell` would have it; so has a
    paused trial, which stands where a pruned one does until it goes on. RUNNING and FAIL have none.
    """
    if trial.is_untried:
        return TrialState.FAIL, None
    match trial.state:
        case State.RUNNING:
            return TrialState.RUNNING, None
        case State.PAUSED | State.PRUNED:
            return TrialState.PRUNED, trial.measurements[-1].value
        case State.COMPLETE:
            best = trial.best(direction)
            return TrialState.COMPLETE, None if best is None else best.value
        case State.FAILED:
            return TrialState.FAIL, None
        case _:
            assert_never(trial.state)


def misfits(space: SearchSpace, direction: Direction, trials: Sequence[Trial]) -> list[str]:
    """Where Optuna's view of `trials` is not what they are: states, parameters, values at every epoch."""
    found = []
    for ours, theirs in zip(trials, OptunaSampler("tpe", space, direction, 0).history(trials), strict=True):
        expected = (*told(ours, direction), dict(ours.params), {m.epoch: m.value for m in ours.measurements})
        if (theirs.state, theirs.value, theirs.params, theirs.intermediate_values) != expected:
            epochs = len(theirs.intermediate_values)
            found.append(f"trial {ours.number} is {ours.state} with {ours.epoch} epochs, Optuna has it {theirs.state.name} with {epochs}")
    return found


class OptunaSampler:
    """TPE, Gaussian process or CMA-ES over the true history.

    A sampler is made afresh for each suggestion, seeded by the study's seed and the trial's number, so that a suggestion
    is a function of the history and can be made again.

    Under pruning `tpe` learns from all trials that ended or wait (complete ones first, then by last epoch and value), `gp` from
    the ranks of the same order, `cmaes` from complete trials alone: with pruned ones among its generations it did worse
    (regret .23 instead of .20 after 30 full trainings). Alone, each trusts early epochs too much: see `BesideRandom`.
    A suggestion over seven parameters takes `tpe` 2.7, 14 to 16 and 60 ms at 100, 1,000 and 5,000 trials under pruning on one core
    (`benchmarks.suggestions`), `cmaes` 2 to 12, and some 400 once, to learn of 5,000 trials; `gp`, with its random half, 20 to 70
    on average.
    """

    def __init__(self, name: OptunaName, space: SearchSpace, direction: Direction, seed: int) -> None:
        self._name, self._seed, self._direction = name, seed, direction
        self.remembers = name == "cmaes"  # it keeps its state with the trials that it suggested
        self._distributions = {key: distribution(parameter) for key, parameter in space.items()}
        self._view = _View()
        self._study = optuna.create_study(storage=self._view, direction=direction.value)
        self._unfinished: dict[int, tuple[State, int]] = {}  # trial -> its state and epochs as they were shown
        self._untried: set[int] = set()
        self._asked: FrozenTrial | None = None  # the latest suggestion, with what the sampler noted about it

    def suggest(self, number: int, trials: Sequence[Trial]) -> Params:
        self._bring_up_to_date(trials)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna warns of every experimental class, at each use
            self._study.sampler = _OverAll(self._sampler(number), self._distributions)
            self._study.ask(self._distributions)
        self._asked = self._view.take_last()
        return dict(self._asked.params)

    def prepare(self, trials: Sequence[Trial]) -> None:
        """Show Optuna the trials as they stand. All else it does anew for each suggestion."""
        self._bring_up_to_date(trials)

    def history(self, trials: Sequence[Trial]) -> list[FrozenTrial]:
        """Optuna's view of `trials`."""
        self._bring_up_to_date(trials)
        return self._study.get_trials()

    def _bring_up_to_date(self, trials: Sequence[Trial]) -> None:
        """Look at new and unfinished trials alone: nothing else changes."""
        for trial in trials[self._view.size :]:
            notes = self._asked.system_attrs if self._asked is not None and self._asked.number == trial.number else {}
            self._study.add_trial(
                create_trial(
                    state=TrialState.RUNNING, params=dict(trial.params), distributions=dict(self._distributions), system_attrs=dict(notes)
                )
            )
            self._unfinished[trial.number] = (State.RUNNING, 0)
        for number, shown in list(self._unfinished.items()):
            trial = trials[number]
            if (now := (trial.state, len(trial.measurements))) != shown:
                self._view.show(number, *told(trial, self._direction), {m.epoch: m.value for m in trial.measurements[shown[1] :]})
                self._unfinished[number] = now
            if trial.state.finished:
                del self._unfinished[number]
            if trial.is_untried:
                self._untried.add(number)

    def _sampler(self, number: int) -> BaseSampler:
        seed = trial_seed(self._seed, number)
        match self._name:
            case "tpe":
                return TPESampler(seed=seed, multivariate=False, constant_liar=True)
            case "gp":
                return _RankedGp(seed, self._direction, self._untried)
            case "cmaes":
                others = TPESampler(seed=seed, multivariate=True, constant_liar=True)  # a choice has no place on an axis
                return CmaEsSampler(seed=seed, independent_sampler=others, warn_independent_sampling=False)
            case _:
                assert_never(self._name)


class _View(InMemoryStorage):
    """Optuna's trials of one study, which change as ours do; Optuna itself lets no finished trial change.

    That serves optimisation loops of Optuna's own. Its samplers read the trials anew for each suggestion.
    """

    _STUDY = 0

    @property
    def size(self) -> int:
        return len(self._studies[self._STUDY].trials)

    def show(self, number: int, state: TrialState, value: float | None, further: Mapping[int, float]) -> None:
        """Trial `number` as it is by now, with what it reported since; what a sampler noted about it stays."""
        trial = copy.copy(self._studies[self._STUDY].trials[number])
        trial.state, trial.value = state, value
        trial.intermediate_values = {**trial.intermediate_values, **further}
        trial.datetime_complete = trial.datetime_start if state.is_finished() else None
        self._set_trial(trial._trial_id, trial)
        self._update_cache(trial._trial_id, self._STUDY)  # the best trial: only COMPLETE ones count, and none leaves COMPLETE

    def take_last(self) -> FrozenTrial:
        """The latest trial, which is no longer among the others."""
        trial = self._studies[self._STUDY].trials.pop()
        del self._trial_id_to_study_id_and_number[trial._trial_id]
        return trial


def _rank(trial: FrozenTrial, direction: Direction) -> tuple[float, float]:
    """Sorts the better first, as Optuna's TPE does: complete by value, then pruned by last epoch and value, then failed."""
    if trial.value is None:
        return math.inf, 0.0
    epochs = math.inf if trial.state is TrialState.COMPLETE else max(trial.intermediate_values)
    return -epochs, direction.loss(trial.value)


class _RankedGp(GPSampler):
    """Optuna's Gaussian process; once a trial was pruned, or measured what has no square, over the ranks of all that ended.

    Optuna's own learns from COMPLETE trials alone, of which pruning leaves one in twenty, and draws at random until there are
    ten; one over the few that reached a late epoch would never learn where the others failed. The ranks are those of `_rank`,
    turned into quantiles of a normal distribution. Of many trials the best and an even choice of the others are enough.
    """

    _FIRST, _MOST = 10, 200

    def __init__(self, seed: int, direction: Direction, untried: Container[int]) -> None:
        super().__init__(seed=seed, n_startup_trials=0, warn_independent_sampling=False)
        self._turned, self._untried = direction, untried
        self._n_preliminary_samples, self._n_local_search = 512, 3  # a third of the time

    def _sample_relative_impl(
        self,
        study: optuna.Study,
        completed_trials: list[FrozenTrial],
        running_trials: list[FrozenTrial],
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        ended = [t for t in study.get_trials(deepcopy=False) if t.state.is_finished() and t.number not in self._untried]
        by_rank = any(t.state is TrialState.PRUNED or abs(t.value or 0.0) > _LARGEST for t in ended)
        known = self._ranked(ended) if by_rank else completed_trials
        if len(known) < self._FIRST:
            return {}
        return super()._sample_relative_impl(study, known, running_trials, search_space)

    def _ranked(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Copies of at most _MOST of the trials, the better first, each with the quantile of its rank for a value."""
        known = sorted(map(copy.copy, trials), key=lambda trial: _rank(trial, self._turned))
        order = [_rank(trial, self._turned) for trial in known]
        for trial, rank in zip(known, order, strict=True):
            middle = (bisect_left(order, rank) + bisect_right(order, rank)) / 2
            trial.value = self._turned.loss(NormalDist().inv_cdf(middle / len(known)))
        best, others = known[: self._MOST // 2], known[self._MOST // 2 :]
        every = max(1, math.ceil(len(others) / (self._MOST // 2)))
        return best + others[::every]


class _OverAll(BaseSampler):
    """A sampler that is told which parameters there are, where it would gather them from all that completed.

    TPE draws each by itself: jointly, its regret after 100 full trainings was .228 instead of .137 (13 recorded tasks).
    """

    def __init__(self, sampler: BaseSampler, distributions: Mapping[str, BaseDistribution]) -> None:
        self._sampler = sampler
        jointly = () if isinstance(sampler, TPESampler) else (FloatDistribution, IntDistribution)
        if isinstance(sampler, GPSampler):
            jointly = (*jointly, CategoricalDistribution)
        self._relative: dict[str, BaseDistribution] = {
            name: d for name, d in distributions.items() if isinstance(d, jointly) and not d.single()
        }

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:  # noqa: ARG002
        return self._relative

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)
