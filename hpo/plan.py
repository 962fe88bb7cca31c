"""What a launch would do, before it does: trials, rungs, epochs at worst and as expected, placement. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from hpo import asha
from hpo.capacity import Capacity, Placement, place
from hpo.space import grid_size
from hpo.spec import Asha, Spec
from hpo.stopping import GeneralisationLoss, NoStopper, Patience, ProgressQuotient, Rises, Stopper, watched
from hpo.trial import Direction


@dataclass(frozen=True, slots=True)
class Plan:
    """`epochs_worst` if every trial trains to the end; `epochs_expected` if trials arrive at each rung in random order.

    `stopper` says in words when a trial ends by its own history.
    """

    name: str
    trials: int
    grid_points: int | None
    max_epochs: int
    rungs: tuple[int, ...]
    stopper: str
    epochs_worst: int
    epochs_expected: int
    time_limit_s: float | None
    placement: Placement
    there: Capacity


def plan(spec: Spec, there: Capacity) -> Plan:
    """What launching `spec` on `there` would do; CapacityError where no trial fits."""
    points = grid_size(spec.space) if spec.sampler.name == "grid" else None
    trials = spec.budget.trials if points is None else points
    pruner = spec.pruner if isinstance(spec.pruner, Asha) else None
    rungs = asha.rungs(pruner.grace_epochs, pruner.reduction_factor, spec.max_epochs) if pruner else ()
    return Plan(
        name=spec.name,
        trials=trials,
        grid_points=points,
        max_epochs=spec.max_epochs,
        rungs=rungs,
        stopper=stopper_in_words(spec.stopper),
        epochs_worst=trials * spec.max_epochs,
        epochs_expected=expected_epochs(trials, rungs, spec.max_epochs, pruner.reduction_factor if pruner else 1),
        time_limit_s=spec.budget.time_s,
        placement=place(spec.resources, there, trials),
        there=there,
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


def expected_epochs(trials: int, rungs: tuple[int, ...], max_epochs: int, reduction_factor: int) -> int:
    """Epochs of a search in which each trial's rank at a rung is as good as random.

    The n-th to arrive then goes on with probability max(1, floor(n / eta)) / n. Early stopping inside a trial is left
    out: how soon curves flatten is not known before.
    """
    alive, before, epochs = float(trials), 0, 0.0
    for rung in rungs:
        epochs += alive * (rung - before)
        before = rung
        alive = sum(max(1, n // reduction_factor) / n for n in range(1, round(alive) + 1))
    return round(epochs + alive * (max_epochs - before))
