"""What the finals say: the finalists' replicated values, who won, who cannot be told apart from the winner. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hpo.estimates import student
from hpo.finals import Contender, spread, why_out
from hpo.space import Params, Value
from hpo.trial import Direction


@dataclass(frozen=True, slots=True)
class Finalist:
    """A configuration that was trained again with fresh seeds.

    `trial` is the search's trial, DEFAULTS for the trainer's own configuration. `selected_on` is the value that the search chose it
    by, an optimistic one (None for the defaults); `values` are those of its fresh runs that were trained to their end, each the best
    epoch's on the validation data; `mean` is theirs, with the 95 % interval `low` to `high` where runs enough tell its width.
    `runs` are the numbers of all its fresh runs. `out` says why it was given up, if it was. `is_default`: it is the trainer's own,
    whether the search had tried it or not.
    """

    trial: int
    params: Params
    selected_on: float | None
    runs: tuple[int, ...]
    values: tuple[float, ...]
    mean: float | None
    low: float | None
    high: float | None
    out: str = ""
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class Judgement:
    """The finals of a study: the finalists, the best first, and what they say of the winner, the first.

    `champion` is the number of the winner's run with the median value. `sd` is that of one configuration's runs, pooled over the
    finalists, with its degrees of freedom. `gap` is by how much the search's value of the winner was better than its mean.
    `not_told_apart` are the trials whose means might as well be ahead (95 %); `beats_defaults` None: not known, or not told apart.
    """

    finalists: tuple[Finalist, ...]
    champion: int
    sd: float | None
    freedom: int
    gap: float | None
    not_told_apart: tuple[int, ...]
    beats_defaults: bool | None

    @property
    def winner(self) -> Finalist:
        return self.finalists[0]

    @property
    def detail(self) -> dict[str, Value]:
        """What the choice rests on, as the journal keeps it; what is not known is left out."""
        winner = self.winner
        found: dict[str, Value | None] = {
            "runs": len(winner.values),
            "mean": winner.mean,
            "sd": self.sd,
            "freedom": self.freedom,
            "low": winner.low,
            "high": winner.high,
            "selected_on": winner.selected_on,
            "gap": self.gap,
            "not_told_apart": " ".join(map(str, self.not_told_apart)),
            "beats_defaults": self.beats_defaults,
        }
        return {name: value for name, value in found.items() if value is not None}


def judge(field: Sequence[Contender], direction: Direction, seeds: int) -> Judgement | None:
    """The judgement on the `field` as it stands; None while none of them has a fresh value.

    The winner has the best mean of its fresh values, the earlier nominated of equals; of an even number of runs the worse of the two
    in the middle is the median. Intervals are Student's, with the pooled deviation; where the fresh runs are too few to know it, or all
    the same, the search's values are added, which make it rather too large. Others are not told apart from the winner if zero
    lies in the interval of the difference, or nothing is known of the deviation.
    """
    ranked = sorted(field, key=lambda one: (one.failed is not None, one.mean))
    winner = ranked[0] if ranked else None
    if winner is None or not winner.losses or winner.failed:
        return None
    sd, freedom = spread(field, with_search=False)
    if freedom < 2 or not sd:
        sd, freedom = spread(field, with_search=True)
    by_value = sorted((loss, number) for number, loss in winner.scores.items())
    others = [one for one in ranked[1:] if one.losses and not one.failed]
    close = [one.trial for one in others if not _apart(winner, one, sd, freedom)]
    against = next((one for one in ranked if one.is_default and one is not winner), None)
    selected = winner.selected_on
    return Judgement(
        finalists=tuple(_finalist(one, direction, _out(one, field, seeds), (sd, freedom)) for one in ranked),
        champion=by_value[len(by_value) // 2][1],
        sd=sd if freedom else None,
        freedom=freedom,
        gap=None if selected is None else winner.mean - selected,
        not_told_apart=tuple(close),
        beats_defaults=_beats(winner, against, close),
    )


def _out(one: Contender, field: Sequence[Contender], seeds: int) -> str:
    """Why it was given up before it had all its runs; empty if it was not."""
    return why_out(one, field, seeds) if one.failed or len(one.losses) < seeds else ""


def _beats(winner: Contender, defaults: Contender | None, close: Sequence[int]) -> bool | None:
    if winner.is_default:
        return False
    if defaults is None or defaults.trial in close:
        return None
    return True if defaults.losses or defaults.failed else None


def _apart(winner: Contender, other: Contender, sd: float, freedom: int) -> bool:
    """Whether the difference of their means is more than chance makes of it in 95 %."""
    if freedom < 2 or not sd:
        return False
    width = student(freedom) * sd * math.sqrt(1 / len(winner.losses) + 1 / len(other.losses))
    return other.mean - winner.mean > width


def _finalist(one: Contender, direction: Direction, out: str, deviation: tuple[float, int]) -> Finalist:
    sd, freedom = deviation
    width = student(freedom) * sd / math.sqrt(len(one.losses)) if freedom and one.losses else None
    ends = None if width is None else sorted(direction.loss(one.mean + side * width) for side in (-1, 1))
    return Finalist(
        trial=one.trial,
        params=one.params,
        selected_on=None if one.selected_on is None else direction.loss(one.selected_on),
        runs=tuple(run.number for run in one.runs),
        values=tuple(map(direction.loss, one.losses)),
        mean=direction.loss(one.mean) if one.losses else None,
        low=ends[0] if ends else None,
        high=ends[1] if ends else None,
        out=out,
        is_default=one.is_default,
    )
