"""Tables 4 and 5: MNIST with early stopping, and test error against the size of the training set."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from benchmarks.reproductions.runs import Alone, Followed, followed, judged, mean_sd, outcomes, table
from trainers import datasets, loop, seeds
from trainers.losses import loss_of
from trainers.perceptron import Mlp, write_gradient
from trainers.recipe import Recipe, Source
from trainers.splits import DenseRows, Part

PATIENCE, MOST = 20, 100
SIZES = (100, 300, 1_000, 3_000, 10_000, 30_000, 50_000)
STEPS = 6_000  # of 64 images, whatever the size, with early stopping on the validation loss
MNIST = Source(dataset="mnist")


def train(seed: int) -> Followed:
    split, trial = datasets.load(MNIST), Alone(seed, MOST)
    with seeds.seeded(seed):
        net = Mlp(split.columns, 10, sizes=(128, 128), dropout=0.5)
    recipe = Recipe(learning_rate=1e-3, optimizer="adam", batch_size=256)
    return followed(trial, loop.fit(trial, net, split, recipe, write_gradient), over=_patience_is_over)


def _patience_is_over(history: Sequence[dict[str, float]]) -> bool:
    losses = [epoch["val_loss"] for epoch in history]
    return len(losses) - 1 - losses.index(min(losses)) >= PATIENCE


def run_stopping(seeds: int) -> dict[str, str]:
    """The table of section 4 in Markdown."""
    runs = outcomes(train, range(seeds))
    restored = [_restored_loss(run, seed) for seed, run in enumerate(runs)]
    bests, ends = _span(run.best for run in runs), _span(len(run.history) for run in runs)
    rows = [
        ["after epoch 1", ".300", mean_sd(run.at(1, "val_loss") for run in runs)],
        ["after epoch 12", ".118", mean_sd(run.at(12, "val_loss") for run in runs)],
        ["best", "below .103 (epoch 28)", f"{mean_sd(run.at(run.best, 'val_loss') for run in runs)} (epochs {bests})"],
        ["at the stop", ".106 (epoch 48)", f"{mean_sd(run.last['val_loss'] for run in runs)} (epochs {ends})"],
        ["of the restored parameters", "-", mean_sd(restored)],
    ]
    return {"mnist-stopping": table(["validation loss", "published", "ours"], rows)}


def _restored_loss(run: Followed, seed: int) -> float:
    split = datasets.load(MNIST)
    with seeds.seeded(seed):
        net = Mlp(split.columns, 10, sizes=(128, 128), dropout=0.5)
    net.load_state_dict(run.model)
    return judged(net, split.val, loss_of(Recipe(learning_rate=1e-3), split))[0]


def _span(epochs: Iterable[int]) -> str:
    found = sorted(epochs)
    return f"{found[0]} to {found[-1]}"


Sized = tuple[str, int, int]


def train_on(job: Sized) -> float:
    """The test error of the parameters with the lowest validation loss; `job` is model, size and seed."""
    model, size, seed = job
    split = datasets.load(MNIST)
    first = torch.randperm(len(split.train), generator=torch.Generator().manual_seed(seed))[:size]
    split = dataclasses.replace(split, train=Part(DenseRows(split.train.x.dense(first)), split.train.y[first]))
    trial = Alone(seed, 60)
    sizes, dropout = ((), 0.0) if model == "softmax" else ((256, 256), 0.5)
    with seeds.seeded(seed):
        net = Mlp(split.columns, 10, sizes=sizes, dropout=dropout)
    recipe = Recipe(learning_rate=1e-3, optimizer="adam", batch_size=64, report_every=STEPS // 60)
    found = followed(trial, loop.fit(trial, net, split, recipe, write_gradient))
    net.load_state_dict(found.model)
    return 1 - judged(net, datasets.load_test(MNIST), loss_of(recipe, split))[1]


def run_sizes(seeds: int) -> dict[str, str]:
    """Test error against training-set size, in Markdown and as docs/figures/mnist-sizes.png."""
    jobs = [(model, size, seed) for model in ("softmax", "MLP 256-256, dropout .5") for size in reversed(SIZES) for seed in range(seeds)]
    found = dict(zip(jobs, outcomes(train_on, jobs), strict=True))
    errors = {
        model: {size: [found[model, size, seed] for seed in range(seeds)] for size in SIZES}
        for model in dict.fromkeys(job[0] for job in jobs)
    }
    _plot(errors)
    rows = [[f"{size:,}", *(mean_sd((100 * error for error in by_size[size]), 2) for by_size in errors.values())] for size in SIZES]
    return {"mnist-sizes": table(["training images", *(f"test error of {model}, %" for model in errors)], rows)}


def _plot(errors: dict[str, dict[int, list[float]]]) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    for model, by_size in errors.items():
        means = [100 * statistics.fmean(found) for found in by_size.values()]
        spread = [100 * statistics.stdev(found) for found in by_size.values()]
        axes.errorbar(list(by_size), means, spread, marker="o", ms=3, capsize=2, label=model)
    axes.set(xscale="log", yscale="log", xlabel="training images", ylabel="test error, %")
    axes.set_yticks([2, 5, 10, 20, 30], labels=["2", "5", "10", "20", "30"])
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    Path("docs/figures").mkdir(exist_ok=True)
    figure.savefig("docs/figures/mnist-sizes.png", dpi=130)
