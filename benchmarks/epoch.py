"""What one epoch of the image MLP costs here, validation included, next to the loops that people write.

    python -m benchmarks.epoch [--quick]

Prints milliseconds per epoch (medians of alternating repeats, one thread, one process) and how many times faster ours
is. Images are random bytes: the cost does not depend on what they show. Compare ratios, not milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from trainers import datasets, image_mlp
from trainers.datasets import Split

LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Protocol:
    """What is trained: images for training and validation, batch size, width and dropout of a net of depth 2."""

    name: str
    train: int
    val: int
    batch_size: int
    width: int
    dropout: float
    repeats: int


PROTOCOLS = [
    Protocol("small", 1_000, 500, 32, 128, 0.0, 31),
    Protocol("small", 1_000, 500, 32, 128, 0.3, 31),
    Protocol("full", 50_000, 10_000, 128, 256, 0.0, 5),
    Protocol("full", 50_000, 10_000, 128, 256, 0.3, 5),
]


class Trial:
    """The least that a trainer needs."""

    number, seed, device, max_epochs, folder = 0, 0, "cpu", 10**9, Path()

    def save(self, **state: Any) -> None:
        """Keeps nothing."""

    def restored(self) -> None:
        return None


def random_split(p: Protocol) -> Split:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (p.train + p.val, 784), dtype=torch.uint8, generator=generator)
    y = torch.randint(0, 10, (p.train + p.val,), generator=generator)
    return Split(x[: p.train], y[: p.train], x[p.train :], y[p.train :], 10, 1 / 255)


def plain(p: Protocol) -> tuple[nn.Module, torch.optim.Optimizer]:
    dropout = [nn.Dropout(p.dropout)] if p.dropout else []
    hidden = [nn.Linear(784, p.width), nn.ReLU(), *dropout, nn.Linear(p.width, p.width), nn.ReLU(), *dropout]
    net = nn.Sequential(*hidden, nn.Linear(p.width, 10))
    return net, torch.optim.AdamW(net.parameters(), LEARNING_RATE)


def step(net: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
    loss = F.cross_entropy(net(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def validate(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    net.eval()
    with torch.no_grad():
        logits = net(x)
        F.cross_entropy(logits, y).item()
        (logits.argmax(1) == y).float().mean().item()
    net.train()


def dataloader_loop(p: Protocol, split: Split) -> Callable[[], None]:
    """A Dataset of single images, collated by a DataLoader in this process."""
    net, optimizer = plain(p)
    loader = DataLoader(TensorDataset(split.x.float().div_(255), split.y), p.batch_size, shuffle=True)
    x_val = split.x_val.float().div_(255)

    def epoch() -> None:
        for x, y in loader:
            step(net, optimizer, x, y)
        validate(net, x_val, split.y_val)

    return epoch


def tight_loop(p: Protocol, split: Split) -> Callable[[], None]:
    """Tensors in memory, batches picked by index, autograd, torch's default AdamW."""
    net, optimizer = plain(p)
    x, x_val = split.x.float().div_(255), split.x_val.float().div_(255)

    def epoch() -> None:
        for batch in torch.randperm(len(x)).split(p.batch_size):
            step(net, optimizer, x[batch], split.y[batch])
        validate(net, x_val, split.y_val)

    return epoch


def ours(p: Protocol, split: Split) -> Callable[[], None]:
    """The trainer itself, asked for its next epoch."""
    epochs = image_mlp.train(Trial(), learning_rate=LEARNING_RATE, width=p.width, dropout=p.dropout, batch_size=p.batch_size)

    def epoch() -> None:
        with mock.patch.object(datasets, "load", return_value=split):
            next(epochs)

    return epoch


def milliseconds(loops: list[Callable[[], None]], repeats: int) -> list[float]:
    """The median time of each loop; they take turns, so that a busy machine slows all of them."""
    taken: list[list[float]] = [[] for _ in loops]
    for loop in loops:
        loop()
    for _ in range(repeats):
        for loop, times in zip(loops, taken, strict=True):
            began = time.perf_counter()
            loop()
            times.append(1e3 * (time.perf_counter() - began))
    return [statistics.median(times) for times in taken]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repeats, and a tenth of the full data")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    print(f"{'protocol':8} {'images':>6} {'batch':>5} {'width':>5} {'dropout':>7}   DataLoader    tight     ours   ms; ours is faster by")
    for p in PROTOCOLS:
        size = max(p.train // 10, 1_000) if quick else p.train
        shown = Protocol(p.name, size, p.val * size // p.train, p.batch_size, p.width, p.dropout, 3 if quick else p.repeats)
        split = random_split(shown)
        loader, tight, mine = milliseconds([make(shown, split) for make in (dataloader_loop, tight_loop, ours)], shown.repeats)
        print(
            f"{p.name:8} {size:6} {p.batch_size:5} {p.width:5} {p.dropout:7} {loader:12.1f} {tight:8.1f} {mine:8.1f}"
            f"       {loader / mine:.2f}x {tight / mine:.2f}x",
            flush=True,
        )


if __name__ == "__main__":
    main()
