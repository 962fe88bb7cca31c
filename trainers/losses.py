"""What is minimised: targets, the gradient by the outputs, and what is measured. Knows no network and no optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from hpo.trainer import TrainerError
from trainers.recipe import Recipe


class Loss(Protocol):
    """The mean loss over a batch of a network with so many `outputs`; `y` are labels int64 [n] or values float32 [n, outputs]."""

    @property
    def outputs(self) -> int: ...

    def targets(self, y: Tensor) -> Tensor:
        """What the outputs shall be in training, float32 [n, outputs], with the label smoothing."""

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The gradient of the batch's mean loss by the outputs, float32 [n, outputs], in new memory."""

    def measure(self, outputs: Tensor, y: Tensor, *, training: bool = False) -> tuple[Tensor, Tensor | None]:
        """Loss and accuracy (None where `y` are values), scalar tensors.

        The loss is that of the bare labels; with `training` it is the one that is minimised, label smoothing included.
        """


class Outputs(Protocol):
    """What a loss must know of the examples: `outputs` counts the classes, or the values where they do not classify."""

    @property
    def outputs(self) -> int: ...

    @property
    def classifies(self) -> bool: ...


def loss_of(recipe: Recipe, shape: Outputs) -> Loss:
    """The loss that the recipe names, for examples of this shape. Raises TrainerError for what has no meaning for them."""
    if not shape.classifies:
        _check_values(recipe)
        return SquaredError(shape.outputs, classes=False)
    _check_smoothing(recipe.label_smoothing, shape.outputs)
    if recipe.loss == "squared_error":
        return SquaredError(shape.outputs, recipe.label_smoothing)
    return BinaryCrossEntropy(recipe.label_smoothing) if shape.outputs == 2 else CrossEntropy(shape.outputs, recipe.label_smoothing)


def _check_values(recipe: Recipe) -> None:
    if recipe.loss != "squared_error":
        raise TrainerError(f"loss {recipe.loss} is for classes, and the target of these examples is a value; set loss: squared_error")
    if recipe.label_smoothing:
        raise TrainerError(f"label_smoothing {recipe.label_smoothing:g} is for classes, and the target of these examples is a value; set 0")


def _check_smoothing(smoothing: float, classes: int) -> None:
    if smoothing >= 1 - 1 / classes:
        raise TrainerError(
            f"label_smoothing {smoothing:g} leaves the label of {classes} classes no more than each other one gets; "
            f"it must be below {1 - 1 / classes:.3g}"
        )


def smoothed(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Float32 [n, classes]: 1 - smoothing on the label, smoothing / (classes - 1) on each other class.

    Source: Goodfellow et al. 2016, "Deep Learning", section 7.5.1.
    """
    one_hot = F.one_hot(labels, classes).float()
    return torch.lerp(1 - one_hot, one_hot, 1 - smoothing).div_(torch.where(one_hot > 0, 1, classes - 1)) if smoothing else one_hot


def _share(right: Tensor) -> Tensor:
    return right.float().mean()


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """- sum_k t_k log softmax(o)_k, in nats, of one logit for each of `outputs` classes (Goodfellow et al. 2016, section 6.2.2.3)."""

    outputs: int
    smoothing: float = 0.0

    def targets(self, y: Tensor) -> Tensor:
        return smoothed(y, self.outputs, self.smoothing)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.softmax(outputs, 1).sub_(targets).div_(len(outputs))

    def measure(self, outputs: Tensor, y: Tensor, *, training: bool = False) -> tuple[Tensor, Tensor]:
        loss = F.cross_entropy(outputs, self.targets(y) if training and self.smoothing else y)
        return loss, _share(outputs.argmax(1) == y)


@dataclass(frozen=True, slots=True)
class BinaryCrossEntropy:
    """- t log s(o) - (1 - t) log(1 - s(o)), s the sigmoid, in nats, of one logit o (Goodfellow et al. 2016, section 6.2.2.2).

    The label 1 has the target t = 1 - smoothing, the label 0 t = smoothing. A logit above 0 is a 1.
    """

    smoothing: float = 0.0

    @property
    def outputs(self) -> int:
        return 1

    def targets(self, y: Tensor) -> Tensor:
        return y.float().mul_(1 - 2 * self.smoothing).add_(self.smoothing).unsqueeze(1)

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.sigmoid(outputs).sub_(targets).div_(len(outputs))

    def measure(self, outputs: Tensor, y: Tensor, *, training: bool = False) -> tuple[Tensor, Tensor]:
        targets = self.targets(y) if training else y.float().unsqueeze(1)
        return F.binary_cross_entropy_with_logits(outputs, targets), _share((outputs[:, 0] > 0) == y)


@dataclass(frozen=True, slots=True)
class SquaredError:
    """(o - t)^2, the mean over examples and outputs: Prechelt's E = 100 / (N P) sum (o - t)^2 is 100 times this where targets are 0..1.

    Each class has an output, 1 for its examples and 0 for the others, and the largest output is the class (winner takes
    all). Without `classes` the targets are the values themselves, and there is no accuracy.

    Source: Prechelt 1994, "Proben1", section 2.6.
    """

    outputs: int
    smoothing: float = 0.0
    classes: bool = True

    def targets(self, y: Tensor) -> Tensor:
        return smoothed(y, self.outputs, self.smoothing) if self.classes else y

    def gradient(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).mul_(2 / outputs.numel())

    def measure(self, outputs: Tensor, y: Tensor, *, training: bool = False) -> tuple[Tensor, Tensor | None]:
        if not self.classes:
            return F.mse_loss(outputs, y), None
        targets = self.targets(y) if training else F.one_hot(y, self.outputs).float()
        return F.mse_loss(outputs, targets), _share(outputs.argmax(1) == y)
