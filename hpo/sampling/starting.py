"""First points: a search begins with the points that it is given, and its sampler goes on from them."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.rules import Preparing, Promoter, Sampler
from hpo.sampling.simple import GridSampler, QuasiRandomSampler, RandomSampler, SweepSampler
from hpo.space import Params
from hpo.trial import Trial

_Counting = GridSampler | SweepSampler | RandomSampler | QuasiRandomSampler  # all that they know of the history is its length


def starting_with(points: Sequence[Params], sampler: Sampler) -> Sampler:
    """A sampler that suggests `points` first, each once and in order, then what `sampler` suggests with their results known.

    A sampler that looks at no results begins with its own first point after them: a grid is visited whole. It promotes
    where `sampler` does; there the given points compete in the ladder "random".
    """
    if not points:
        return sampler
    if isinstance(sampler, Promoter):
        return PromotingAfter(points, sampler, sampler)
    return StartingWith(points, sampler)


class StartingWith:
    """The given points, then those of another sampler."""

    def __init__(self, points: Sequence[Params], sampler: Sampler) -> None:
        self._points, self._sampler = [dict(point) for point in points], sampler
        self.remembers = sampler.remembers

    def suggest(self, number: int, trials: Sequence[Trial]) -> Params | None:
        if number < len(self._points):
            return self._points[number]
        if isinstance(self._sampler, _Counting):
            number -= len(self._points)
        return self._sampler.suggest(number, trials)

    def prepare(self, trials: Sequence[Trial]) -> None:
        """What the other sampler can do before it is asked."""
        if isinstance(self._sampler, Preparing):
            self._sampler.prepare(trials)


class PromotingAfter(StartingWith):
    """The given points, then those of a sampler that promotes."""

    def __init__(self, points: Sequence[Params], sampler: Sampler, promoter: Promoter) -> None:
        super().__init__(points, sampler)
        self._promoter = promoter

    def ladder(self, number: int, trials: Sequence[Trial]) -> str:
        """Where trial `number` competes."""
        return "random" if number < len(self._points) else self._promoter.ladder(number, trials)

    def choose(self, paused: Sequence[int], trials: Sequence[Trial], turn: int) -> int:
        """The one of `paused` that goes on next."""
        return self._promoter.choose(paused, trials, turn)
