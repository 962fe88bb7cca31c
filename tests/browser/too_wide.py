"""The trainer `mlp`, except that a net wider than `WIDEST` fails in its second epoch, as one does that finds no memory."""

from __future__ import annotations

from collections.abc import Iterator

from hpo.trainer import Metrics, RunningTrial
from trainers import mlp

WIDEST = 250
build = mlp.build


def train(
    trial: RunningTrial,
    *,
    learning_rate: float,
    weight_decay: float,
    dropout: float,
    width: int,
    depth: int,
    batch_size: int,
    dataset: str,
) -> Iterator[Metrics]:
    """As `trainers.mlp.train`, up to the first epoch of a net that is too wide."""
    layers = {"width": width, "depth": depth, "dropout": dropout}
    recipe = {"learning_rate": learning_rate, "weight_decay": weight_decay, "batch_size": batch_size}
    for epoch in mlp.train(trial, dataset=dataset, **layers, **recipe):
        yield epoch
        if width > WIDEST:
            raise MemoryError(f"no memory for a second epoch of width {width}")
