"""What the finals say: the finalists' replicated values, who won, who cannot be told apart from the winner. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from hpo.space import Params


@dataclass(frozen=True, slots=True)
class Finalist:
    """A configuration that was trained again with fresh seeds.

    `trial` is the search's trial, DEFAULTS for the trainer's own configuration. `selected_on` is the value that the search chose it
    by, an optimistic one (None for the defaults); `values` are those of its fresh runs that were trained to their end, each the best
    epoch's on the validation data; `mean` is theirs, with the 95 % interval `low` to `high` where runs enough tell its width.
    `runs` are the numbers of all its fresh runs. `out` says why it was given up, if it was.
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
