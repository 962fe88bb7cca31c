"""Table 1: weight decay, dropout and early stopping of a small multilayer perceptron on 1,000 Fashion-MNIST images."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.reproductions.runs import Alone, Followed, followed, mean_sd, outcomes, short, table
from trainers import datasets, loop, seeds
from trainers.perceptron import Mlp, write_gradient
from trainers.recipe import Recipe, Source
from trainers.splits import Part, Split

EPOCHS, TRAIN, VAL = 150, 1000, 500
DECAYS = {0.0: (0.9453, 0.8238, 0.0338), 1e-4: (0.9561, 0.8176, 0.0309), 1e-3: (0.9443, 0.8207, 0.0240)} | {
    1e-2: (0.9004, 0.8316, 0.0117),
    1e-1: (0.6475, 0.6500, 0.0046),
}
DROPOUTS = {0.0: (0.9541, 0.8414, 0.0341), 0.1: (0.9238, 0.8238, 0.0322), 0.3: (0.8877, 0.8336, 0.0292)} | {
    0.5: (0.8418, 0.8219, 0.0272),
    0.7: (0.6729, 0.7746, 0.0239),
    0.9: (0.3145, 0.5363, 0.0190),
}
RATES = (0.1, 0.01, 0.001, 0.0001)
Job = dict[str, Any]


def subset(seed: int) -> Split:
    """1,000 training and 500 validation images, others for every seed: nobody knows which ones were published."""
    whole = datasets.load(Source(dataset="fashion-mnist"))

    def taken(part: Part, size: int) -> Part:
        first = seed * size
        return Part(part.x.part(first, first + size), part.y[first : first + size])

    return dataclasses.replace(whole, train=taken(whole.train, TRAIN), val=taken(whole.val, VAL))


def train(job: Job) -> Followed:
    """`job` has the seed and the recipe's fields that a row changes, and dropout."""
    seed, dropout = job["seed"], job.get("dropout", 0.0)
    recipe = Recipe(
        learning_rate=job.get("learning_rate", 1e-4),
        optimizer=job.get("optimizer", "adam"),
        weight_decay=job.get("weight_decay", 0.0),
        batch_size=32,
        layer_statistics=True,
    )
    split, trial = subset(seed), Alone(seed, EPOCHS)
    with seeds.seeded(seed):
        net = Mlp(split.columns, 10, sizes=(128, 64), dropout=dropout)
    found = followed(trial, loop.fit(trial, net, split, recipe, write_gradient))
    found.model = {}
    return found


def run(seeds: int) -> dict[str, str]:
    """The tables of this section in Markdown, by name."""
    decays: list[Job] = [{"weight_decay": decay, "seed": seed} for decay in DECAYS for seed in range(seeds)]
    dropouts: list[Job] = [{"dropout": dropout, "seed": seed} for dropout in DROPOUTS for seed in range(seeds)]
    rates: list[Job] = [{"learning_rate": rate, "seed": seed} for rate in RATES for seed in range(seeds)]
    decoupled: list[Job] = [{"weight_decay": decay, "optimizer": "adamw", "seed": seed} for decay in DECAYS for seed in range(seeds)]
    jobs = decays + dropouts + rates + decoupled
    found = list(zip(jobs, outcomes(train, jobs), strict=True))
    by_decay = _grouped(found[: len(decays)], "weight_decay")
    by_dropout = _grouped(found[len(decays) : len(decays + dropouts)], "dropout")
    by_rate = _grouped(found[len(decays + dropouts) : -len(decoupled)], "learning_rate")
    adamw = _grouped(found[-len(decoupled) :], "weight_decay")
    _plots(by_decay, adamw, by_dropout)
    return {
        "fashion-decay": _against(DECAYS, by_decay, "weight decay"),
        "fashion-dropout": _against(DROPOUTS, by_dropout, "dropout"),
        "fashion-stopping": _stopping(by_rate),
        "fashion-adamw": _coupled_or_not(by_decay, adamw),
    }


def _grouped(found: Sequence[tuple[Job, Followed]], key: str) -> dict[float, list[Followed]]:
    groups: dict[float, list[Followed]] = {}
    for job, outcome in found:
        groups.setdefault(job[key], []).append(outcome)
    return groups


METRICS = {"train_accuracy": 3, "val_accuracy": 3, "mean_abs_weight_1": 4}


def _against(published: dict[float, tuple[float, float, float]], ours: dict[float, list[Followed]], what: str) -> str:
    head = [what, "train acc", "ours", "val acc", "ours", "mean abs weight, layer 1", "ours"]
    rows = []
    for value, theirs in published.items():
        row = [f"{value:g}"]
        for (metric, digits), number in zip(METRICS.items(), theirs, strict=True):
            row += [short(number, 4), mean_sd((run.last[metric] for run in ours[value]), digits)]
        rows.append(row)
    return table(head, rows)


def _stopping(by_rate: dict[float, list[Followed]]) -> str:
    """Style 1 keeps the best of 150 epochs, style 2 stops after 5 epochs without a lower validation loss."""
    head = ["learning rate", "val acc after 150 epochs", "style 1: best val acc", "epoch", "style 2: val acc", "epochs trained"]
    rows = []
    for rate, runs in by_rate.items():
        accuracies = [[epoch["val_accuracy"] for epoch in run.history] for run in runs]
        stops = [_patience([epoch["val_loss"] for epoch in run.history], 5) for run in runs]
        rows.append(
            [
                f"{rate:g}",
                mean_sd(run.last["val_accuracy"] for run in runs),
                mean_sd(max(curve) for curve in accuracies),
                f"{statistics.median(curve.index(max(curve)) + 1 for curve in accuracies):g}",
                mean_sd(run.at(best, "val_accuracy") for run, (best, _) in zip(runs, stops, strict=True)),
                f"{statistics.median(stop for _, stop in stops):g}",
            ]
        )
    return table(head, rows)


def _patience(losses: Sequence[float], patience: int) -> tuple[int, int]:
    """The best epoch and the one at which training stops."""
    best = 0
    for epoch, loss in enumerate(losses):
        if loss < losses[best]:
            best = epoch
        elif epoch - best >= patience:
            return best + 1, epoch + 1
    return best + 1, len(losses)


def _coupled_or_not(coupled: dict[float, list[Followed]], decoupled: dict[float, list[Followed]]) -> str:
    head = ["weight decay", "val acc, Adam's L2", "val acc, AdamW", "mean abs weight, Adam's L2", "mean abs weight, AdamW"]
    rows = []
    for decay, runs_of_coupled in coupled.items():
        both = (runs_of_coupled, decoupled[decay])
        row = [mean_sd(run.last["val_accuracy"] for run in runs) for runs in both]
        rows.append([f"{decay:g}", *row, *(mean_sd((run.last["mean_abs_weight_1"] for run in runs), 4) for runs in both)])
    return table(head, rows)


def _plots(coupled: dict[float, list[Followed]], decoupled: dict[float, list[Followed]], dropouts: dict[float, list[Followed]]) -> None:
    """Learning curves over a hyperparameter: loss and accuracy, training and validation."""
    from matplotlib.figure import Figure

    folder = Path("docs/figures")
    folder.mkdir(exist_ok=True)
    shown = (("weight decay", {"Adam's L2": coupled, "AdamW": decoupled}), ("dropout", {"": dropouts}))
    for what, groups in shown:
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        for axes, metric in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
            for (name, by_value), style in zip(groups.items(), ("-", "--"), strict=False):
                for part, colour in (("train", "tab:blue"), ("val", "tab:orange")):
                    curves = [[run.last[f"{part}_{metric}"] for run in runs] for runs in by_value.values()]
                    means, spread = [statistics.fmean(curve) for curve in curves], [statistics.stdev(curve) for curve in curves]
                    label = " ".join(filter(None, ["training" if part == "train" else "validation", name and f"({name})"]))
                    axes.errorbar(list(by_value), means, spread, color=colour, ls=style, marker="o", ms=3, capsize=2, label=label)
            if what == "weight decay":
                axes.set_xscale("symlog", linthresh=1e-4)
            axes.set(xlabel=what, ylabel=f"{metric} after {EPOCHS} epochs")
            axes.grid(alpha=0.3)
        figure.axes[0].legend(fontsize=8)
        figure.savefig(folder / f"fashion-{what.replace(' ', '-')}.png", dpi=130)
