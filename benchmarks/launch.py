"""Our launch beside the plain script: same space, model, data, number of trials and machine, in one run.

python -m benchmarks.launch [--small] [--trials 20] [--seeds 3]

Each side is a whole process, from the command to its end, in turn; our early stopping inside trials is off. Printed for
each seed and as medians: wall seconds per epoch trained, epochs, best value, and the ratios ours / plain.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.arithmetic import multiply_adds

HPO = str(Path(sys.executable).parent / "hpo")


@dataclass(frozen=True)
class Outcome:
    """One search: wall seconds of the whole command, epochs trained by all trials, best validation accuracy.

    `work` is the multiply-adds of one image through the network, summed over all epochs of all trials: the two sides choose
    other widths, and an epoch of width 1,024 costs 60 times one of width 32.
    """

    wall_s: float
    epochs: int
    best: float
    work: float

    @property
    def per_work(self) -> float:
        """Wall seconds per unit of arithmetic."""
        return self.wall_s / self.work

    @property
    def per_epoch(self) -> float:
        """Wall milliseconds per epoch trained."""
        return 1000 * self.wall_s / self.epochs


def timed(command: list[str], home: str) -> tuple[Any, float]:
    """The JSON that a command prints last, and its wall seconds."""
    began = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=os.environ | {"HPO_HOME": home})
    wall = time.perf_counter() - began
    text = done.stdout.decode()
    return json.loads(text if text[1:2] == "\n" else text.strip().splitlines()[-1]), wall


def ours(small: bool, trials: int, max_epochs: int, seed: int) -> Outcome:
    """`hpo launch` with the stopper, schedule and label smoothing off."""
    changes = {"seed": seed, "stopper": "{name: none}", "budget.time": "6h", "trainer.settings.max_epochs": max_epochs, "resources.gpus": 0}
    changes |= {"sampler.name": "tpe", "pruner": "{name: asha}", "budget.epochs": "null"}  # and searches
    changes |= {"trainer.settings.schedule": "constant", "trainer.settings.label_smoothing": 0}  # as the plain script trains
    if small:
        changes |= {f"trainer.settings.{key}": value for key, value in {"train_size": 1000, "val_size": 500, "batch_size": 32}.items()}
    words = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    with tempfile.TemporaryDirectory() as home:
        found, wall = timed([HPO, "launch", "search_spaces/fashion.yaml", "--trials", str(trials), "--json", *words], home)
        listed, _ = timed([HPO, "trials", "fashion", "--json"], home)
    work = sum(multiply_adds(row["width"]) * row["epochs"] for row in listed)
    return Outcome(wall, found["epochs"], found["best"]["value"], work)


def plain(small: bool, trials: int, max_epochs: int, seed: int) -> Outcome:
    """The plain script."""
    options = ["--trials", str(trials), "--max-epochs", str(max_epochs), "--seed", str(seed), *(["--small"] if small else [])]
    with tempfile.TemporaryDirectory() as home:
        found, wall = timed([sys.executable, "-m", "benchmarks.plain_script", *options], home)
    return Outcome(wall, found["epochs"], found["best"], found["work"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="1,000 / 500 images, batch 32, at most 150 epochs")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    max_epochs = 150 if options.small else 27
    size = "1,000 images, batch 32" if options.small else "50,000 images, batch 128"
    print(f"{options.trials} trials of at most {max_epochs} epochs, {size}, {len(os.sched_getaffinity(0))} CPUs", flush=True)
    pairs = []
    for seed in range(options.seeds):
        sides = [(name, side(options.small, options.trials, max_epochs, seed)) for name, side in (("plain", plain), ("ours", ours))]
        for name, found in sides:
            cost = f"{found.wall_s:6.1f} s  {found.epochs:5} epochs  {found.per_epoch:6.0f} ms an epoch"
            print(f"  seed {seed} {name:5} {cost}  best {found.best:.4f}  {found.work / 1e6:6.1f} M multiply-adds")
        sys.stdout.flush()
        pairs.append((sides[0][1], sides[1][1]))
    median = statistics.median
    print(f"wall per epoch, ours / plain: {median(b.per_epoch / a.per_epoch for a, b in pairs):.2f}   (at most 0.5 is aimed at)")
    print(f"wall per multiply-add:        {median(b.per_work / a.per_work for a, b in pairs):.2f}")
    print(f"wall, ours / plain:           {median(b.wall_s / a.wall_s for a, b in pairs):.2f}")
    print(f"epochs, ours / plain:         {median(b.epochs / a.epochs for a, b in pairs):.2f}")
    print(f"best value, ours - plain:     {median(b.best - a.best for a, b in pairs):+.4f}")


if __name__ == "__main__":
    main()
