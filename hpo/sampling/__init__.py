"""Where trial parameters come from: grids, random and quasi-random points, ladders, and what Optuna does best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from hpo.rules import Rules, Sampler
from hpo.sampling.beside import BesideRandom
from hpo.sampling.simple import GridSampler, QuasiRandomSampler, RandomSampler, SweepSampler, sweep_size
from hpo.sampling.starting import starting_with
from hpo.sections import SamplerChoice
from hpo.space import Params, SearchSpace, grid_size

HISTORY_IN_OPTUNA = ("tpe", "gp", "cmaes")


def make_sampler(choice: SamplerChoice, space: SearchSpace, start: Sequence[Params], rules: Rules) -> Sampler:
    """The sampler that is chosen, over `space`; its suggestions depend on the history and the rules' seed alone.

    It begins with the points of `start`; a sweep goes around the first of them.
    """
    if choice.name == "sweep":
        return SweepSampler(space, start[0] if start else {})
    return starting_with(start, _by_name(choice, space, rules))


def points_in_all(choice: SamplerChoice, space: SearchSpace, start: Sequence[Params]) -> int | None:
    """How many points the sampler has; None where there is no end of them."""
    match choice.name:
        case "grid":
            return grid_size(space)
        case "sweep":
            return sweep_size(space, start[0] if start else {})
        case _:
            return None


def _by_name(choice: SamplerChoice, space: SearchSpace, rules: Rules) -> Sampler:
    match choice.name:
        case "grid" | "sweep":
            return GridSampler(space, rules.seed if choice.shuffle else None)
        case "random":
            return RandomSampler(space, rules.seed)
        case "qmc":
            return QuasiRandomSampler(space, rules.seed)
        case "auto" | "ladders":
            from hpo.sampling.ladders import LaddersSampler

            return LaddersSampler(space, rules.direction, rules.seed, rules.rungs, rules.max_epochs)
        case "tpe" | "gp" | "cmaes":
            from hpo.sampling.with_optuna import OptunaSampler

            sampler = OptunaSampler(choice.name, space, rules.direction, rules.seed)
            return BesideRandom(choice.name, sampler, space, rules.seed) if rules.rungs else sampler
        case _:
            assert_never(choice.name)
