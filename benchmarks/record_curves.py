"""Records learning curves of many configurations by real training, as tables in `benchmarks/curves/` that strategies are replayed on.

    python -m benchmarks.record_curves fashion [--work DIR] [--out FILE.npz]

Trains the trainer of a search space, with its own fixed settings, on a part of its examples, at points of a scrambled
Sobol sequence, and the first of them again with other seeds: once in the tables of searches, and in those of the finals
(`benchmarks/curves/seeds/`, small tasks) every point six times. Each training is a line in DIR/NAME.jsonl before the
next one begins: the same command goes on where an interrupted one was. One process, one thread. The data are found as
`hpo data list` says. What a table holds is documented in `benchmarks/curves.py`.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import qmc

from benchmarks.reproductions.runs import Alone
from hpo import space as spaces
from hpo.declarations import find_declared
from hpo.engine.worker import resolve
from hpo.space import Value
from hpo.spec import Spec, load_spec
from hpo.trainer import Trainer, TrainerError

TABLES = Path(__file__).parent / "curves"
SOBOL_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """What is trained: the file of a search space, how many of its examples, at how many points, how many of them again, how often.

    `max_epochs` takes the place of the spec's own.
    """

    spec: str
    train_size: int
    val_size: int
    configurations: int
    repeated: int = 50
    repeats: int = 1
    max_epochs: int | None = None

    def load(self) -> Spec:
        """The spec of the search space."""
        return load_spec(self.spec, overrides=[f"trainer.settings.max_epochs={self.max_epochs}"] if self.max_epochs else [])


@dataclass(frozen=True, slots=True)
class Training:
    """One training: which configuration, and which of its seeds."""

    configuration: int
    seed: int

    @property
    def trial_seed(self) -> int:
        """What the trainer seeds its generators with: no two trainings share it."""
        return self.seed * 1_000_003 + self.configuration


@dataclass(frozen=True, slots=True)
class Recorded:
    """A line of the file of trainings. The lists have an item an epoch, shorter where training diverged or failed."""

    configuration: int
    seed: int
    params: dict[str, Value]
    val_accuracy: list[float]
    val_loss: list[float]
    seconds: float  # median of an epoch, validation included; NaN without an epoch


PROTOCOLS = {
    "fashion": Protocol(spec="search_spaces/fashion.yaml", train_size=5_000, val_size=5_000, configurations=450),
    "imdb": Protocol(spec="search_spaces/imdb.yaml", train_size=8_000, val_size=5_000, configurations=200),
    "mnist": Protocol(spec="search_spaces/mnist.yaml", train_size=5_000, val_size=5_000, configurations=200),
    "seeds/fashion": Protocol(
        spec="search_spaces/fashion_regularisation.yaml",
        train_size=1_000,
        val_size=500,
        configurations=320,
        repeated=320,
        repeats=6,
        max_epochs=16,
    ),
    "seeds/digits": Protocol(
        spec="search_spaces/digits.yaml", train_size=1_197, val_size=300, configurations=320, repeated=320, repeats=6, max_epochs=9
    ),
}


def configurations(spec: Spec, number: int) -> list[dict[str, Value]]:
    """The first `number` points of the scrambled Sobol sequence over the space; more of them begin with the same ones."""
    points = qmc.Sobol(len(spec.space), scramble=True, rng=SOBOL_SEED).random(2 ** math.ceil(math.log2(max(number, 2))))
    return [spaces.at(spec.space, point) for point in points[:number].tolist()]


def trainings(protocol: Protocol) -> list[Training]:
    """All that a table needs; further seeds last, each of all its configurations before the next."""
    first = [Training(i, 0) for i in range(protocol.configurations)]
    again = range(min(protocol.repeated, protocol.configurations))
    return first + [Training(i, seed) for seed in range(1, protocol.repeats + 1) for i in again]


def trainer_of(spec: Spec) -> Trainer:
    """The function of the trainer that the spec names."""
    declaration = find_declared(spec.trainer.name)
    assert declaration is not None  # the spec was checked against it
    return resolve(declaration.entry)


def trained(train: Trainer, spec: Spec, protocol: Protocol, training: Training, params: Mapping[str, Value]) -> Recorded:
    """Train one configuration to the end; a training that diverges ends there."""
    sizes = {"train_size": protocol.train_size, "val_size": protocol.val_size}
    trial = Alone(training.trial_seed, spec.max_epochs)
    accuracy: list[float] = []
    loss: list[float] = []
    seconds: list[float] = []
    epochs = train(trial, **{**spec.trainer.settings, **sizes, **params})
    try:
        for _ in range(spec.max_epochs):
            began = time.perf_counter()
            metrics = next(epochs)
            seconds.append(time.perf_counter() - began)
            accuracy.append(metrics["val_accuracy"])
            loss.append(metrics["val_loss"])
    except TrainerError as error:
        print(f"configuration {training.configuration} ended after {len(accuracy)} epochs: {error}", flush=True)
    epochs.close()
    middle = statistics.median(seconds) if seconds else math.nan
    return Recorded(training.configuration, training.seed, dict(params), accuracy, loss, middle)


def read(file: Path) -> list[Recorded]:
    """The trainings that a file holds; a torn last line, which an interrupted run may leave, is cut off."""
    if not file.exists():
        return []
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, encoding="utf-8")
    return [Recorded(**json.loads(line)) for line in whole.splitlines()]


def record(spec: Spec, protocol: Protocol, file: Path) -> Iterator[Recorded]:
    """Train what `file` lacks, each training a line of it; yields all, those that it had first.

    Raises ValueError where the file is of other configurations: the space was changed since.
    """
    points = configurations(spec, protocol.configurations)
    had = [done for done in read(file) if done.configuration < len(points)]
    for done in had:
        if done.params != points[done.configuration]:
            now = points[done.configuration]
            raise ValueError(f"{file}: configuration {done.configuration} is {done.params}, of {spec.name} it is {now}; remove the file")
    yield from had
    present = {(done.configuration, done.seed) for done in had}
    train = trainer_of(spec)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        for training in trainings(protocol):
            if (training.configuration, training.seed) not in present:
                made = trained(train, spec, protocol, training, points[training.configuration])
                lines.write(json.dumps(asdict(made)) + "\n")
                lines.flush()
                yield made


def columns(recorded: Sequence[Recorded], spec: Spec, protocol: Protocol) -> dict[str, Any]:
    """The arrays of a table, by the keys that `benchmarks/curves.py` documents."""
    first = sorted((r for r in recorded if r.seed == 0), key=lambda r: r.configuration)
    again = sorted((r for r in recorded if r.seed > 0), key=lambda r: (r.seed, r.configuration))
    about: dict[str, Any] = {"spec": protocol.spec, "trainer": spec.trainer.name, "settings": dict(spec.trainer.settings)}
    about |= {"train_size": protocol.train_size, "val_size": protocol.val_size, "space": spec.to_dict()["space"]}
    return {
        "hp_names": np.array(list(spec.space)),
        "hp": np.array([list(r.params.values()) for r in first], dtype=np.float64),
        "correct": _padded([r.val_accuracy for r in first], spec.max_epochs, protocol.val_size),
        "val_loss": _losses([r.val_loss for r in first], spec.max_epochs),
        "seconds": np.array([r.seconds for r in first], dtype=np.float32),
        "repeat_of": np.array([r.configuration for r in again], dtype=np.int32),
        "repeat_correct": _padded([r.val_accuracy for r in again], spec.max_epochs, protocol.val_size),
        "repeat_val_loss": _losses([r.val_loss for r in again], spec.max_epochs),
        "about": np.array(json.dumps(about)),
    }


def _padded(curves: Sequence[Sequence[float]], epochs: int, examples: int) -> Any:
    """Examples that were right, uint16 [n, epochs]: exact, since an accuracy is a share of them. 65535 is NaN."""
    table = np.full((len(curves), epochs), 65535, dtype=np.uint16)
    for row, curve in zip(table, curves, strict=True):
        row[: len(curve)] = np.rint(np.array(curve) * examples)
    return table


def _losses(curves: Sequence[Sequence[float]], epochs: int) -> Any:
    table = np.full((len(curves), epochs), np.nan, dtype=np.float32)
    for row, curve in zip(table, curves, strict=True):
        row[: len(curve)] = curve
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PROTOCOLS)
    parser.add_argument("--work", type=Path, default=Path("build/curves"), help="the folder of the file of trainings")
    parser.add_argument("--out", type=Path, help="the table (benchmarks/curves/NAME.npz)")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    protocol = PROTOCOLS[chosen.name]
    spec = protocol.load()
    total, recorded = len(trainings(protocol)), []
    for done, made in enumerate(record(spec, protocol, chosen.work / f"{chosen.name}.jsonl"), 1):
        recorded.append(made)
        print(f"{done} of {total}: {max(made.val_accuracy, default=math.nan):.4f}, {made.seconds:.3f} s an epoch", flush=True)
    out = chosen.out or TABLES / f"{chosen.name}.npz"
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(out, **columns(recorded, spec, protocol))
    print(f"{out}: {out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
