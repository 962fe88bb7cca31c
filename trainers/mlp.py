"""The trainer `mlp`: a multilayer perceptron for images, tables and bags of words; the loop is in `loop`, the net in `perceptron`."""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import Any

from hpo.trainer import Metrics, RunningTrial
from trainers import datasets
from trainers.datasets import Shape
from trainers.gradients import autograd
from trainers.loop import fit
from trainers.losses import loss_of
from trainers.perceptron import Mlp, write_gradient
from trainers.recipe import Layers, Recipe, Source, names, taken
from trainers.seeds import seeded
from trainers.splits import Split
from trainers.testing import test_scores

__all__ = ["build", "test_scores", "train"]

KNOWN = names(Recipe, Layers, Source) | {"max_epochs"}


def train(trial: RunningTrial, **arguments: Any) -> Generator[Metrics, None, None]:
    """Train by these fields of `Layers`, `Recipe` and `Source`; yields what `trainers.loop.fit` does.

    Raises TypeError for another argument, DataError where the dataset is missing or damaged, and what `fit` raises.
    """
    _check(arguments)
    split = datasets.load(taken(Source, arguments), trial.device)
    recipe = taken(Recipe, arguments)
    with seeded(trial.seed):
        net = _net(taken(Layers, arguments), recipe, split)
    yield from fit(trial, net, split, recipe, write_gradient if net.is_plain else autograd)


def build(**arguments: Any) -> Mlp:
    """The untrained network of a trial's parameters and settings, which `load_state_dict` gives a checkpoint's `model`.

    It maps float32 rows [N, columns], scaled as in training, to [N, outputs]: a logit a class (one logit where there are
    two), with loss squared_error an output a class or value. Reads no examples.
    """
    _check(arguments)
    return _net(taken(Layers, arguments), taken(Recipe, arguments), datasets.shape(taken(Source, arguments)))


def _net(layers: Layers, recipe: Recipe, shape: Shape | Split) -> Mlp:
    return Mlp(
        shape.columns,
        loss_of(recipe, shape).outputs,
        sizes=layers.sizes,
        dropout=layers.dropout,
        batch_norm=layers.batch_norm,
        activation=layers.activation,
    )


def _check(arguments: Collection[str]) -> None:
    if unknown := sorted(set(arguments) - KNOWN):
        raise TypeError(f"mlp takes no {', '.join(unknown)}; it takes {', '.join(sorted(KNOWN))}")
