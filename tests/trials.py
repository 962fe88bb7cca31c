"""A trial for tests of trainers, and small splits of every kind to train on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from hpo import checkpoints
from trainers.splits import DenseRows, Part, SparseRows, Split


class Trial:
    """A running trial that keeps what it is offered, through the files that a real one writes."""

    def __init__(self, folder: Path, seed: int = 1, max_epochs: int = 2, device: str = "cpu", restored: bool = False) -> None:
        self.number, self.seed, self.device, self.max_epochs, self.folder = 0, seed, device, max_epochs, folder
        self._restored = restored

    def save(self, **state: Any) -> None:
        self.state = state

    def write(self) -> None:
        checkpoints.save(self.folder, self.state)

    def restored(self) -> dict[str, Any] | None:
        return checkpoints.load(self.folder) if self._restored else None


def unclocked(epochs: Iterable[Any]) -> list[dict[str, float]]:
    """What was yielded, without the metrics that a clock has a part in."""
    return [{name: value for name, value in metrics.items() if name not in ("epoch_seconds", "examples_per_second")} for metrics in epochs]


def dense_split(train: int = 70, val: int = 30, classes: int = 3, side: int = 6) -> Split:
    """Random grey images whose class shows."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, classes, (train + val,), generator=generator)
    x = torch.randint(0, 128, (train + val, side * side), generator=generator, dtype=torch.uint8)
    x[torch.arange(train + val), y] += 120
    rows = DenseRows(x, 1 / 255)
    return Split(Part(rows.part(0, train), y[:train]), Part(rows.part(train, train + val), y[train:]), classes, (1, side, side), True)


def sparse_split(train: int = 70, val: int = 30, columns: int = 40, counts: bool = True) -> Split:
    """Random bags of words of two classes, some of them empty, whose first word often says which."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(0, 2, (train + val,), generator=generator)
    dense = (torch.rand(train + val, columns, generator=generator) < 0.1).to(torch.uint8)
    dense[:, 0] = y
    dense[::9] = 0
    if counts:
        dense *= torch.randint(1, 4, dense.shape, generator=generator, dtype=torch.uint8)
    starts = torch.cat([torch.zeros(1, dtype=torch.int64), (dense > 0).sum(1).cumsum(0)])
    rows = SparseRows(starts, dense.nonzero()[:, 1].to(torch.int32), dense[dense > 0] if counts else None, columns)
    return Split(Part(rows.part(0, train), y[:train]), Part(rows.part(train, train + val), y[train:]), 2)


def made_dense(split: Split) -> Split:
    """The same examples as float32 rows."""
    train, val = (Part(DenseRows(part.x.dense(slice(0, len(part)))), part.y) for part in (split.train, split.val))
    return Split(train, val, split.outputs)


def values_split(train: int = 60, val: int = 20, outputs: int = 2) -> Split:
    """Values that are a linear function of five inputs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(train + val, 5, generator=generator)
    y = x @ torch.randn(5, outputs, generator=generator)
    rows = DenseRows(x)
    return Split(Part(rows.part(0, train), y[:train]), Part(rows.part(train, train + val), y[train:]), outputs)
