"""Section 6: Proben1 with RPROP, Prechelt's stopping criteria and what the slower ones gain."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.reproductions.runs import Alone, judged, mean_sd, outcomes, table
from hpo.stopping import (
    GeneralisationLoss,
    Progress,
    ProgressQuotient,
    Rises,
    Stopper,
    after,
    generalisation_loss,
    training_progress,
    why_over,
)
from hpo.trial import Direction, Measurement
from trainers import datasets, loop, seeds
from trainers.gradients import autograd
from trainers.losses import loss_of
from trainers.perceptron import Mlp, write_gradient
from trainers.recipe import Recipe, Source

MOST, STRIP = 3000, 5
# hidden units and published test classification errors in percent: with shortcut connections (table 8), without (table 10)
PROBLEMS: dict[str, tuple[tuple[int, ...], str, str]] = {
    "cancer1": ((4, 2), "1.47 ± .60", "1.38 ± .49"),
    "diabetes1": ((32,), "24.57 ± 3.53", "24.10 ± 1.91"),
    "glass1": ((16, 8), "39.03 ± 8.14", "32.70 ± 5.34"),
    "heart1": ((32,), "19.89 ± 2.27", "19.72 ± .96"),
    "horse1": ((16, 8), "26.65 ± 2.52", "29.19 ± 2.62"),
    "soybean1": ((16, 8), "9.06 ± .80", "29.40 ± 2.50"),
    "thyroid1": ((16, 8), "2.32 ± .67", "2.38 ± .35"),
}
CRITERIA: dict[str, Stopper] = {}
CRITERIA |= {f"GL {threshold:g}": GeneralisationLoss(threshold=threshold) for threshold in (1, 2, 3, 5)}
CRITERIA |= {f"PQ {threshold:g}": ProgressQuotient(threshold=threshold, strip=STRIP) for threshold in (0.5, 0.75, 1, 2, 3)}
CRITERIA |= {f"UP {strips}": Rises(strips=strips, strip=STRIP) for strips in (2, 3, 4, 6, 8)}


class Shortcuts(nn.Module):
    """All feed-forward connections: every layer sees the inputs and all layers before it; y = x / (1 + |x|), linear outputs."""

    def __init__(self, columns: int, outputs: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for units in (*sizes, outputs):
            self.layers.append(nn.Linear(columns, units))
            columns += units

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = torch.cat([x, nn.functional.softsign(layer(x))], 1)
        outputs: Tensor = self.layers[-1](x)
        return outputs


@dataclass(frozen=True, slots=True)
class Curve:
    """Training and validation error of each epoch; `test` has the squared and the classification error (in percent) on the
    test set of the parameters with the lowest validation error so far."""

    training: list[float]
    validation: list[float]
    test: list[tuple[float, float]]


Job = tuple[str, bool, int, bool]


def train(job: Job) -> Curve:
    """`job` is problem, whether with shortcuts, seed, and whether to stop as was published (else all 3,000 epochs)."""
    problem, shortcuts, seed, stops = job
    source = Source(dataset="proben1", problem=problem)
    split, test, trial = datasets.load(source), datasets.load_test(source), Alone(seed, MOST)
    sizes = PROBLEMS[problem][0]
    kind = Shortcuts if shortcuts else partial(Mlp, activation="softsign")
    with seeds.seeded(seed):
        net = _small(kind(split.columns, split.outputs, sizes=sizes))
    recipe = Recipe(learning_rate=0.01, optimizer="rprop", loss="squared_error", batch_size=65536)
    loss, curve = loss_of(recipe, split), Curve([], [], [])
    for metrics in loop.fit(trial, net, split, recipe, autograd if shortcuts else write_gradient):
        curve.training.append(metrics["train_loss"])
        curve.validation.append(metrics["val_loss"])
        if metrics["val_loss"] < min(curve.validation[:-1], default=math.inf):
            error, accuracy = judged(net, test, loss)
            curve.test.append((error, 100 * (1 - accuracy)))
        else:
            curve.test.append(curve.test[-1])
        if len(curve.validation) >= MOST or (stops and _is_over(curve)):
            break
    return curve


def _small(net: nn.Module) -> nn.Module:
    """Initial weights from -0.01 to 0.01."""
    for parameter in net.parameters():
        nn.init.uniform_(parameter, -0.01, 0.01)
    return net


def _is_over(curve: Curve) -> bool:
    if len(curve.validation) % STRIP:
        return False
    strip = curve.training[-STRIP:]
    return generalisation_loss(curve.validation[-1], min(curve.validation)) > 5 or training_progress(sum(strip), min(strip), STRIP) < 0.1


def run(runs: int) -> dict[str, str]:
    """The published test errors beside ours, and the criteria compared."""
    jobs = [(problem, shortcuts, seed, True) for problem in PROBLEMS for shortcuts in (True, False) for seed in range(runs)]
    stopped = dict(zip(jobs, outcomes(train, jobs), strict=True))
    rows = []
    for problem, (sizes, *published) in PROBLEMS.items():
        row = [problem, "+".join(map(str, sizes))]
        for shortcuts, theirs in zip((True, False), published, strict=True):
            curves = [stopped[problem, shortcuts, seed, True] for seed in range(runs)]
            ours = mean_sd((curve.test[-1][1] for curve in curves), 2)
            row += [theirs, f"{ours} ({statistics.median(len(curve.test) for curve in curves):.0f})"]
        rows.append(row)
    head = ["problem", "hidden units", "test error, %", "ours (epochs)", "without shortcuts", "ours (epochs)"]
    return {"prechelt": table(head, rows), "prechelt-criteria": _criteria(runs)}


def _criteria(runs: int) -> str:
    """Each criterion on the same curves: epochs against the fastest, test error against the best of all criteria."""
    jobs = [(problem, False, seed, False) for problem in PROBLEMS for seed in range(runs)]
    curves = outcomes(train, jobs)
    stops = {name: [_stop(curve, criterion) for curve in curves] for name, criterion in CRITERIA.items()}
    fastest = [min(epochs) for epochs in zip(*stops.values(), strict=True)]
    lowest = [min(curve.test[end[i] - 1][0] for end in stops.values()) for i, curve in enumerate(curves)]
    rows = []
    for name, ends in stops.items():
        slowness = statistics.fmean(end / first for end, first in zip(ends, fastest, strict=True))
        excess = statistics.fmean(100 * (curve.test[end - 1][0] / best - 1) for curve, end, best in zip(curves, ends, lowest, strict=True))
        cut = sum(end == MOST for end in ends)
        rows.append([name, f"{slowness:.1f}", f"{excess:.1f} %", f"{statistics.median(ends):.0f}", f"{cut} of {len(ends)}"])
    head = [
        "criterion",
        "epochs / fastest criterion's",
        "squared test error above the best criterion's",
        "median epochs",
        f"not stopped by {MOST:,}",
    ]
    return table(head, rows)


def _stop(curve: Curve, criterion: Stopper) -> int:
    """The epoch after which the criterion stops, or the last."""
    at = Progress()
    for epoch, (validation, training) in enumerate(zip(curve.validation, curve.training, strict=True), 1):
        if isinstance(criterion, GeneralisationLoss) and epoch % STRIP:
            continue  # the report evaluates it at the ends of strips only
        measured = Measurement(epoch, validation, {"val_loss": validation, "train_loss": training}, 0.0)
        at = after(at, measured, Direction.MINIMIZE, criterion)
        if why_over(criterion, at):
            return epoch
    return MOST
