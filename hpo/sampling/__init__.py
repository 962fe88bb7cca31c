"""Where trial parameters come from: grid, random, quasi-random, and what Optuna does best."""

from __future__ import annotations

from typing import Literal, assert_never

from hpo.sampling.simple import GridSampler, QuasiRandomSampler, RandomSampler
from hpo.space import SearchSpace
from hpo.study import Sampler
from hpo.trial import Direction

SamplerName = Literal["grid", "random", "tpe", "gp", "cmaes", "qmc"]


def make_sampler(name: SamplerName, space: SearchSpace, direction: Direction, seed: int) -> Sampler:
    """The sampler of that name over `space`; its suggestions depend on the history and `seed` alone."""
    match name:
        case "grid":
            return GridSampler(space)
        case "random":
            return RandomSampler(space, seed)
        case "qmc":
            return QuasiRandomSampler(space, seed)
        case "tpe" | "gp" | "cmaes":
            from hpo.sampling.with_optuna import OptunaSampler

            return OptunaSampler(name, space, direction, seed)
        case _:
            assert_never(name)
