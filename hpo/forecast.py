"""What a budget will do, by searching made-up curves on a virtual clock: how trials, epochs and time are spent. Pure: no clock, no files.

It says how a search spends its budget, and whether this sampler gains anything over random points within it, if the real curves
look like most. It cannot say how good a model will be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean

from hpo.engine.simulate import Values, simulate, uncurved
from hpo.plan import expected_spending
from hpo.rules import Rules
from hpo.spec import Asha, Budget, SamplerChoice, Spec
from hpo.specified import rules_of
from hpo.stopping import NoStopper
from hpo.study import Study
from hpo.trial import Direction, State
from hpo.typical import best_possible, typical_curve

SEEDS = 5
SECONDS = 4.0  # what all searches may take together, roughly, on one core
EPOCH_S = 0.0002
SUGGESTION_S = {"ladders": 0.004, "tpe": 0.003, "cmaes": 0.003, "qmc": 0.0005}  # of others it is nothing
FEWEST_TRIALS, MOST_EPOCHS = 12, 20_000
BASELINE = Asha(rule="stop", reduction_factor=4)


@dataclass(frozen=True, slots=True)
class Spent:
    """Means over the seeds: trials `started`, that `reached` each rung, `complete` ones, `epochs`, `time` (in epochs), the best value.

    A value is between 0 and 1, higher is better, whatever the objective's own direction.
    """

    started: float
    reached: dict[int, float]
    complete: float
    epochs: float
    time: float
    best: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """The search, and random points with ASHA (stopping, eta 4) on as many epochs, on the same curves with `slots` trials at a time.

    `possible` is the best value that there is. `notes` say what was simulated otherwise than the spec has it.
    """

    seeds: int
    slots: int
    search: Spent
    random: Spent
    possible: float
    notes: tuple[str, ...]


def forecast(spec: Spec, slots: int) -> Forecast:
    """What `spec` would do with `slots` trials at a time."""
    small, notes = _affordable(spec)
    searches, randoms = [], []
    for seed in range(SEEDS):
        curve = _curve(small, seed)
        searches.append(simulate(small, curve, slots, seed))
        randoms.append(simulate(_baseline(small, searches[-1].epochs), curve, slots, seed))
    direction = spec.objective.direction
    return Forecast(
        seeds=SEEDS,
        slots=slots,
        search=_spent(searches, direction),
        random=_spent(randoms, direction),
        possible=fmean(best_possible(spec.space, seed) for seed in range(SEEDS)),
        notes=notes,
    )


def _curve(spec: Spec, seed: int) -> Values:
    rising = typical_curve(spec.space, spec.max_epochs, seed)
    if spec.objective.direction is Direction.MAXIMIZE:
        return rising
    return lambda params, trial_seed: [1 - value for value in rising(params, trial_seed)]


def _affordable(spec: Spec) -> tuple[Spec, tuple[str, ...]]:
    """The spec, smaller where simulating it would take long, and in words what is not as in the spec."""
    notes, budget = [], spec.budget
    sampler = spec.sampler
    if sampler.name == "gp":
        sampler = SamplerChoice("tpe")
        notes.append("sampler tpe in place of gp, which takes long for each suggestion")
    if budget.time_s is not None:
        notes.append("no limit of time: how long an epoch takes is not known before")
    if missing := uncurved(spec):
        notes.append(f"no stopper {spec.stopper.name}: how {' and '.join(missing)} goes is not known before")
        spec = replace(spec, stopper=NoStopper())
    rules = rules_of(spec)
    trials = _most_trials(rules, SUGGESTION_S.get(sampler.name, 0.0))
    if trials < rules.max_trials:
        notes.append(f"{trials} of {rules.max_trials} trials")
    epochs = min(budget.epochs or MOST_EPOCHS, MOST_EPOCHS)
    if epochs < min(budget.epochs or epochs + 1, spec.max_epochs * budget.trials) and epochs != budget.epochs:
        notes.append(f"at most {MOST_EPOCHS:,} epochs")
    return replace(spec, sampler=sampler, budget=Budget(min(trials, budget.trials), None, epochs)), tuple(notes)


def _most_trials(rules: Rules, suggestion_s: float) -> int:
    """How many trials may be simulated."""
    low, high = min(FEWEST_TRIALS, rules.max_trials), rules.max_trials
    while low < high:
        middle = (low + high + 1) // 2
        spent = expected_spending(replace(rules, max_trials=middle))
        fits = SEEDS * (spent.trials * suggestion_s + 2 * spent.epochs * EPOCH_S) <= SECONDS
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _baseline(spec: Spec, epochs: int) -> Spec:
    pruner = replace(BASELINE, grace_epochs=spec.pruner.grace_epochs) if isinstance(spec.pruner, Asha) else BASELINE
    return replace(spec, sampler=SamplerChoice("random"), start=(), pruner=pruner, budget=Budget(max(1, epochs), None, epochs))


def _spent(studies: list[Study], direction: Direction) -> Spent:
    rungs = studies[0].rules.rungs
    measured = [[m for trial in study.trials for m in trial.measurements] for study in studies]
    losses = [min((direction.loss(m.value) for m in found), default=0.0) for found in measured]
    return Spent(
        started=fmean(len(study.trials) for study in studies),
        reached={rung: fmean(sum(trial.epoch >= rung for trial in study.trials) for study in studies) for rung in rungs},
        complete=fmean(sum(trial.state is State.COMPLETE for trial in study.trials) for study in studies),
        epochs=fmean(study.epochs for study in studies),
        time=fmean(max((m.at or 0.0 for m in found), default=0.0) for found in measured),
        best=fmean(-loss if direction is Direction.MAXIMIZE else 1 - loss for loss in losses),
    )
