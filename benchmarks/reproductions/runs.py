"""Trains networks one by one as a published protocol asks, without a study or an engine, as many at a time as there are cores."""

from __future__ import annotations

import math
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from hpo.trainer import Metrics
from trainers.evaluation import evaluate
from trainers.losses import Loss
from trainers.splits import Part

Job = TypeVar("Job")
Outcome = TypeVar("Outcome")


class Alone:
    """A trial that nobody watches: `hpo.trainer.RunningTrial` without an engine. `state` is what was saved last."""

    def __init__(self, seed: int, max_epochs: int) -> None:
        self.number, self.seed, self.device, self.max_epochs, self.folder = 0, seed, "cpu", max_epochs, Path()
        self.state: dict[str, Any] = {}

    def save(self, **state: Any) -> None:
        self.state = state

    def restored(self) -> None:
        return None


@dataclass(slots=True)
class Followed:
    """What one training gave: metrics of each epoch, the epoch with the lowest `watched` (from 1), its parameters."""

    history: list[dict[str, float]] = field(default_factory=list)
    best: int = 0
    model: dict[str, Tensor] = field(default_factory=dict)

    def at(self, epoch: int, metric: str) -> float:
        return self.history[epoch - 1][metric]

    @property
    def last(self) -> dict[str, float]:
        return self.history[-1]


def followed(
    trial: Alone,
    epochs: Iterator[Metrics],
    watched: str = "val_loss",
    over: Callable[[Sequence[dict[str, float]]], bool] = lambda _: False,
) -> Followed:
    """Train until the trial's `max_epochs` or `over` says so of the epochs so far, keeping the best parameters in memory."""
    found, lowest = Followed(), math.inf
    for metrics in epochs:
        found.history.append(dict(metrics))
        if metrics[watched] < lowest:
            lowest, found.best = metrics[watched], len(found.history)
            found.model = {name: tensor.clone() for name, tensor in trial.state["model"].items()}
        if len(found.history) >= trial.max_epochs or over(found.history):
            break
    return found


def outcomes(train: Callable[[Job], Outcome], jobs: Sequence[Job]) -> list[Outcome]:
    """What `train` makes of each job, in the jobs' order; one thread a process, one process a core."""
    torch.set_num_threads(1)
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        waiting = [pool.submit(train, job) for job in jobs]
        for done, _ in enumerate(as_completed(waiting), 1):
            if sys.stderr.isatty():
                print(f"\r{done} of {len(jobs)} trainings", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        return [future.result() for future in waiting]


def judged(net: nn.Module, part: Part, loss: Loss) -> tuple[float, float]:
    """Loss and accuracy of the network on these examples, which have classes."""
    with torch.no_grad():
        error, accuracy = evaluate(net, part, loss)
    assert accuracy is not None
    return float(error), float(accuracy)


def mean_sd(values: Iterable[float], digits: int = 3) -> str:
    """`.832 ± .011`: mean and standard deviation of a sample."""
    found = list(values)
    spread = statistics.stdev(found) if len(found) > 1 else math.nan
    return f"{short(statistics.fmean(found), digits)} ± {short(spread, digits)}"


def short(value: float, digits: int = 3) -> str:
    """A number below one without its zero, as the published tables have it."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
