"""What a spec, and the journal of a study made by it, say to the study: its rules, its sampler, its time. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hpo.events import Resumed
from hpo.journal_format import Record
from hpo.rules import Rules, Sampler
from hpo.sampling import make_sampler, points_in_all
from hpo.spec import Asha, Spec


def rules_of(spec: Spec) -> Rules:
    """The study's rules as the spec states them."""
    pruner = spec.pruner if isinstance(spec.pruner, Asha) else None
    return Rules(
        direction=spec.objective.direction,
        max_epochs=spec.max_epochs,
        max_trials=at_most(spec, spec.budget.trials),
        seed=spec.seed,
        grace_epochs=pruner.grace_epochs if pruner else 1,
        reduction_factor=pruner.factor if pruner else None,
        stopper=spec.stopper,
        retries=spec.limits.retries,
        promotes=pruner is not None and pruner.rule == "promote",
        brackets=pruner.brackets if pruner else 1,
        audit=pruner.audit if pruner else 0.0,
        epoch_budget=spec.budget.epochs,
        finalists=spec.finals.top if spec.finals else 0,
        final_seeds=spec.finals.seeds if spec.finals else 0,
    )


def sampler_of(spec: Spec) -> Sampler:
    """Where the spec's trials get their parameters from."""
    return make_sampler(spec.sampler, spec.space, spec.start, rules_of(spec))


def at_most(spec: Spec, trials: int) -> int:
    """`trials`, or as many as the sampler has points where these are fewer."""
    points = points_in_all(spec.sampler, spec.space, spec.start)
    return trials if points is None else min(trials, points)


def spent_s(records: Sequence[Record]) -> float:
    """For how many seconds the study was run: under each lease from the first line to the last."""
    spans: dict[int, list[float]] = {}
    for record in records:
        at = record.at.timestamp()
        spans.setdefault(record.lease, [at, at])[1] = at
    return sum(last - first for first, last in spans.values())


def time_limit_s(spec: Spec, records: Iterable[Record]) -> float | None:
    """The study's time budget in seconds, as the last resume that changed it left it."""
    changed = [r.event.time_s for r in records if isinstance(r.event, Resumed) and r.event.time_s is not None]
    return changed[-1] if changed else spec.budget.time_s
