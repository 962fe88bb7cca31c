"""What one epoch of the trainers costs here, validation included, next to the loops that people write.

    python -m benchmarks.epoch [--quick]

Prints milliseconds per epoch (medians of alternating repeats, one thread, one process) and how many times faster ours
is. Images are random bytes: the cost does not depend on what they show. Texts are the real ones, under $HPO_DATA or in
the cache; without them their rows are left out. Compare ratios, not milliseconds.

    DataLoader   a Dataset of single rows, collated by a DataLoader in this process; a row's bytes are made numbers there, or a text dense
    converted    the same over a TensorDataset, whose rows were made numbers beforehand: the least that a DataLoader costs
    tight        the same network: tensors in memory, batches picked by index, autograd, torch's fused optimizer
    ours         the trainer
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

from hpo.data import DataError
from trainers import convnet, datasets, mlp
from trainers.recipe import Source
from trainers.splits import DenseRows, Part, SparseRows, Split

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


PROTOCOLS = [
    Protocol("1,000 images", 31, {"batch_size": 32, "width": 128, "dropout": 0.0, "learning_rate": 1e-3}, 1_000, 500),
    Protocol("1,000 images", 31, {"batch_size": 32, "width": 128, "dropout": 0.3, "learning_rate": 1e-3}, 1_000, 500),
    Protocol("images", 5, {"batch_size": 128, "width": 256, "dropout": 0.0, "learning_rate": 1e-3}),
    Protocol("images", 5, {"batch_size": 128, "width": 256, "dropout": 0.3, "learning_rate": 1e-3}),
    Protocol("mnist", 5, {"batch_size": 256, "width": 128, "dropout": 0.5, "learning_rate": 1e-3}),
    Protocol("convnet", 3, {"batch_size": 128, "channels": 16, "learning_rate": 1e-3}, 5_000, 1_000, convnet),
    Protocol(
        "imdb",
        5,
        {"dataset": "imdb", "batch_size": 32, "width": 16, "optimizer": "rmsprop", "learning_rate": 1e-4},
        optimizer=torch.optim.RMSprop,
    ),
    Protocol(
        "sst2",
        5,
        {"dataset": "sst2", "batch_size": 16, "depth": 0, "optimizer": "adam", "learning_rate": 1e-2},
        optimizer=torch.optim.Adam,
    ),
]


class Trial:
    """The least that a trainer needs."""

    number, seed, device, max_epochs, folder = 0, 0, "cpu", 10**9, Path()

    def save(self, **state: Any) -> None:
        """Keeps nothing."""

    def restored(self) -> None:
        return None


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


def random_split(p: Protocol) -> Split:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (p.train + p.val, 784), dtype=torch.uint8, generator=generator)
    y = torch.randint(0, 10, (p.train + p.val,), generator=generator)
    train, val = (Part(DenseRows(x[part], 1 / 255), y[part]) for part in (slice(p.train), slice(p.train, None)))
    return Split(train, val, 10, (1, 28, 28))


def split_of(p: Protocol) -> Split:
    """Raises DataError where a text is not there. IMDB's is the published one, which validates on as many as it trains on."""
    if "dataset" not in p.arguments:
        return random_split(p)
    source = Source(dataset=p.arguments["dataset"])
    return datasets.load_published(source) if source.dataset == "imdb" else datasets.load(source)


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


def ours(p: Protocol, split: Split) -> Epoch:
    """The trainer itself, asked for its next epoch."""
    epochs = p.trainer.train(Trial(), **p.arguments)
    with mock.patch.object(datasets, "load", return_value=split):
        next(epochs)
    return lambda: next(epochs)


def milliseconds(loops: list[Epoch | None], repeats: int) -> list[float]:
    """The median time of each loop, NaN for None; they take turns, so that a busy machine slows all of them."""
    taken: list[list[float]] = [[] for _ in loops]
    for loop in loops:
        if loop:
            loop()
    for _ in range(repeats):
        for loop, times in zip(loops, taken, strict=True):
            began = time.perf_counter()
            if loop:
                loop()
            times.append(1e3 * (time.perf_counter() - began) if loop else float("nan"))
    return [statistics.median(times) for times in taken]


def reduced(split: Split, share: int) -> Split:
    """The first part of it, one in `share`."""
    train, val = (Part(part.x.part(0, len(part) // share), part.y[: len(part) // share]) for part in (split.train, split.val))
    return replace(split, train=train, val=val)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repeats, and a tenth of the data where there are many")
    parser.add_argument("--only", default="", help="rows whose name contains this")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print("examples       train batch width dropout   DataLoader converted    tight     ours   ms; ours is faster by")
    for p in (p for p in PROTOCOLS if chosen.only in p.name):
        try:
            split = split_of(p)
        except DataError as error:
            print(f"{p.name:12} left out: {error}")
            continue
        if chosen.quick and len(split.train) > 10_000:
            split = reduced(split, 10)
        loops = [make(p, split) for make in (dataloader_loop, converted_loop, tight_loop, ours)]
        *others, mine = milliseconds(loops, 3 if chosen.quick else p.repeats)
        times = " ".join(f"{time:9.1f}" for time in (*others, mine))
        faster = " ".join(f"{time / mine:5.2f}x" for time in others)
        a = p.arguments
        what = f"{p.name:12} {len(split.train):7} {a['batch_size']:5} {a.get('width', ''):5} {a.get('dropout', 0.0):7}"
        print(f"{what} {times}     {faster}".replace("nanx", "   -").replace("nan", "  -"), flush=True)


if __name__ == "__main__":
    main()
