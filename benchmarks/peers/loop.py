"""How the peers train: the loops that a competent user writes, one thread a trial. Needs torch and NumPy only.

Images: tensors in memory and batches picked by index, 784-width-width-10, AdamW. Texts: the published loop, a Dataset whose
rows are made dense for a DataLoader, width-width-1, RMSprop. Nothing: one value, at no cost.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.task import Kind, Params, Report, Task, keep

Batches = Callable[[], Iterator[tuple[Tensor, Tensor]]]


def epochs(task: Task, params: Params, trial: str, *, fused: bool = False) -> Iterator[tuple[int, dict[str, float]]]:
    """Train one trial: each epoch's number from 1 and its validation metrics, which are kept as a report."""
    trained = _nothing(task, params) if task.kind == Kind.NOTHING else _trained(task, params, fused=fused)
    width = int(params.get("width", task.width))
    for epoch in range(1, task.max_epochs + 1):
        began = time.time()
        metrics = next(trained)
        keep(task, Report(trial, epoch, began, time.time(), metrics["val_accuracy"], width))
        yield epoch, metrics


def _nothing(task: Task, params: Params) -> Iterator[dict[str, float]]:
    for _ in range(task.max_epochs):
        yield {"val_accuracy": float(params["x"])}


def _trained(task: Task, params: Params, *, fused: bool) -> Iterator[dict[str, float]]:
    torch.set_num_threads(1)
    torch.manual_seed(task.seed)
    stored = _stored(task.examples)
    train, val, columns, outputs = _image_batches(task, stored) if task.kind == Kind.IMAGES else _text_batches(task, stored)
    net = _network(columns, int(params.get("width", task.width)), outputs, params["dropout"])
    optimizer: torch.optim.Optimizer
    if task.kind == Kind.IMAGES:
        optimizer = torch.optim.AdamW(net.parameters(), params["learning_rate"], weight_decay=params["weight_decay"], fused=fused)
    else:
        optimizer = torch.optim.RMSprop(net.parameters(), params["learning_rate"])
    for _ in range(task.max_epochs):
        net.train()
        for x, y in train():
            loss, _ = _loss_and_hits(net(x), y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        net.eval()
        yield _validated(net, val)


def _validated(net: nn.Module, val: Batches) -> dict[str, float]:
    with torch.no_grad():
        sums = torch.zeros(3)
        for x, y in val():
            loss, hits = _loss_and_hits(net(x), y)
            sums += torch.stack([loss * len(y), hits, torch.tensor(len(y))])
    loss_sum, hits_sum, count = sums.tolist()
    return {"val_loss": loss_sum / count, "val_accuracy": hits_sum / count}


@functools.lru_cache(maxsize=1)  # a process that trains several trials reads the file once
def _stored(path: str) -> dict[str, Tensor]:
    with np.load(path) as stored:
        read = {name: torch.from_numpy(stored[name]) for name in stored.files}
    return {name: tensor.float().div_(255) if tensor.dtype == torch.uint8 else tensor for name, tensor in read.items()}


def _image_batches(task: Task, stored: dict[str, Tensor]) -> tuple[Batches, Batches, int, int]:
    x, y, x_val, y_val = (stored[name] for name in ("x", "y", "x_val", "y_val"))

    def train() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.split(torch.randperm(len(x)), task.batch):
            yield x[rows], y[rows]

    return train, lambda: iter([(x_val, y_val)]), x.shape[1], 10


class _Texts(Dataset[tuple[Tensor, Tensor]]):
    """Bags of words, each made a dense row of zeros and ones when it is asked for."""

    def __init__(self, stored: dict[str, Tensor], suffix: str) -> None:
        self.starts, self.indices, self.y = stored[f"starts{suffix}"].tolist(), stored[f"indices{suffix}"], stored[f"y{suffix}"]
        self.columns = int(stored["columns"])

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        x = torch.zeros(self.columns)
        x[self.indices[self.starts[i] : self.starts[i + 1]]] = 1.0
        return x, self.y[i]


def _text_batches(task: Task, stored: dict[str, Tensor]) -> tuple[Batches, Batches, int, int]:
    train = DataLoader(_Texts(stored, ""), task.batch, shuffle=True)
    val = DataLoader(_Texts(stored, "_val"), task.batch)
    return lambda: iter(train), lambda: iter(val), int(stored["columns"]), 1


def _network(columns: int, width: int, outputs: int, dropout: float) -> nn.Module:
    hidden = [nn.Linear(columns, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*hidden, nn.Linear(width, outputs))


def _loss_and_hits(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The mean loss of a batch, and how many of it are right."""
    if outputs.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(outputs[:, 0], y.float()), ((outputs[:, 0] > 0) == y).sum()
    return F.cross_entropy(outputs, y), (outputs.argmax(1) == y).sum()
