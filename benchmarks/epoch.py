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
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.loops import Epoch, Protocol, converted_loop, dataloader_loop, tight_loop
from hpo.data import DataError
from trainers import convnet, datasets
from trainers.recipe import Source
from trainers.splits import DenseRows, Part, Split

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
