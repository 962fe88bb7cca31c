"""The searches that are run side by side, their configurations, and the aim of each. Starts nothing."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.peers.task import Axis, Kind, Params
from hpo.space import Float, Int, SearchSpace, at
from hpo.spec import load_spec

FASHION = Path(__file__).parents[1] / "search_spaces" / "fashion.yaml"
IMDB_SPACE = {"learning_rate": Float(3e-5, 3e-3, log=True), "dropout": Float(0.0, 0.6)}
NOTHING_SPACE = {"x": Float(0.0, 1.0)}
VOCABULARY, IMDB_WIDTH = 10_000, 16


@dataclass(frozen=True)
class Row:
    """One search: `trials` configurations of at most `max_epochs`, and the peers it is measured beside.

    `train` and `val` are how many examples are used (None: all), `width` holds where it is not searched, `aims` are the highest
    ratios ours / peer that we want, by peer and measure, `share` the least share of the cores' time that we want to train.
    """

    name: str
    says: str
    kind: Kind
    trials: int
    max_epochs: int
    peers: tuple[str, ...]
    aims: Mapping[tuple[str, str], float]
    train: int | None = None
    val: int | None = None
    batch: int = 128
    width: int = 0
    served: bool = False
    share: float | None = None
    quick: Mapping[str, Any] = field(default_factory=dict)

    @property
    def measures(self) -> tuple[str, ...]:
        """What is compared, as `figures.MEASURES` names it."""
        return ("wall per trial",) if self.kind == Kind.NOTHING else ("wall per epoch", "wall per multiply-add", "wall")

    def space(self) -> SearchSpace:
        """What is searched, on both sides."""
        match self.kind:
            case Kind.IMAGES:
                return load_spec(FASHION).space
            case Kind.TEXTS:
                return IMDB_SPACE
            case Kind.NOTHING:
                return NOTHING_SPACE

    def small(self) -> Row:
        """The same with a handful of short trials, to see that it works."""
        return replace(self, **self.quick)


SMALL = Row(
    "small",
    "1,000 / 500 images, batch 32, SQLite",
    Kind.IMAGES,
    trials=20,
    max_epochs=150,
    train=1_000,
    val=500,
    batch=32,
    peers=("plain", "optuna", "syne_tune", "tight"),
    aims={("plain", "wall per epoch"): 1 / 8},
    share=0.85,
    quick={"trials": 4, "max_epochs": 5},
)
ROWS = {
    row.name: row
    for row in (
        SMALL,
        replace(
            SMALL,
            name="server",
            says="as in small, but records go to a running `mlflow server` of default settings",
            peers=("plain",),
            aims={("plain", "wall per epoch"): 1 / 40},
            share=None,
            served=True,
        ),
        Row(
            "nothing",
            "a trainer that does nothing, one report a trial, SQLite",
            Kind.NOTHING,
            trials=500,
            max_epochs=1,
            peers=("plain",),
            aims={("plain", "wall per trial"): 1 / 40},
            quick={"trials": 20},
        ),
        Row(
            "imdb",
            f"IMDB, {VOCABULARY:,} words, hidden 16-16, batch 32, RMSprop, SQLite; plain: the published Dataset and DataLoader",
            Kind.TEXTS,
            trials=12,
            max_epochs=20,
            batch=32,
            width=IMDB_WIDTH,
            peers=("plain",),
            aims={("plain", "wall per epoch"): 1 / 8},
            quick={"trials": 2, "max_epochs": 2, "train": 500, "val": 200},
        ),
        Row(
            "full",
            "50,000 / 10,000 images, batch 128, SQLite",
            Kind.IMAGES,
            trials=40,
            max_epochs=10,
            peers=("plain", "optuna", "syne_tune", "tight"),
            aims={("plain", "wall per epoch"): 0.4},
            share=0.85,
            quick={"trials": 3, "max_epochs": 2, "train": 2_000, "val": 500},
        ),
    )
}


def configurations(space: SearchSpace, trials: int, seed: int) -> list[Params]:
    """Points of the space, uniform on each parameter's own axis; the same list for every side."""
    rng = random.Random(seed)
    return [at(space, [rng.random() for _ in space]) for _ in range(trials)]


def axes(space: SearchSpace) -> dict[str, Axis]:
    """The space in words that a peer understands, which knows no hpo."""
    numbers = {name: parameter for name, parameter in space.items() if isinstance(parameter, Float | Int)}
    return {name: Axis(p.low, p.high, p.log, isinstance(p, Int)) for name, p in numbers.items()}


def our_spec(row: Row, points: list[Params], seed: int) -> dict[str, Any]:
    """The row as a spec: every configuration a starting point, ASHA's stopping rule, nothing that the peers do not do.

    No finals, no stopper, a constant learning rate, no label smoothing.
    """
    metric = "value" if row.kind == Kind.NOTHING else "val_accuracy"
    return {
        "name": "bench",
        "trainer": _trainer(row),
        "objective": {"metric": metric, "direction": "maximize"},
        "space": {
            name: {"type": "int" if axis.whole else "float", "low": axis.low, "high": axis.high, "log": axis.log}
            for name, axis in axes(row.space()).items()
        },
        "start": points,
        "sampler": {"name": "tpe"},
        "pruner": {"name": "asha", "rule": "stop", "grace_epochs": 1, "reduction_factor": 3},
        "stopper": {"name": "none"},
        "budget": {"trials": row.trials, "time": "6h"},
        "resources": {"cpus": 1, "gpus": 0},
        "seed": seed,
        "finals": "none",
    }


def _trainer(row: Row) -> dict[str, Any]:
    if row.kind == Kind.NOTHING:
        return {"settings": {"max_epochs": row.max_epochs}}
    settings: dict[str, Any] = {
        "max_epochs": row.max_epochs,
        "batch_size": row.batch,
        "depth": 2,
        "train_size": row.train,
        "val_size": row.val,
    }
    if row.kind == Kind.TEXTS:
        settings |= {"dataset": "imdb", "vocabulary": VOCABULARY, "width": row.width, "optimizer": "rmsprop"}
    else:
        settings |= {"dataset": "fashion-mnist", "schedule": "constant", "label_smoothing": 0}
    return {"name": "mlp", "settings": {name: value for name, value in settings.items() if value is not None}}
