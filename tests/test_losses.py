"""Losses: their targets, their gradients, what they measure, and which examples they refuse."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from hpo.trainer import TrainerError
from tests.trials import dense_split, sparse_split, values_split
from trainers.losses import BinaryCrossEntropy, CrossEntropy, Loss, SquaredError, loss_of, smoothed
from trainers.recipe import Recipe
from trainers.splits import Split

LABELS = torch.tensor([0, 2, 1, 2])
BITS = torch.tensor([0, 1, 1, 0])
VALUES = torch.tensor([[0.5, -1.0, 2.0], [0.0, 3.0, 1.0], [1.0, 1.0, 1.0], [-2.0, 0.0, 0.5]])
EVERY: list[tuple[Loss, torch.Tensor]] = [
    (CrossEntropy(3), LABELS),
    (CrossEntropy(3, 0.3), LABELS),
    (BinaryCrossEntropy(), BITS),
    (BinaryCrossEntropy(0.1), BITS),
    (SquaredError(3), LABELS),
    (SquaredError(3, 0.3), LABELS),
    (SquaredError(3, classes=False), VALUES),
]


@pytest.mark.parametrize(("loss", "y"), EVERY, ids=lambda v: str(v) if not isinstance(v, torch.Tensor) else "")
def test_the_gradient_is_that_of_the_loss_that_is_measured_in_training(loss: Loss, y: torch.Tensor) -> None:
    outputs = torch.randn(4, loss.outputs, generator=torch.Generator().manual_seed(0), requires_grad=True)
    measured, _ = loss.measure(outputs, y, training=True)
    measured.backward()
    assert outputs.grad is not None
    torch.testing.assert_close(loss.gradient(outputs.detach(), loss.targets(y)), outputs.grad)


@pytest.mark.parametrize(("loss", "y"), EVERY, ids=lambda v: str(v) if not isinstance(v, torch.Tensor) else "")
def test_validation_knows_no_smoothing(loss: Loss, y: torch.Tensor) -> None:
    bare = type(loss)(**({"outputs": 3} if loss.outputs == 3 else {}), **({"classes": False} if y.is_floating_point() else {}))
    outputs = torch.randn(4, loss.outputs, generator=torch.Generator().manual_seed(0))
    assert loss.measure(outputs, y) == bare.measure(outputs, y) == bare.measure(outputs, y, training=True)


def test_the_formulas() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    labels = torch.tensor([1, 0])
    torch.testing.assert_close(CrossEntropy(3).measure(logits, labels)[0], -torch.log_softmax(logits, 1)[[0, 1], labels].mean())
    torch.testing.assert_close(SquaredError(3).measure(logits, labels)[0], torch.tensor((1 + 1 + 0 + 1 + 0 + 9) / 6))
    one = torch.tensor([[0.7], [-0.2]])
    expected = -(torch.log(torch.sigmoid(one[0, 0])) + torch.log(1 - torch.sigmoid(one[1, 0]))) / 2
    torch.testing.assert_close(BinaryCrossEntropy().measure(one, torch.tensor([1, 0]))[0], expected)


@pytest.mark.parametrize(
    ("loss", "outputs", "y", "accuracy"),
    [
        (CrossEntropy(3), [[0, 1, 0], [5, 1, 2.0]], [1, 2], 0.5),
        (SquaredError(2), [[0.1, 0.0], [0.4, 0.6]], [0, 1], 1.0),  # winner takes all
        (BinaryCrossEntropy(), [[-0.1], [3.0], [2.0], [0.0]], [0, 1, 0, 0], 0.75),  # a logit above 0 is a 1
    ],
)
def test_the_accuracy(loss: Loss, outputs: list[list[float]], y: list[int], accuracy: float) -> None:
    found = loss.measure(torch.tensor(outputs), torch.tensor(y))[1]
    assert found is not None
    assert found.item() == accuracy


def test_values_have_no_accuracy() -> None:
    assert SquaredError(3, classes=False).measure(VALUES, VALUES) == (torch.tensor(0.0), None)


def test_smoothing_spreads_its_share_over_the_other_classes() -> None:
    torch.testing.assert_close(smoothed(torch.tensor([1, 0]), 4, 0.3), torch.tensor([[0.1, 0.7, 0.1, 0.1], [0.7, 0.1, 0.1, 0.1]]))
    assert smoothed(LABELS, 3, 0.0).equal(F.one_hot(LABELS, 3).float())
    torch.testing.assert_close(BinaryCrossEntropy(0.1).targets(BITS), torch.tensor([[0.1], [0.9], [0.9], [0.1]]))
    assert torch.equal(BITS, torch.tensor([0, 1, 1, 0]))  # the labels are shared memory


@pytest.mark.parametrize(
    ("recipe", "split", "expected"),
    [
        (Recipe(label_smoothing=0.1), dense_split(), CrossEntropy(3, 0.1)),
        (Recipe(label_smoothing=0.1), sparse_split(), BinaryCrossEntropy(0.1)),
        (Recipe(loss="squared_error"), sparse_split(), SquaredError(2)),
        (Recipe(loss="squared_error"), values_split(), SquaredError(2, classes=False)),
    ],
    ids=["classes", "two classes", "squared", "values"],
)
def test_which_loss_it_is(recipe: Recipe, split: object, expected: Loss) -> None:
    assert loss_of(recipe, split) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("recipe", "split", "limit"),
    [
        (Recipe(label_smoothing=0.5), sparse_split(), "2 classes no more than each other one gets; it must be below 0.5"),
        (Recipe(label_smoothing=0.9), dense_split(), "3 classes no more than each other one gets; it must be below 0.667"),
        (Recipe(label_smoothing=0.5, loss="squared_error"), sparse_split(), "2 classes .*must be below 0.5"),
    ],
    ids=["two", "three", "squared"],
)
def test_smoothing_that_hides_the_label_is_refused(recipe: Recipe, split: Split, limit: str) -> None:
    with pytest.raises(TrainerError, match=f"label_smoothing {recipe.label_smoothing:g} leaves the label of .*{limit}"):
        loss_of(recipe, split)
    loss_of(replace(recipe, label_smoothing=0.49), split)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (Recipe(), "loss cross_entropy is for classes.*set loss: squared_error"),
        (Recipe(loss="squared_error", label_smoothing=0.1), "label_smoothing 0.1 is for classes"),
    ],
)
def test_values_refuse_what_is_for_classes(recipe: Recipe, said: str) -> None:
    with pytest.raises(TrainerError, match=said):
        loss_of(recipe, values_split())
