"""What a suggestion costs at 100, 1,000 and 5,000 trials: python -m benchmarks.suggestions [--samplers NAME ...]

Seven parameters, trials of a simulated search under promotion. Each sampler first catches up with the history (as after a
resume), then is asked for the next trials one by one, with one more trial known each time: unprepared, and prepared while the workers
were busy (`Session.prepare`), which takes the time under `before`. Milliseconds of CPU time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from hpo import simulate
from hpo.rules import Preparing, Promoter
from hpo.spec import Spec, spec_from_dict
from hpo.specified import sampler_of
from hpo.trial import Trial
from hpo.typical import typical_curve

SIZES = (100, 1_000, 5_000)
SAMPLERS = ("ladders", "tpe", "cmaes", "gp", "qmc", "random")
ASKED = 30


@dataclass(frozen=True, slots=True)
class Cost:
    """Milliseconds: of the first suggestion, which catches up, and of later ones; of what was done before these were asked for."""

    first: float
    mean: float
    worst: float
    before: float


def spec_of(sampler: str, trials: int, **sections: dict[str, Any]) -> Spec:
    """A search over seven parameters, by promotion unless `sections` say otherwise."""
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
        | sections
    )


def cost(sampler: str, trials: list[Trial], *, prepared: bool) -> Cost:
    """What the sampler's suggestions cost behind these trials, the last of which it gets to know one by one.

    If it is `prepared` it knows all but the latest trial of each when it is asked, as after a moment in which all workers were busy.
    """
    asked = sampler_of(spec_of(sampler, len(trials) + 1))
    taken, before = [], []
    for known in range(len(trials) - ASKED, len(trials) + 1):
        if prepared and isinstance(asked, Preparing):
            before.append(spent(partial(asked.prepare, trials[: known - 1])))
        taken.append(spent(partial(asked.suggest, known, trials[:known])))
    return Cost(taken[0], statistics.fmean(taken[1:]), max(taken[1:]), statistics.fmean(before[1:]) if before else 0.0)


def promotion(sampler: str, trials: list[Trial]) -> float | None:
    """Milliseconds of a choice among those that wait, by a sampler that knows these trials; None where it has no choice."""
    asked = sampler_of(spec_of(sampler, len(trials) + 1))
    if not isinstance(asked, Promoter):
        return None
    asked.suggest(len(trials), trials)
    waiting = [trial.number for trial in trials if trial.epoch == 1 and trial.ladder == trials[-1].ladder]
    choices = [partial(asked.choose, waiting, trials, turn) for turn in range(ASKED)]
    return statistics.fmean(spent(choice) for choice in choices)


def spent(call: Callable[[], object]) -> float:
    """The milliseconds of CPU time that a call takes."""
    began = time.process_time()
    call()
    return 1000 * (time.process_time() - began)


def main() -> None:
    """Print a line for each sampler and size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=SAMPLERS)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    history = spec_of("ladders", SIZES[-1])
    trials = simulate(history, typical_curve(history.space, 51), workers=4).trials
    print(f"{'':18}{'unprepared':^30}{'prepared':^40}")
    print(f"{'sampler':10}{'trials':>8}" + f"{'first':>10}{'mean':>10}{'worst':>10}" * 2 + f"{'before':>10}{'promotion':>11}   ms")
    for sampler in options.samplers:
        for size in SIZES:
            alone, found = (cost(sampler, trials[:size], prepared=prepared) for prepared in (False, True))
            costs = (alone.first, alone.mean, alone.worst, found.first, found.mean, found.worst, found.before)
            choice = promotion(sampler, trials[:size])
            print(f"{sampler:10}{size:8}" + "".join(f"{ms:10.1f}" for ms in costs) + (f"{choice:11.1f}" if choice else ""), flush=True)


if __name__ == "__main__":
    main()
