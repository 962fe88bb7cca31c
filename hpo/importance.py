"""Which hyperparameters set the best trials apart: PED-ANOVA, computed by Optuna over our trials. Reads a study, decides nothing.

Watanabe et al. 2023, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces": how much the
distribution of a parameter among the best trials differs from that among all.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, TrialState, create_trial

from hpo.events import Finished
from hpo.results import StoredStudy
from hpo.space import Categorical, Parameter, SearchSpace, Value, position
from hpo.trial import State, Trial

optuna.logging.set_verbosity(optuna.logging.ERROR)  # it announces every study that is made in memory

FEWEST = 20  # trials, of which a quarter are the best
WANTED_BEST = 10  # trials; Optuna's authors advise 5 at least
FEW_VALUES, SMALLEST_GROUP = 12, 4  # values of a number, and trials with each: then it is taken for a choice
SHUFFLES = 20  # of the values among the trials: what would be found if no parameter mattered


@dataclass(frozen=True, slots=True)
class Share:
    """A parameter's part of the importance of all, and the part that it exceeds only in one of twenty when values are shuffled."""

    parameter: str
    share: float
    by_chance: float


@dataclass(frozen=True, slots=True)
class Importance:
    """The parameters, the most important first: what sets the best `best` of `trials` trials apart.

    A parameter with one value has no share. `lacking` says why nothing is known, where that is so; then there are no shares.
    """

    shares: tuple[Share, ...]
    trials: int
    best: int
    lacking: str = ""


def importance(study: StoredStudy) -> Importance:
    """PED-ANOVA over the search's trials, each with the value of its best epoch; one that diverged counts as the worst."""
    ranked = _ranked(study)
    space = {name: parameter for name, parameter in study.spec.space.items() if _varies(parameter)}
    if len(ranked) < FEWEST:
        return Importance((), len(ranked), 0, f"importance needs at least {FEWEST} trials with a result; there are {len(ranked)}")
    if len(space) < 2:
        return Importance((), len(ranked), 0, "importance compares parameters; fewer than two of this space vary")
    quantile = min(0.25, max(0.1, WANTED_BEST / len(ranked)))
    best = math.ceil(quantile * len(ranked))
    found, *shuffled = _raw(space, ranked, quantile)
    total = sum(found.values())
    if total <= 0:
        return Importance((), len(ranked), best, "the best trials do not differ from the others in any parameter")
    chance = {name: sorted(one[name] for one in shuffled)[-2] for name in space}
    shares = [Share(name, found[name] / total, chance[name] / total) for name in space]
    return Importance(tuple(sorted(shares, key=lambda one: -one.share)), len(ranked), best)


def _ranked(study: StoredStudy) -> list[Trial]:
    """The trials that tell something, the best first: measured and sound ones, then those that diverged."""
    diverged = {r.event.trial for r in study.records if isinstance(r.event, Finished) and r.event.rule == "metric"}
    search = [trial for trial in study.trials if not trial.in_finals]
    sound = [trial for trial in search if trial.measurements and trial.state is not State.FAILED]
    return sorted(sound, key=lambda t: (study.study.loss(t), t.number)) + [t for t in search if t.number in diverged]


def _varies(parameter: Parameter) -> bool:
    return len(parameter.choices) > 1 if isinstance(parameter, Categorical) else parameter.low < parameter.high


def _raw(space: SearchSpace, ranked: Sequence[Trial], quantile: float) -> list[dict[str, float]]:
    """Each parameter's divergence, as it is, and then for each of the shufflings of the trials' values.

    Optuna is told of places on the parameters' own axes and of ranks, which are all that counts.
    """
    told = optuna.create_study(direction="minimize", storage=optuna.storages.InMemoryStorage(), study_name="importance")
    places = {name: _places(parameter, [trial.params[name] for trial in ranked]) for name, parameter in space.items()}
    distributions = {name: _distribution(found) for name, found in places.items()}
    for at in range(len(ranked)):
        params = {name: found[at] for name, found in places.items()}
        told.add_trial(create_trial(state=TrialState.COMPLETE, value=0.0, params=params, distributions=distributions))
    ranks = range(len(ranked))
    orders = [ranks, *(random.Random(f"importance/{seed}").sample(ranks, len(ranks)) for seed in range(SHUFFLES))]
    evaluator = PedAnovaImportanceEvaluator(target_quantile=quantile)
    with warnings.catch_warnings():
        # `normalize` may change, of which the tests would tell; and a target is warned of as one to be minimised, which ranks are
        warnings.simplefilter("ignore")
        return [
            dict(optuna.importance.get_param_importances(told, evaluator=evaluator, target=_rank_in(order), normalize=False))
            for order in orders
        ]


def _rank_in(order: Sequence[int]) -> Callable[[FrozenTrial], float]:
    return lambda trial: float(order[trial.number])


def _places(parameter: Parameter, values: Sequence[Value]) -> list[float] | list[int]:
    """Where the values lie on the parameter's own axis, from 0 to 1; of a grid's few values the number of each, as of a choice's."""
    found = [min(max(position(parameter, value), 0.0), 1.0) for value in values]
    points = sorted(set(found))
    if isinstance(parameter, Categorical) or (len(points) <= FEW_VALUES and len(found) >= len(points) * SMALLEST_GROUP):
        return [points.index(place) for place in found]
    return found


def _distribution(places: list[float] | list[int]) -> BaseDistribution:
    return CategoricalDistribution(sorted(set(places))) if isinstance(places[0], int) else FloatDistribution(0.0, 1.0)
