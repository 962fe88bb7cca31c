"""What a trainer is told, as data: where the examples come from, and how they are learned. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

T = TypeVar("T")

Optimizer = Literal["sgd", "rmsprop", "adam", "adamw", "rprop"]
Schedule = Literal["constant", "linear", "cosine", "exponential"]
Activation = Literal["relu", "leaky_relu", "gelu", "tanh", "sigmoid", "softsign"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Which examples: a known dataset, or `dataset="file"` with a path of the user's own.

    `problem` is Proben1's (with its permutation), `vocabulary` the number of the most frequent words that are kept of a
    text dataset (None: all), `validation` what SST-2 validates on. A file's `target` is its column of labels or values
    (for a .npy file of inputs: the .npy file of these); `val_share` and `test_share` of its rows, drawn with
    `split_seed`, validate and are sealed for the end. The first `train_size` and `val_size` examples are used (None: all).
    """

    dataset: str = "fashion-mnist"
    problem: str = "cancer1"
    vocabulary: int | None = None
    validation: Literal["dev", "sentences"] = "dev"
    path: str | None = None
    target: str | None = None
    val_share: float = 0.2
    test_share: float = 0.2
    split_seed: int = 0
    train_size: int | None = None
    val_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """The hidden layers of a multilayer perceptron: `depth` of `width` units, or those of `widths` ("128-64")."""

    width: int = 128
    depth: int = 2
    widths: str | None = None
    dropout: float = 0.0
    batch_norm: bool = False
    activation: Activation = "relu"

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of each hidden layer, from input to output."""
        return tuple(int(width) for width in self.widths.split("-")) if self.widths else (self.width,) * self.depth


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a network is trained. Each field is a hyperparameter of every trainer that uses `trainers.loop`.

    `decay` None is what the optimizer's name means (decoupled for adamw,
    coupled for the others). `report_every` counts the steps between two measurements, each of which is then an epoch to
    the engine (None: one pass over the training set). `cuda_graphs` false launches each kernel of a step by itself.
    """

    learning_rate: float = 1e-3
    optimizer: Optimizer = "adamw"
    momentum: float = 0.9
    decay: Literal["decoupled", "coupled"] | None = None
    weight_decay: float = 0.0
    l1: float = 0.0
    max_norm: float | None = None
    batch_size: int = 128
    schedule: Schedule = "constant"
    warmup_epochs: float = 0.0
    loss: Literal["cross_entropy", "squared_error"] = "cross_entropy"
    label_smoothing: float = 0.0
    dropconnect: float = 0.0
    weight_noise: float = 0.0
    input_noise: float = 0.0
    shift: int = 0
    rotation: float = 0.0
    scaling: float = 0.0
    flip: bool = False
    report_every: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    cuda_graphs: bool = True
    layer_statistics: bool = False


def taken(kind: type[T], arguments: Mapping[str, Any]) -> T:
    """An instance of a dataclass from the arguments that it has as fields; the others are somebody else's."""
    return kind(**{field.name: arguments[field.name] for field in dataclasses.fields(kind) if field.name in arguments})  # type: ignore[arg-type]


def names(*kinds: type) -> frozenset[str]:
    """The names of all fields of these dataclasses."""
    return frozenset(field.name for kind in kinds for field in dataclasses.fields(kind))
