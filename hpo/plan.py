"""What a launch would do, before it does: trials, rungs, epochs at worst and as expected, placement. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor, log
from typing import assert_never

from hpo.capacity import Capacity, Placement, place
from hpo.finals import SHARE
from hpo.rules import Rules
from hpo.sampling import points_in_all
from hpo.spec import Asha, Spec
from hpo.specified import rules_of
from hpo.stopping import GeneralisationLoss, NoStopper, Patience, ProgressQuotient, Rises, Stopper, watched
from hpo.study import FINISHERS_EVERY, FIRST_FINISHER
from hpo.trial import Direction, trial_seed

COUNTED = 10_000  # trials that are counted one by one; what many more come to follows from these
FIRST_RANDOM, LADDER_SHARES = 12, (0.4, 0.21, 0.39)  # of the ladders: random, TPE, Gaussian process


@dataclass(frozen=True, slots=True)
class Spending:
    """What is expected of a search in which each trial's rank at a rung is as good as random.

    `trials` are asked for and take `epochs`, `audit` of them because stops are audited; `complete` are trained to their end.
    """

    trials: int
    epochs: int
    complete: int
    audit: int


@dataclass(frozen=True, slots=True)
class Plan:
    """`epochs_worst` if every trial trains to the end, or to the limit of epochs; `expected` if ranks at the rungs are random.

    `rule` says what trials do at a rung (stop, promote; None: there are none), of which the best 1/`reduction_factor` go on;
    `brackets` has as many numbers as there are brackets: how many trials skip none, one, two ... of the lowest rungs.
    `stopper` says in words when a trial ends by its own history. `finals_runs` fresh runs are wanted after the search, for which it
    leaves at least `finals_epochs`; those that do not fit are left out.
    """

    name: str
    trials: int
    grid_points: int | None
    max_epochs: int
    rungs: tuple[int, ...]
    rule: str | None
    reduction_factor: int | None
    brackets: tuple[int, ...]
    audit: float
    stopper: str
    epochs_worst: int
    epochs_expected: int
    expected: Spending
    finals_runs: int
    finals_epochs: int
    epoch_limit: int | None
    time_limit_s: float | None
    placement: Placement
    there: tuple[Capacity, ...]


def plan(spec: Spec, there: Sequence[Capacity]) -> Plan:
    """What launching `spec` on `there` would do; CapacityError where no trial fits."""
    points = points_in_all(spec.sampler, spec.space, spec.start)
    rules = rules_of(spec)
    expected = expected_spending(rules, in_ladders=spec.sampler.name == "ladders")
    return Plan(
        name=spec.name,
        trials=rules.max_trials,
        grid_points=points,
        max_epochs=spec.max_epochs,
        rungs=rules.rungs,
        rule=spec.pruner.rule if isinstance(spec.pruner, Asha) else None,
        reduction_factor=rules.reduction_factor,
        brackets=tuple(_brackets(rules, rules.max_trials)),
        audit=rules.audit,
        stopper=stopper_in_words(spec.stopper),
        epochs_worst=min(rules.max_trials * spec.max_epochs, rules.epoch_budget or rules.max_trials * spec.max_epochs),
        epochs_expected=expected.epochs,
        expected=expected,
        finals_runs=(min(rules.finalists, rules.max_trials) + 1) * rules.final_seeds if rules.finalists else 0,
        finals_epochs=floor(SHARE * expected.epochs) if rules.finalists else 0,
        epoch_limit=rules.epoch_budget,
        time_limit_s=spec.budget.time_s,
        placement=place(spec.resources, there, rules.max_trials),
        there=tuple(there),
    )


def stopper_in_words(stopper: Stopper) -> str:
    """When it ends a trial."""
    loss = "/".join(watched(stopper))
    match stopper:
        case NoStopper():
            return "never"
        case Patience(epochs=epochs, min_improvement=margin, metric=metric, direction=direction):
            better = {None: "better", Direction.MAXIMIZE: "higher", Direction.MINIMIZE: "lower"}[direction]
            return f"{epochs} epochs without a {better} {metric or 'value'}" + (f" (by more than {margin:g})" if margin else "")
        case GeneralisationLoss(threshold=threshold):
            return f"{loss} more than {threshold:g} % above its lowest (GL)"
        case ProgressQuotient(threshold=threshold, strip=strip):
            return f"GL above {threshold:g} times the training progress in {strip} epochs, from {loss} (PQ)"
        case Rises(strips=strips, strip=strip):
            return f"{loss} higher than {strip} epochs before" + (f", {strips} times in a row" if strips > 1 else "") + " (UP)"
        case _:
            assert_never(stopper)


def expected_spending(rules: Rules, *, in_ladders: bool = False) -> Spending:
    """What a search takes in which each trial's rank at a rung is as good as random.

    Early stopping inside a trial is left out: how soon curves flatten is not known before. Where the epochs run out first,
    as many trials as they suffice for.
    """
    whole = _spending(rules, rules.max_trials, in_ladders=in_ladders)
    if rules.epoch_budget is None or whole.epochs <= rules.epoch_budget:
        return whole
    few, many = 1, rules.max_trials
    while few < many:
        middle = (few + many) // 2
        few, many = (few, middle) if _spending(rules, middle, in_ladders=in_ladders).epochs >= rules.epoch_budget else (middle + 1, many)
    spent = _spending(rules, few, in_ladders=in_ladders)
    return replace(spent, epochs=rules.epoch_budget, complete=min(spent.complete, rules.epoch_budget // rules.max_epochs))


def _spending(rules: Rules, trials: int, *, in_ladders: bool) -> Spending:
    ladders = _ladders(trials) if in_ladders and rules.promotes else (float(trials),)
    competing = [
        (rules.rungs[skipped:], ladder * share / max(trials, 1))
        for skipped, share in enumerate(_brackets(rules, trials))
        for ladder in ladders
    ]
    found = [_competition(rules, rungs, of) for rungs, of in competing]
    epochs, complete, audited, audit = (sum(column) for column in zip(*found, strict=True))
    if rules.promotes and rules.rungs:
        finals = max(1, ceil((epochs / rules.max_epochs - FIRST_FINISHER) / FINISHERS_EVERY))
        further = max(0.0, finals - complete)  # each takes a place at the rungs behind it, so there are more only where places are few
        furthest = max(_furthest(rules, rungs, of) for rungs, of in competing)
        epochs += further * (rules.max_epochs - furthest)
        complete += further
    return Spending(trials, round(epochs), round(complete + audited), round(audit))


def _ladders(trials: int) -> tuple[float, ...]:
    random, *models = (share * max(0, trials - FIRST_RANDOM) for share in LADDER_SHARES)
    return (min(trials, FIRST_RANDOM) + random, *models)


def _brackets(rules: Rules, trials: int) -> list[int]:
    """How many trials skip none, one, two ... of the lowest rungs; of very many the first are counted and stand for all."""
    if rules.brackets == 1:
        return [trials]
    counted = min(trials, COUNTED)
    counts = Counter(rules.bracket(trial_seed(rules.seed, number)) for number in range(counted))
    skipping = [counts[skipped] * trials // max(counted, 1) for skipped in range(rules.brackets)]
    return [trials - sum(skipping[1:]), *skipping[1:]]


def _furthest(rules: Rules, rungs: tuple[int, ...], trials: float) -> int:
    """The epoch of the highest rung that one of those that compete waits at under promotion; 0 if there is none."""
    found, alive = 0, int(trials)
    for rung in rungs:
        found, alive = (rung, alive // (rules.reduction_factor or 1)) if alive else (found, 0)
    return found


def _competition(rules: Rules, rungs: tuple[int, ...], trials: float) -> tuple[float, float, float, float]:
    """Of those that compete with each other: epochs, trials that get to the end, audited ones, and the epochs that the audit takes.

    Under the stopping form the n-th to arrive goes on with probability max(1, floor(n / eta)) / n, under promotion floor(n / eta)
    of n do. Of those that are not among the best when they come, a share is audited.
    """
    eta = rules.reduction_factor or 1
    alive, before, epochs, audited, audit = trials, 0, 0.0, 0.0, 0.0
    for rung in rungs:
        epochs += alive * (rung - before)
        before = rung
        among_best = _among_best(round(alive), eta)
        outside = rules.audit * max(0.0, alive - among_best)
        audit += outside * (rules.max_epochs - rung)
        audited += outside
        alive = float(alive // eta) if rules.promotes else among_best
    return epochs + audit + alive * (rules.max_epochs - before), alive, audited, audit


def _among_best(trials: int, eta: int) -> float:
    """The sum of max(1, floor(n / eta)) / n up to `trials`; floor(n / eta) is (n - (eta - 1) / 2) / eta in the mean."""
    counted = min(trials, COUNTED)
    first = sum(max(1, n // eta) / n for n in range(1, counted + 1))
    return first + ((trials - counted) - (eta - 1) / 2 * log(trials / counted)) / eta if trials > counted else first
