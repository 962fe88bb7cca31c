"""A sampler that learns, beside random points: what keeps one that early epochs mislead from stopping everything else."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from hpo.asha import share
from hpo.rules import BestFirst, Preparing, Sampler
from hpo.sampling.simple import QuasiRandomSampler
from hpo.space import Params, SearchSpace
from hpo.trial import Trial, trial_seed

RANDOM = "random"
_SHARE = 0.5  # of all trials
_FIRST = 12  # with a value, before the sampler is asked


class BesideRandom:
    """Half of the trials are points of a Sobol sequence, the others a sampler's; each half competes in a ladder of its own.

    Under pruning a sampler that trusts early epochs proposes fast starters; these take all places at the rungs, and it never
    sees its error. Here a random half has places of its own, so that what is trained on never depends on the sampler
    alone: at worst, half of the search is a random one. The first twelve trials that have a value are random ones.
    Source: Falkner et al. 2018, "BOHB", section 4.1 (a random fraction, there without ladders).
    """

    def __init__(self, name: str, sampler: Sampler, space: SearchSpace, seed: int) -> None:
        self._name, self._sampler, self._seed = name, sampler, seed
        self._random, self._first = QuasiRandomSampler(space, seed), BestFirst()
        self.remembers = sampler.remembers

    def suggest(self, number: int, trials: Sequence[Trial]) -> Params | None:
        chosen = self._random if self.ladder(number, trials) == RANDOM else self._sampler
        return chosen.suggest(number, trials)

    def prepare(self, trials: Sequence[Trial]) -> None:
        """What both can do before they are asked."""
        self._random.prepare(trials)
        if isinstance(self._sampler, Preparing):
            self._sampler.prepare(trials)

    def ladder(self, number: int, trials: Sequence[Trial]) -> str:
        """Where trial `number` competes: "random", or the sampler's name."""
        known = sum(1 for _ in islice((trial for trial in trials if trial.measurements), _FIRST))
        drawn = share(trial_seed(self._seed, number), "beside random")
        return RANDOM if known < _FIRST or drawn < _SHARE else self._name

    def choose(self, paused: Sequence[int], trials: Sequence[Trial], turn: int) -> int:
        """The best among `paused`."""
        return self._first.choose(paused, trials, turn)
