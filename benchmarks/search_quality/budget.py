"""What the searches reach at a spec's own budget, on its recorded curves: python -m benchmarks.search_quality.budget [--seeds 120]

The task is that of search_spaces/fashion.yaml, with its epochs and the two workers of a laptop; all arms get the same seeds.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from benchmarks import curves
from benchmarks.curves import Scale
from benchmarks.search_quality.arms import simulated
from benchmarks.search_quality.progress import Progress, regret_at
from hpo.spec import load_spec

WORKERS = 2
STOP: dict[str, Any] = {"name": "asha", "rule": "stop", "reduction_factor": 3}
PROMOTE: dict[str, Any] = {"name": "asha", "rule": "promote", "reduction_factor": 4}
SETTINGS = {
    "ladders, promoted, eta 4": ("auto", PROMOTE),
    "tpe, stopped, eta 3": ("tpe", STOP),
    "random, stopped, eta 3": ("random", STOP),
    "tpe, not pruned": ("tpe", {"name": "none"}),
}


def main() -> None:
    """Print the mean regret of the best value seen and of the best full training, a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=120)
    seeds = parser.parse_args().seeds
    budget = load_spec("search_spaces/fashion.yaml").budget.epochs
    assert budget is not None
    (table,) = curves.load(curves.OWN / "fashion.npz")
    scale = Scale.of(table)
    print(f"{budget} epochs, {WORKERS} workers, {seeds} seeds: mean regret of the best value seen, of the best full training")
    for name, (sampler, pruner) in SETTINGS.items():
        search = simulated(sampler, pruner)
        found = [Progress.of(search(table, WORKERS, seed, budget), table.direction, table.max_epochs) for seed in range(seeds)]
        seen, full = (
            statistics.fmean(regret_at(steps, scale, budget) for steps in kind)
            for kind in zip(*((p.seen, p.full) for p in found), strict=True)
        )
        print(f"{name:28}{seen:8.3f}{full:8.3f}", flush=True)


if __name__ == "__main__":
    main()
