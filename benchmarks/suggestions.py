"""What a suggestion costs at 100, 1,000 and 5,000 trials: python -m benchmarks.suggestions [--samplers NAME ...]

Seven parameters, trials of a simulated search under promotion. Each sampler first catches up with the history (as after a
resume), then is asked for the next trials one by one, with one more trial known each time. Milliseconds, one core.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import dataclass

from hpo import simulate
from hpo.rules import Promoter
from hpo.spec import Spec, spec_from_dict
from hpo.specified import sampler_of
from hpo.trial import Trial
from hpo.typical import typical_curve

SIZES = (100, 1_000, 5_000)
SAMPLERS = ("ladders", "tpe", "cmaes", "gp", "qmc", "random")
ASKED = 30


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds: of the first suggestion, which catches up, and of later ones; of a promotion, where the sampler chooses."""

    first: float
    mean: float
    worst: float
    promotion: float | None


def spec_of(sampler: str, trials: int) -> Spec:
    """A search over seven parameters."""
    unit = {"type": "float", "low": 0.0, "high": 1.0}
    return spec_from_dict(
        {
            "name": "suggestions",
            "trainer": {"name": "simulated", "settings": {"max_epochs": 51}},
            "objective": {"metric": "value", "direction": "maximize"},
            "space": {f"x{i}": unit for i in range(7)},
            "sampler": {"name": sampler},
            "pruner": {"name": "asha", "rule": "promote", "reduction_factor": 4},
            "budget": {"trials": trials},
        }
    )


def cost(sampler: str, trials: list[Trial]) -> Cost:
    """What the sampler's suggestions cost behind these trials, the last of which it gets to know one by one."""
    asked = sampler_of(spec_of(sampler, len(trials) + 1))
    taken = []
    for known in range(len(trials) - ASKED, len(trials) + 1):
        began = time.perf_counter()
        asked.suggest(known, trials[:known])
        taken.append(1000 * (time.perf_counter() - began))
    promotion = None
    if isinstance(asked, Promoter):
        waiting = [trial for trial in trials if trial.epoch == 1 and trial.ladder == trials[-1].ladder]
        began = time.perf_counter()
        asked.choose(waiting, trials, 0)
        promotion = 1000 * (time.perf_counter() - began)
    return Cost(taken[0], statistics.fmean(taken[1:]), max(taken[1:]), promotion)


def main() -> None:
    """Print a line for each sampler and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=SAMPLERS)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    history = spec_of("ladders", SIZES[-1])
    trials = simulate(history, typical_curve(history.space, 51), workers=4).trials
    print(f"{'sampler':10}{'trials':>8}{'first':>10}{'mean':>10}{'worst':>10}{'promotion':>11}   ms")
    for sampler in options.samplers:
        for size in SIZES:
            found = cost(sampler, trials[:size])
            promotion = "" if found.promotion is None else f"{found.promotion:.1f}"
            print(f"{sampler:10}{size:8}{found.first:10.1f}{found.mean:10.1f}{found.worst:10.1f}{promotion:>11}", flush=True)


if __name__ == "__main__":
    main()
