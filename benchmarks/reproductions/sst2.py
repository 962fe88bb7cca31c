"""Table 3: logistic regression on bags of Porter stems, SST-2's phrases to train and its dev sentences to validate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from benchmarks.reproductions.runs import Alone, Followed, followed, mean_sd, outcomes, table
from trainers import datasets, loop, seeds
from trainers.perceptron import Mlp, write_gradient
from trainers.recipe import Recipe, Source

STEMS = 11_076
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "2 epochs": (".812, .814", {}),
    "2 epochs, L2 (0.001 times the mean squared weight)": (".822, .817", {"weight_decay": 2 * 0.001 / STEMS}),
    "dev every 500 steps, patience 3, best": (".827 (step 3500)", {"report_every": 500}),
}
Job = tuple[str, int]


def train(job: Job) -> Followed:
    row, seed = ROWS[job[0]][1], job[1]
    split = datasets.load(Source(dataset="sst2"))
    every = row.get("report_every")
    trial = Alone(seed, math.ceil(2 * len(split.train) / 16 / every) if every else 2)
    with seeds.seeded(seed):
        net = Mlp(split.columns, 1)
    recipe = Recipe(learning_rate=0.01, optimizer="adam", decay="coupled", batch_size=16, **row)
    found = followed(trial, loop.fit(trial, net, split, recipe, write_gradient), over=_patience_is_over if every else lambda _: False)
    found.model = {}
    return found


def _patience_is_over(history: Sequence[dict[str, float]]) -> bool:
    curve = [epoch["val_accuracy"] for epoch in history]
    return len(curve) - 1 - curve.index(max(curve)) >= 3


def run(seeds: int) -> dict[str, str]:
    """The table of this section in Markdown."""
    jobs = [(name, seed) for name in ROWS for seed in range(seeds)]
    found = dict(zip(jobs, outcomes(train, jobs), strict=True))
    rows = []
    for name, (theirs, row) in ROWS.items():
        runs = [found[name, seed] for seed in range(seeds)]
        if "report_every" in row:
            curves = [[epoch["val_accuracy"] for epoch in run.history] for run in runs]
            steps = sorted(500 * (curve.index(max(curve)) + 1) for curve in curves)
            ours = f"{mean_sd(max(curve) for curve in curves)} (steps {steps[0]} to {steps[-1]}; stopped {1500} later)"
        else:
            ours = mean_sd(run.last["val_accuracy"] for run in runs)
        rows.append([name, theirs, ours])
    return {"sst2": table(["model", "dev accuracy", "ours"], rows)}
