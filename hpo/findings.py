"""What a search's trials say about its next: advice, each with the numbers that it rests on. Reads a study, decides nothing.

Of the search's trials only; the finals' are left out, but for the noise between runs of one configuration that they show.
Nothing is said where a claim would not be sure enough: an empty list is the usual answer to a short search.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from hpo.advice import TOLERABLE
from hpo.brief import short
from hpo.divergence import Split, diverging
from hpo.durations import span
from hpo.effects import LISTED, Idle, Lean, idle, leaning
from hpo.events import Finished
from hpo.levelling import gain, jitter
from hpo.problem import bare
from hpo.ranking import Compared, compared
from hpo.reporting import report
from hpo.results import StoredStudy
from hpo.space import Categorical, Float, Int, Parameter
from hpo.trial import State, Trial
from hpo.widening import declared_argument, widened

FEWEST_AUDITED = 5  # to change a spec by: fewer may be all there were, and then leave nothing open


class Kind(StrEnum):
    """What a finding is about."""

    EDGE = "edge"
    IRRELEVANT = "irrelevant"
    NOT_LEVELLED = "not levelled"
    DIVERGES = "diverges"
    FALSE_STOPS = "false stops"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to change: `advice` says what, in a sentence, with the change of the spec; `evidence` are the numbers behind it."""

    kind: Kind
    advice: str
    evidence: str


def findings(study: StoredStudy) -> list[Finding]:
    """What to change before the next search, as of the moment when `study` was opened; what costs most trials comes first."""
    trials = [trial for trial in study.trials if not trial.in_finals]
    found = compared(study.study.rules, trials)
    splits = diverging(study.spec.space, _trained(trials), _diverged(study), found.top)
    broken = {(split.name, split.upper) for split in splits}
    leans = [lean for lean in leaning(study.spec.space, study.spec.sampler.name, found) if (lean.name, lean.upper) not in broken]
    spoken_of = {lean.name for lean in leans} | {split.name for split in splits}
    return [
        *(_diverges(study, split) for split in splits),
        *(finding for lean in leans if (finding := _edge(study, lean))),
        *_not_levelled(study, found),
        *_false_stops(study),
        *(_irrelevant(found, one) for one in idle(study.spec.space, study.spec.sampler.name, found) if one.name not in spoken_of),
    ]


def _diverged(study: StoredStudy) -> set[int]:
    ends = [record.event for record in study.records if isinstance(record.event, Finished)]
    return {end.trial for end in ends if end.state is State.FAILED and end.rule == "metric"}


def _trained(trials: list[Trial]) -> list[Trial]:
    """Those that tell whether they diverge: they did, or they have values."""
    return [trial for trial in trials if trial.measurements or trial.state is State.FAILED]


def _edge(study: StoredStudy, lean: Lean) -> Finding | None:
    change = _further(study, lean.name, lean.upper)
    if change is None:
        return None
    where = f"{short(lean.start)} and {'above' if lean.upper else 'below'}"
    evidence = (
        f"{lean.inside} of the best {lean.of} trials have {lean.name} at {where}, where a blind draw puts {lean.share:.0%}; "
        f"in the outer third results still improve towards the edge ({_p(lean.p)} for both)"
    )
    return Finding(
        Kind.EDGE, f"widen the range of {lean.name}, whose best values lie at its {_edge_name(lean.upper)} end: {change}", evidence
    )


def _edge_name(upper: bool) -> str:
    return "upper" if upper else "lower"


def _further(study: StoredStudy, name: str, upper: bool) -> str | None:
    """The change of the spec that lets a parameter go further; None where what is legal ends there."""
    parameter, argument = study.spec.space[name], declared_argument(study.spec, name)
    assert not isinstance(parameter, Categorical)
    condition = "" if argument else f", if {study.spec.trainer.name} takes that"
    if study.spec.sampler.name in LISTED and parameter.grid is not None:
        return _further_point(name, parameter, upper, widened(_of_grid(parameter), upper, argument), condition)
    bound = widened(parameter, upper, argument)
    return None if bound is None else _bound_change(name, parameter, upper, bound) + condition


def _of_grid(parameter: Float | Int) -> Float | Int:
    """The range from the first to the last point of its grid."""
    assert parameter.grid
    if isinstance(parameter, Int):
        return Int(min(parameter.grid), max(parameter.grid), parameter.log, parameter.step)
    return Float(min(parameter.grid), max(parameter.grid), parameter.log, parameter.step)


def _further_point(name: str, parameter: Float | Int, upper: bool, value: float | None, condition: str) -> str | None:
    if value is None:
        return None
    outside = value > parameter.high if upper else value < parameter.low
    wider = f" and {_bound_change(name, parameter, upper, value)}" if outside else ""
    return f"space.{name}.grid: add {bare(value)}{wider}{condition}"


def _bound_change(name: str, parameter: Float | Int, upper: bool, bound: float) -> str:
    key, now = ("high", parameter.high) if upper else ("low", parameter.low)
    return f"space.{name}.{key}: {bare(now)} -> {bare(bound)}"


def _diverges(study: StoredStudy, split: Split) -> Finding:
    parameter, side, other = study.spec.space[split.name], *(("above", "below") if split.upper else ("below", "above"))
    assert not isinstance(parameter, Categorical)
    bound = _between(parameter, split)
    if study.spec.sampler.name in LISTED and parameter.grid is not None:
        beyond = [p for p in sorted(parameter.grid) if (p > bound if split.upper else p < bound)]
        change = f"space.{split.name}.grid: drop {', '.join(map(bare, beyond))}"
    else:
        change = _bound_change(split.name, parameter, split.upper, bound)
    evidence = (
        f"{split.diverged} of {split.beyond} trials with {split.name} {side} {bare(bound)} diverged, "
        f"{split.others} of {split.rest} {other} it ({_p(split.p)})"
    )
    return Finding(Kind.DIVERGES, f"leave out values of {split.name} {side} {bare(bound)}, where trials diverge: {change}", evidence)


def _between(parameter: Parameter, split: Split) -> float:
    """A round bound between the last value that stays allowed and the first that does not."""
    if isinstance(parameter, Float) and parameter.step is None:
        low, high = sorted((split.last, split.first))
        middle = math.sqrt(low * high) if parameter.log else (low + high) / 2
        for digits in (1, 2, 3):
            rounded = float(f"{middle:.{digits}g}")
            if (low <= rounded < high) if split.upper else (low < rounded <= high):
                return rounded
    return int(split.last) if isinstance(parameter, Int) else split.last


def _irrelevant(found: Compared, one: Idle) -> Finding:
    value = found.trials[0].params[one.name]
    written = short(value) if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
    evidence = (
        f"the best {one.of} of {one.trials} trials are spread over all its values as a blind draw is ({_p(one.spread_p)}); it explains "
        f"{one.share:.1%} of the differences between trials, no more than chance does ({_p(one.p)})"
    )
    change = f"drop space.{one.name} and set trainer.settings.{one.name}: {written}"
    return Finding(Kind.IRRELEVANT, f"{one.name} does not matter here and may be fixed: {change}", evidence)


def _not_levelled(study: StoredStudy, found: Compared) -> Iterator[Finding]:
    """Only of a search that came to its end; what it gains must exceed the noise between runs, or twice that between epochs."""
    spec, ended = study.spec, study.study.ended
    if ended is None or ended.reason not in ("budget", "time") or spec.sampler.name in LISTED:
        return
    judged = study.judged
    if judged is not None and judged.sd is not None:
        least, noise = judged.sd, f"the runs of one configuration differ by {short(judged.sd)} (sd, from the finals)"
    elif (single := jitter([m.value for m in trial.measurements] for trial in found.top)) is not None:
        least, noise = 2 * single, f"single epochs differ by {short(single)} (sd); without finals the noise between runs is not known"
    else:
        return
    more = gain(found.losses, least)
    if more is not None:
        count = round((more.factor - 1) * len(found.trials))
        gained = f"the best {spec.objective.metric} at epoch {found.epoch} is expected to gain {short(more.expected)}"
        evidence = f"from {count} more trials like these {len(found.trials)} {gained}; {noise}"
        yield Finding(Kind.NOT_LEVELLED, f"search on, it had not levelled off: {_budget(study, more.factor)}", evidence)


def _budget(study: StoredStudy, factor: float) -> str:
    """The change of the limit that ended the search."""
    budget, ended, rules = study.spec.budget, study.study.ended, study.study.rules
    if ended is not None and ended.reason == "time" and budget.time_s is not None:
        now, then = span(budget.time_s), span(budget.time_s * factor)
        return f"budget.time: {now} -> {then}"
    if rules.epoch_budget is not None and study.study.epochs >= rules.epoch_budget:
        return f"budget.epochs: {rules.epoch_budget} -> {math.ceil(rules.epoch_budget * factor)}"
    return f"budget.trials: {rules.max_trials} -> {math.ceil(rules.max_trials * factor)}"


def _false_stops(study: StoredStudy) -> Iterator[Finding]:
    found = report(study)
    stops = found.audit.stops
    if stops.rate is None or stops.known < FEWEST_AUDITED or stops.low <= TOLERABLE <= stops.high or found.advice.startswith("nothing"):
        return
    interval = f"95 % interval {stops.low:.0%} to {stops.high:.0%}"
    evidence = f"{stops.false} of {stops.known} audited stops were false ({interval}); {TOLERABLE:.0%} are tolerable"
    yield Finding(Kind.FALSE_STOPS, found.advice, evidence)


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
