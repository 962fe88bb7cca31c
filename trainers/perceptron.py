"""The multilayer perceptron and its gradient, written out for speed. Knows no trial, no optimizer and no files."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainers.losses import Loss
from trainers.products import prefer_onednn
from trainers.recipe import Activation
from trainers.regularisation import kept
from trainers.splits import Bags

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softsign": F.softsign,
}
# the derivatives, as functions of the activation's own value; GELU's is none of it
SLOPES: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": torch.sign,  # `write_gradient` has a shorter way
    "leaky_relu": lambda h: torch.where(h > 0, 1.0, 0.01).to(h.dtype),
    "tanh": lambda h: 1 - h * h,
    "sigmoid": lambda h: h * (1 - h),
    "softsign": lambda h: (1 - h.abs()).square_(),
}


class Mlp(nn.Module):
    """Hidden layers of these `sizes`, each linear, (batch-normalised), activated and dropped out; without any, logistic regression.

    Maps float32 rows [N, columns], or `Bags` of as many, to [N, outputs].
    """

    takes_bags = True
    replayable = True

    def __init__(
        self,
        columns: int,
        outputs: int,
        *,
        sizes: Sequence[int] = (),
        dropout: float = 0.0,
        batch_norm: bool = False,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*ends) for ends in itertools.pairwise((columns, *sizes, outputs)))
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for size in sizes if batch_norm)
        # in memory the first weight is [columns, outputs]: what a word adds to all units lies together
        first = self.linears[0]
        first.weight = nn.Parameter(torch.empty(columns, first.out_features).copy_(first.weight.detach().t()).t())
        self.dropout = dropout
        self.activation: Activation = activation

    def forward(self, x: Tensor | Bags) -> Tensor:
        *hidden, last = self.linears
        for layer, norm in itertools.zip_longest(hidden, self.norms):
            h = _linear(layer, x)
            h = h if norm is None else norm(h)
            x = F.dropout(ACTIVATIONS[self.activation](h), self.dropout, self.training)
        return _linear(last, x)

    @property
    def linears(self) -> list[nn.Linear]:
        """The layers from input to output."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    @functools.cached_property
    def weights_and_biases(self) -> list[tuple[Tensor, Tensor]]:
        """Weight [outputs, inputs] and bias [outputs] of every layer, from input to output."""
        return [(layer.weight, layer.bias) for layer in self.linears]

    def choose_library(self, rows: int, *, sparse: bool) -> None:
        """Choose who multiplies in a pass over so many rows, by the largest product; within `fast_arithmetic`."""
        weights = [weight for weight, _ in self.weights_and_biases[sparse:]]
        prefer_onednn(rows * max((weight.numel() for weight in weights), default=0))

    @property
    def is_plain(self) -> bool:
        """Whether `write_gradient` knows its gradient."""
        return not self.norms and self.activation in SLOPES


def _linear(layer: nn.Linear, x: Tensor | Bags) -> Tensor:
    outputs: Tensor = _BagProduct.apply(x, layer.weight.t()) + layer.bias if isinstance(x, Bags) else layer(x)  # type: ignore[no-untyped-call]
    return outputs


class _BagProduct(torch.autograd.Function):
    """`bags.matmul(weight)`, whose gradient torch computes six times as slowly."""

    @staticmethod
    def forward(ctx: Any, bags: Bags, weight: Tensor) -> Tensor:
        ctx.bags, ctx.weight = bags, weight
        return bags.matmul(weight)

    @staticmethod
    def backward(ctx: Any, delta: Tensor) -> tuple[None, Tensor]:
        return None, ctx.bags.transposed_matmul(delta, torch.empty_like(ctx.weight))


def write_gradient(net: Mlp, x: Tensor | Bags, targets: Tensor, loss: Loss, generator: torch.Generator) -> Tensor:
    """Put the gradient of the batch's mean loss into every parameter's `.grad`; returns the outputs [N, outputs].

    `x` is float [N, columns] or Bags, `targets` float [N, outputs]. Dropout is drawn from `generator`. Call it without
    autograd (torch.no_grad). The same as autograd's, without its graph, for a net that `is_plain`.
    Source: Goodfellow et al. 2016, "Deep Learning", algorithm 6.4.
    """
    *hidden, last = layers = net.weights_and_biases
    is_relu = net.activation == "relu"
    masks = _masks(net, len(x), generator)
    inputs: list[Tensor | Bags] = [x]
    slopes: list[Tensor] = []  # of ReLU its own values: 0 where its slope is 0, and where it was dropped
    for number, (weight, bias) in enumerate(hidden):
        h = _affine(inputs[-1], weight, bias)
        h = h.relu_() if is_relu else ACTIVATIONS[net.activation](h)
        slopes.append(h if is_relu else SLOPES[net.activation](h))
        if masks:
            h.mul_(masks[number])
            if not is_relu:
                slopes[-1].mul_(masks[number])
        inputs.append(h)
    outputs = _affine(inputs[-1], *last)
    delta = loss.gradient(outputs, targets)
    for (weight, bias), below in zip(reversed(layers), reversed(inputs), strict=True):
        bias.grad = torch.sum(delta, 0, out=bias.grad)
        _write(weight, delta, below)
        if slopes:
            prefer_onednn(delta.shape[0] * weight.numel())
            delta = torch.mm(delta, weight)
            if not is_relu:
                delta.mul_(slopes.pop())
                continue
            torch.ops.aten.threshold_backward.grad_input(delta, slopes.pop(), 0, grad_input=delta)
            if masks:
                delta.mul_(1 / (1 - net.dropout))
    return outputs


def _masks(net: Mlp, rows: int, generator: torch.Generator) -> list[Tensor]:
    """Of each hidden layer [rows, units]: 0 for what is dropped, 1 / (1 - dropout) for what is left; none without dropout."""
    if not net.dropout:
        return []
    sizes = [rows * bias.numel() for _, bias in net.weights_and_biases[:-1]]
    drawn = kept(net.weights_and_biases[0][1].new_empty(sum(sizes)), net.dropout, generator).mul_(1 / (1 - net.dropout))
    return [mask.view(rows, -1) for mask in torch.split(drawn, sizes)]


def _affine(x: Tensor | Bags, weight: Tensor, bias: Tensor) -> Tensor:
    if isinstance(x, Bags):
        return x.matmul(weight.t()).add_(bias)
    prefer_onednn(x.shape[0] * weight.numel())
    return torch.addmm(bias, x, weight.t())


def _write(weight: Tensor, delta: Tensor, inputs: Tensor | Bags) -> None:
    """The gradient of a layer's weight, in the weight's own layout."""
    if weight.grad is None:
        weight.grad = torch.empty_like(weight)
    if isinstance(inputs, Bags):
        inputs.transposed_matmul(delta, weight.grad.t())
    else:
        prefer_onednn(delta.shape[0] * weight.numel())
        torch.mm(delta.t(), inputs, out=weight.grad)
