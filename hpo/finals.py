"""The finals: who is trained again, in which order, and who is out of the race. Pure: a history in, answers out.

The search's best value is the best of many noisy ones, so it is better than the configuration. In the finals the best few are
trained again with fresh seeds, and the winner is the one whose fresh values are best on average.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from hpo.estimates import student
from hpo.space import Params
from hpo.trial import DEFAULTS, Direction, State, Trial, name_of

SHARE = 0.3  # of the search's epochs: what finals may cost at most


@dataclass(slots=True)
class Contender:
    """A configuration in the finals, its losses lower the better.

    `selected_on` is the search's loss of it (None where it was not searched), `scores` those of its complete fresh runs by number.
    `is_default`: it is the trainer's own, whether the search had tried it or not.
    """

    trial: int
    params: Params
    selected_on: float | None
    is_default: bool = False
    runs: list[Trial] = field(default_factory=list)
    scores: dict[int, float] = field(default_factory=dict)

    @property
    def losses(self) -> list[float]:
        """Of its complete fresh runs."""
        return list(self.scores.values())

    @property
    def mean(self) -> float:
        """Of its fresh runs; infinity before the first."""
        return math.fsum(self.losses) / len(self.losses) if self.losses else math.inf

    @property
    def failed(self) -> Trial | None:
        """Its first run that failed, if one did: what cannot be trained again is not to be chosen."""
        return next((run for run in self.runs if run.state is State.FAILED), None)

    @property
    def under_way(self) -> int:
        """Runs that are complete or may yet be."""
        return sum(run.state in (State.RUNNING, State.COMPLETE) for run in self.runs)


def shortlist(trials: Iterable[Trial], direction: Direction, most: int) -> list[int]:
    """The numbers of the best trials with different parameters, `most` at most, the best first; none of them failed.

    What a trial was pruned at counts as it is: it is no better than what others reached, or it would have gone on.
    """
    ranked = [
        (direction.loss(best.value), trial.number, trial.params)
        for trial in trials
        if trial.state is not State.FAILED and (best := trial.best(direction)) is not None
    ]
    chosen: list[int] = []
    seen: list[Params] = []
    for _, number, params in sorted(ranked, key=lambda entry: entry[:2]):
        if len(chosen) == most:
            break
        if params not in seen:
            seen.append(params)
            chosen.append(number)
    return chosen


def contenders(
    trials: Sequence[Trial], finals: Sequence[Trial], nominated: Sequence[int], defaults: Params | None, direction: Direction
) -> list[Contender]:
    """Those who are in the finals, in the order of their nomination, the trainer's defaults last."""
    found = {}
    for number in nominated:
        best = trials[number].best(direction)
        params, selected_on = trials[number].params, None if best is None else direction.loss(best.value)
        found[number] = Contender(number, params, selected_on, is_default=params == defaults)
    if defaults is not None and not any(contender.is_default for contender in found.values()):
        found[DEFAULTS] = Contender(DEFAULTS, defaults, None, is_default=True)
    for run in finals:
        if run.replicates in found:
            contender, best = found[run.replicates], run.best(direction)
            contender.runs.append(run)
            if run.state is State.COMPLETE and best is not None:
                contender.scores[run.number] = direction.loss(best.value)
    return list(found.values())


def spread(field: Iterable[Contender], *, with_search: bool) -> tuple[float, int]:
    """The standard deviation of one configuration's runs, pooled over the `field`, and its degrees of freedom (0: not known).

    With the search's values it is known after one fresh run already, and rather too large, because these were selected.
    """
    squares, freedom = 0.0, 0
    for contender in field:
        values = contender.losses
        if with_search and contender.selected_on is not None and values:
            values.append(contender.selected_on)
        if len(values) > 1:
            mean = math.fsum(values) / len(values)
            squares += math.fsum((value - mean) ** 2 for value in values)
            freedom += len(values) - 1
    return (math.sqrt(squares / freedom) if freedom else math.nan), freedom


def why_out(contender: Contender, field: Sequence[Contender], seeds: int) -> str:
    """Why it can no longer win; empty if it may.

    The racing rule: it is out when the leader's mean would stay ahead even if each run that is still to come were worse for the
    leader and better for it by t standard deviations of one configuration's runs, t being the 97.5 % quantile of
    Student's distribution with the degrees of freedom that this deviation has. One whose fresh run failed is out, too.
    """
    if contender.failed:
        return f"{name_of(contender.failed.number)}, a run of it, failed: {contender.failed.reason}"
    leader = min((one for one in field if one.losses and not one.failed), key=lambda one: one.mean, default=None)
    deviation, freedom = spread(field, with_search=True)
    if leader is None or leader is contender or not contender.losses or not freedom:
        return ""
    reach = student(freedom) * deviation
    worst, best = _at_the_end(leader, seeds, reach), _at_the_end(contender, seeds, -reach)
    if best <= worst:
        return ""
    return f"its mean of {len(contender.losses)} would stay behind even with {reach:.3g} of luck in each run to come"


def _at_the_end(contender: Contender, seeds: int, luck: float) -> float:
    """Its mean after all its runs, if those to come are off its mean by `luck`."""
    to_come = max(0, seeds - len(contender.losses))
    return contender.mean + luck * to_come / max(seeds, len(contender.losses))


def next_run(field: Sequence[Contender], seeds: int, runs_left: int) -> Contender | None:
    """Whose run begins now, where at least `runs_left` more fit; None where nobody's may.

    A configuration enters, in the order of nomination, if there is room for all its runs beside those that the others who entered
    still have to come: two runs of one tell more than one run of each of two, of which the luckier would be chosen again. The first one
    enters in any case. All first runs come before the second ones, and then the leader's next. The trainer's defaults get what is left.
    """
    alive = [one for one in field if not why_out(one, field, seeds)]
    entered = [one for one in alive if one.under_way and one.trial != DEFAULTS]
    owed = sum(max(0, seeds - one.under_way) for one in entered)
    newcomer = next((one for one in alive if not one.under_way and one.trial != DEFAULTS), None)
    if newcomer is not None and runs_left >= (owed + seeds if entered else 1):
        return newcomer
    if waiting := [one for one in entered if one.under_way < seeds]:
        return min(waiting, key=lambda one: (one.under_way, one.mean))
    return next((one for one in alive if one.trial == DEFAULTS and one.under_way < seeds), None)
