"""The perceptron: its written gradient is autograd's, bags are rows, and torch can save and export it."""

from typing import get_args

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from tests.trials import sparse_split
from trainers import perceptron
from trainers.losses import BinaryCrossEntropy, CrossEntropy, Loss, SquaredError
from trainers.perceptron import Mlp, write_gradient
from trainers.recipe import Activation
from trainers.splits import Bags, DenseRows

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)


def gradients(net: nn.Module) -> list[Tensor]:
    found = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    assert len(found) == len(list(net.parameters()))
    return found


def expected_gradients(net: Mlp, x: Tensor | Bags, loss: Loss, y: Tensor) -> tuple[Tensor, list[Tensor]]:
    net.zero_grad()
    outputs = net(x)
    loss.measure(outputs, y, training=True)[0].backward()
    return outputs.detach(), gradients(net)


@pytest.mark.parametrize("activation", sorted(perceptron.SLOPES))
@pytest.mark.parametrize("sizes", [(), (16,), (7, 16, 5)])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("loss", [CrossEntropy(5), CrossEntropy(5, 0.2), SquaredError(5)], ids=str)
def test_the_written_gradient_is_autograds(
    activation: Activation, sizes: tuple[int, ...], dropout: float, loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = Mlp(20, 5, sizes=sizes, dropout=dropout, activation=activation)
    x, labels = torch.randn(7, 20), torch.randint(0, 5, (7,))
    assert net.is_plain
    for _ in range(2):  # what is left of the first time must not count the second time
        with torch.no_grad():
            outputs = write_gradient(net, x, loss.targets(labels), loss, torch.Generator().manual_seed(3))
        written = gradients(net)
        for parameter in net.parameters():
            torch.nn.init.constant_(parameter.grad, torch.nan)
    masks = iter(perceptron._masks(net, len(x), torch.Generator().manual_seed(3)))
    monkeypatch.setattr(F, "dropout", lambda h, p, _: h * next(masks) if p else h)
    expected, right = expected_gradients(net, x, loss, labels)
    torch.testing.assert_close(outputs, expected)
    torch.testing.assert_close(written, right)


def test_every_hidden_layer_has_a_mask_of_its_own() -> None:
    net = Mlp(20, 5, sizes=(30, 40), dropout=0.25)
    first, second = perceptron._masks(net, 50, torch.Generator().manual_seed(0))
    assert (first.shape, second.shape) == ((50, 30), (50, 40))
    for mask in (first, second):
        assert mask.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
        assert mask.mean() == pytest.approx(1.0, abs=0.1)
    assert not torch.equal(first, second[:, :30])


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("sizes", [(), (6, 4)])
@pytest.mark.parametrize("loss", [BinaryCrossEntropy(0.1), SquaredError(2)], ids=str)
def test_bags_are_rows(counts: bool, sizes: tuple[int, ...], loss: Loss) -> None:
    torch.manual_seed(0)
    split = sparse_split(counts=counts)
    net = Mlp(split.columns, loss.outputs, sizes=sizes)
    rows = torch.tensor([3, 9, 0, 41, 9])  # of which 9 and 0 are empty
    dense, labels = split.train.x.dense(rows), split.train.y[rows]
    assert dense.sum(1).tolist()[1] == 0 < dense.sum()
    expected = expected_gradients(net, dense, loss, labels)
    for bags in (split.train.x.batch(rows), next(iter(split.train.x.batches(rows, 5)))):
        torch.testing.assert_close(expected_gradients(net, bags, loss, labels), expected)
        with torch.no_grad():
            outputs = write_gradient(net, bags, loss.targets(labels), loss, torch.Generator())
        torch.testing.assert_close((outputs, gradients(net)), expected)


@pytest.mark.parametrize("values", [torch.randint(0, 256, (20, 6), dtype=torch.uint8), torch.randn(20, 6)], ids=["bytes", "floats"])
@pytest.mark.parametrize("size", [1, 3, 20, 30])
def test_dense_rows_come_in_batches_of_their_own(values: Tensor, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = DenseRows(values, 1.0 if values.is_floating_point() else 1 / 255)
    before, order = values.clone(), torch.randperm(20)
    for chunk, few in ((36, 1 << 22), (1 << 17, 1)):  # several chunks, and one; converted beforehand where they are few
        monkeypatch.setattr("trainers.splits.CHUNK", chunk)
        monkeypatch.setattr("trainers.splits.FEW", few)
        batches = list(rows.ready().batches(order, size))
        assert [len(batch) for batch in batches] == [len(part) for part in torch.split(order, size)]
        assert torch.equal(torch.cat(batches), values[order].float() * rows.scale)
        for batch in batches:
            batch.fill_(7)  # as a module may
    assert torch.equal(values, before)


@pytest.mark.parametrize("counts", [True, False])
@pytest.mark.parametrize("size", [1, 8, 64, 100])
def test_sparse_rows_come_in_batches(counts: bool, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = sparse_split(counts=counts).train.x
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("trainers.splits.CHUNK", 50)  # several chunks
    batches = list(rows.batches(order, size))
    assert [len(batch) for batch in batches] == [len(part) for part in order.split(size)]
    for batch, part in zip(batches, order.split(size), strict=True):
        assert torch.equal(batch.dense(rows.columns), rows.dense(part))
    assert torch.equal(rows.dense(slice(5, 11)), rows.dense(torch.arange(5, 11)))
    assert rows.dense(slice(5, 5)).shape == (0, rows.columns)


def test_rows_that_are_all_empty_have_outputs_too() -> None:
    rows = sparse_split().train.x
    net = Mlp(rows.columns, 1)
    with torch.no_grad():
        outputs = write_gradient(net, rows.batch(torch.tensor([0, 9])), torch.ones(2, 1), BinaryCrossEntropy(), torch.Generator())
    assert torch.equal(outputs, net.linears[0].bias.detach().expand(2, 1))
    assert not gradients(net)[0].any()


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_it_is_the_sequential_network(activation: Activation, batch_norm: bool) -> None:
    torch.manual_seed(0)
    layer = {
        "relu": nn.ReLU(), "leaky_relu": nn.LeakyReLU(), "gelu": nn.GELU(), "tanh": nn.Tanh(), "sigmoid": nn.Sigmoid(),
        "softsign": nn.Softsign(),
    }[activation]  # fmt: skip
    net = Mlp(8, 3, sizes=(6, 5), dropout=0.5, batch_norm=batch_norm, activation=activation)
    assert net.is_plain == (not batch_norm and activation != "gelu")
    layers: list[nn.Module] = []
    for i, linear in enumerate(net.linears):
        hidden = i < 2
        layers += [linear, *([net.norms[i]] if batch_norm and hidden else []), *([layer, nn.Dropout(0.5)] if hidden else [])]
    same = nn.Sequential(*layers)
    x = torch.randn(9, 8)
    for training in (True, False):
        torch.manual_seed(1)
        found = net.train(training)(x)
        torch.manual_seed(1)
        torch.testing.assert_close(found, same.train(training)(x))


def test_the_first_weight_lies_transposed_and_nobody_notices() -> None:
    torch.manual_seed(0)
    net = Mlp(8, 3, sizes=(6,), batch_norm=True)
    assert net.linears[0].weight.stride() == (1, 6)
    torch.manual_seed(0)
    assert torch.equal(net.linears[0].weight, nn.Linear(8, 6).weight)
    other = Mlp(8, 3, sizes=(6,), batch_norm=True)
    other.load_state_dict(load(save({name: value.contiguous() for name, value in net.state_dict().items()})))
    assert other.linears[0].weight.stride() == (1, 6)
    x = torch.randn(5, 8)
    assert torch.equal(other.eval()(x), net.eval()(x))
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(net, (x,), dynamic_shapes=({0: batch},)).module()
    for rows in (1, 2, 50):
        x = torch.randn(rows, 8)
        torch.testing.assert_close(exported(x), net(x))
