"""What a launch would do, before it does: trials, rungs, epochs at worst and as expected, placement. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hpo import asha
from hpo.capacity import Capacity, Placement, place
from hpo.space import grid_size
from hpo.spec import Asha, Spec


@dataclass(frozen=True, slots=True)
class Plan:
    """`epochs_worst` if every trial trains to the end; `epochs_expected` if trials arrive at each rung in random order."""

    name: str
    trials: int
    grid_points: int | None
    max_epochs: int
    rungs: tuple[int, ...]
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
        epochs_worst=trials * spec.max_epochs,
        epochs_expected=expected_epochs(trials, rungs, spec.max_epochs, pruner.reduction_factor if pruner else 1),
        time_limit_s=spec.budget.time_s,
        placement=place(spec.resources, there, trials),
        there=there,
    )


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
