"""What a trained network comes to on the sealed test part, example by example. Called once, by the finals, never in a trial."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from trainers import datasets
from trainers.evaluation import outputs_of
from trainers.losses import loss_of
from trainers.recipe import Recipe, Source, taken


def test_scores(network: nn.Module, **arguments: Any) -> Mapping[str, list[float]]:
    """`test_loss` and, of classes, `test_accuracy` (1 or 0) of each test example, by a trial's parameters and settings.

    Raises DataError where the dataset has no test part here, and SealedError in a sealed process.
    """
    source = taken(Source, arguments)
    part, loss = datasets.load_test(source), loss_of(taken(Recipe, arguments), datasets.shape(source))
    with torch.no_grad():
        outputs = outputs_of(network, part)
        measured = [loss.measure(outputs[i : i + 1], part.y[i : i + 1]) for i in range(len(part))]
    scores = {"test_loss": [float(found) for found, _ in measured]}
    shares = [float(accuracy) for _, accuracy in measured if accuracy is not None]
    return scores | ({"test_accuracy": shares} if shares else {})
