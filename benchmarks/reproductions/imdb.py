"""Table 2: how IMDB networks overfit, on the published split: 25,000 reviews to train, the 25,000 test reviews to validate."""

from __future__ import annotations

from typing import Any

from benchmarks.reproductions.runs import Alone, Followed, followed, mean_sd, outcomes, short, table
from trainers import datasets, loop, seeds
from trainers.gradients import autograd
from trainers.perceptron import Mlp, write_gradient
from trainers.recipe import Recipe, Source

EPOCHS = 20
# best validation loss, its epoch, accuracy there, loss and accuracy after 20 epochs
PUBLISHED: dict[str, tuple[float, str, float, float, float]] = {
    "u=16": (0.274, "4", 0.892, 0.575, 0.857),
    "u=4": (0.271, "8", 0.892, 0.343, 0.875),
    "u=512": (0.283, "1", 0.887, 2.14, 0.853),
    "u=16, Adam, L2 0.01": (0.285, "7-8", 0.885, 0.298, 0.879),
    "u=16, dropout .5 twice": (0.280, "7", 0.891, 0.390, 0.880),
    "u=16, batch norm + dropout .5": (0.299, "2", 0.880, 0.950, 0.836),
}
ROWS: dict[str, dict[str, Any]] = {
    "u=16": {},
    "u=4": {"width": 4},
    "u=512": {"width": 512},
    "u=16, Adam, L2 0.01": {"optimizer": "adam", "weight_decay": 0.01},
    "u=16, dropout .5 twice": {"dropout": 0.5},
    "u=16, batch norm + dropout .5": {"dropout": 0.5, "batch_norm": True},
    "u=16, L1 0.001": {"l1": 0.001},
}
Job = tuple[str, int]


def train(job: Job) -> Followed:
    row, seed = ROWS[job[0]], job[1]
    split, trial = datasets.load_published(Source(dataset="imdb")), Alone(seed, EPOCHS)
    normalised, width = row.get("batch_norm", False), row.get("width", 16)
    with seeds.seeded(seed):
        net = Mlp(split.columns, 1, sizes=(width, width), dropout=row.get("dropout", 0.0), batch_norm=normalised)
    recipe = Recipe(
        learning_rate=1e-4,
        optimizer=row.get("optimizer", "rmsprop"),
        weight_decay=row.get("weight_decay", 0.0),
        l1=row.get("l1", 0.0),
        batch_size=32,
    )
    found = followed(trial, loop.fit(trial, net, split, recipe, autograd if normalised else write_gradient))
    found.model = {}
    return found


def run(seeds: int) -> dict[str, str]:
    """The table of this section in Markdown."""
    jobs = [(name, seed) for name in sorted(ROWS, key=lambda name: name != "u=512") for seed in range(seeds)]  # the longest first
    found = dict(zip(jobs, outcomes(train, jobs), strict=True))
    head = ["model", "best val loss (epoch)", "ours", "acc there", "ours", "loss, acc at epoch 20", "ours"]
    rows = []
    for name in ROWS:
        runs = [found[name, seed] for seed in range(seeds)]
        best = mean_sd(run.at(run.best, "val_loss") for run in runs)
        epochs = sorted({run.best for run in runs})
        theirs = PUBLISHED.get(name)
        rows.append(
            [
                name,
                f"{short(theirs[0])} ({theirs[1]})" if theirs else "-",
                f"{best} ({'-'.join(str(e) for e in sorted({epochs[0], epochs[-1]}))})",
                short(theirs[2]) if theirs else "-",
                mean_sd(run.at(run.best, "val_accuracy") for run in runs),
                f"{short(theirs[3])}, {short(theirs[4])}" if theirs else "-",
                f"{mean_sd(run.last['val_loss'] for run in runs)}, {mean_sd(run.last['val_accuracy'] for run in runs)}",
            ]
        )
    return {"imdb": table(head, rows)}
