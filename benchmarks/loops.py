"""The loops that people write around one epoch of training and validation, in plain torch; no trainer's loop, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from trainers import convnet, mlp
from trainers.splits import DenseRows, SparseRows, Split

Epoch = Callable[[], object]


@dataclass(frozen=True)
class Protocol:
    """What is trained, as arguments of the trainer `mlp` or `convnet`, on random images or a text; how often it is timed."""

    name: str
    repeats: int
    arguments: dict[str, Any]
    train: int = 50_000
    val: int = 10_000
    trainer: Any = mlp
    optimizer: Callable[..., torch.optim.Optimizer] = field(default=torch.optim.AdamW)


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Rows of bytes, each made numbers from 0 to 1 when it is asked for, as torchvision's datasets with `ToTensor` do (by way of PIL)."""

    def __init__(self, rows: DenseRows, y: Tensor) -> None:
        self.rows, self.y = rows.values, y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.rows[i].float().div_(255), self.y[i]


class Texts(Dataset[tuple[Tensor, Tensor]]):
    """Rows of counts, each made dense when it is asked for."""

    def __init__(self, rows: SparseRows, y: Tensor) -> None:
        self.starts, self.indices, self.counts, self.columns = rows.starts.tolist(), rows.indices, rows.counts, rows.columns
        self.y = y

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        here = slice(self.starts[i], self.starts[i + 1])
        x = torch.zeros(self.columns)
        x[self.indices[here]] = 1.0 if self.counts is None else self.counts[here].float()
        return x, self.y[i]


def network(p: Protocol, split: Split) -> nn.Module:
    """The trainer's network as one writes it."""
    if p.trainer is convnet:
        given = {name: value for name, value in p.arguments.items() if name == "channels"}
        return convnet.ConvNet((1, 28, 28), split.outputs, **given)
    depth, width, rate = p.arguments.get("depth", 2), p.arguments.get("width", 128), p.arguments.get("dropout", 0.0)
    layers: list[nn.Module] = []
    for inputs in [split.columns, *[width] * depth][:depth]:
        layers += [nn.Linear(inputs, width), nn.ReLU(), *([nn.Dropout(rate)] if rate else [])]
    return nn.Sequential(*layers, nn.Linear(width if depth else split.columns, 1 if split.outputs == 2 else split.outputs))


def loss_and_hits(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if outputs.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(outputs[:, 0], y.float()), ((outputs[:, 0] > 0) == y).sum()
    return F.cross_entropy(outputs, y), (outputs.argmax(1) == y).sum()


def loop(p: Protocol, split: Split, train: Callable[[], Any], val: Callable[[], Any], **options: Any) -> Epoch:
    """The loop that people write, over batches of training and validation; `options` are the optimizer's."""
    net = network(p, split)
    optimizer = p.optimizer(net.parameters(), p.arguments["learning_rate"], **options)

    def epoch() -> None:
        net.train()
        for x, y in train():
            loss, _ = loss_and_hits(net(x), y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        net.eval()
        with torch.no_grad():
            measured = [torch.stack(loss_and_hits(net(x), y)) for x, y in val()]
        torch.stack(measured).mean(0).tolist()

    return epoch


def dataloader_loop(p: Protocol, split: Split) -> Epoch:
    return _loading(
        p, split, *(Texts(of.x, of.y) if isinstance(of.x, SparseRows) else Images(of.x, of.y) for of in (split.train, split.val))
    )


def converted_loop(p: Protocol, split: Split) -> Epoch | None:
    """None for texts: dense in memory they are 1 GB."""
    if isinstance(split.train.x, SparseRows):
        return None
    return _loading(p, split, *(TensorDataset(part.x.dense(slice(None)), part.y) for part in (split.train, split.val)))


def _loading(p: Protocol, split: Split, train: Dataset[Any], val: Dataset[Any]) -> Epoch:
    batches = DataLoader(train, p.arguments["batch_size"], shuffle=True)
    return loop(p, split, lambda: batches, lambda: DataLoader(val, p.arguments["batch_size"]))


def tight_loop(p: Protocol, split: Split) -> Epoch | None:
    """None for texts: dense in memory they are 1 GB."""
    if isinstance(split.train.x, SparseRows):
        return None
    x, x_val = split.train.x.dense(slice(None)), split.val.x.dense(slice(None))
    y, y_val = split.train.y, split.val.y

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.split(torch.randperm(len(x)), p.arguments["batch_size"]):
            yield x[rows], y[rows]

    return loop(p, split, batches, lambda: [(x_val, y_val)], fused=True)
