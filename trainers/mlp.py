"""The multilayer perceptron and its gradient, written out for speed. Knows no trial, no optimizer and no files."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LARGE = 3 << 19  # multiply-adds from which oneDNN's product beats MKL's where MKL is slow (measured on AMD)
_ONEDNN: Any = torch.backends.mkldnn  # of which torch's own types know too little


class Mlp(nn.Module):
    """`depth` hidden ReLU layers of `width` units, each followed by dropout; depth 0 is logistic regression.

    Maps float images [N, pixels], scaled to 0..1, to logits [N, classes].
    """

    def __init__(self, pixels: int, classes: int, *, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        sizes = [pixels, *[width] * depth, classes]
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in itertools.pairwise(sizes))
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.dropout(F.relu(layer(x)), self.dropout, self.training)
        logits: Tensor = self.layers[-1](x)
        return logits

    def weights_and_biases(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        """Weight [outputs, inputs] and bias [outputs] of every layer, from input to output."""
        parameters = list(self.parameters())
        return list(zip(parameters[::2], parameters[1::2], strict=True))


def write_gradient(net: Mlp, x: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
    """Put the gradient of the batch's mean cross-entropy into every parameter's `.grad`; returns the logits [N, classes].

    `x` is float [N, pixels], `targets` float [N, classes] with rows that sum to 1. Dropout is drawn from `generator`.
    The same as autograd's, without its graph. Source: Goodfellow et al. 2016, "Deep Learning", algorithm 6.4.
    """
    layers, activations = net.weights_and_biases(), [x]
    for weight, bias in layers[:-1]:
        activations.append(_drop(_affine(activations[-1], weight, bias).relu_(), net.dropout, generator))
    logits = _affine(activations[-1], *layers[-1])
    delta = torch.softmax(logits, 1).sub_(targets).div_(len(x))
    for (weight, bias), inputs in zip(reversed(layers), reversed(activations), strict=True):
        _prefer_onednn(delta.shape[0] * weight.numel())
        weight.grad = torch.mm(delta.t(), inputs, out=weight.grad)
        bias.grad = torch.sum(delta, 0, out=bias.grad)
        if inputs is not x:
            # an activation is positive exactly where ReLU and dropout let it pass
            delta = torch.mm(delta, weight).mul_(inputs.sign())
            if net.dropout:
                delta.mul_(1 / (1 - net.dropout))
    return logits


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    _prefer_onednn(x.shape[0] * weight.numel())
    return torch.addmm(bias, x, weight.t())


def _drop(x: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Inverted dropout in place. The probability is rounded to 1/65536: 16 random bits a unit cost a fifth of a float."""
    if not probability:
        return x
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64, device=x.device).random_(-(2**63), None, generator=generator)
    below = min(round(probability * 65536), 65535) - 32768
    kept = torch.ge(bits.view(torch.int16)[: x.numel()].view(x.shape), below, out=torch.empty_like(x))
    return x.mul_(kept).mul_(1 / (1 - probability))


@contextlib.contextmanager
def fast_arithmetic() -> Iterator[None]:
    """Within, numbers below 1e-38 count as zero, and large products take oneDNN where that is faster and as accurate.

    Which products do depends on the processor and their size only, so a result does not change from run to run.
    """
    before = _ONEDNN.matmul.fp32_precision
    torch.set_flush_denormal(True)  # dead units leave Adam's averages there: 3-10 % slower on 1,000 images
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        _ONEDNN.matmul.fp32_precision = before


def _prefer_onednn(multiply_adds: int) -> None:
    """Choose the library for the next product; called for every one, since the switch costs 0.2 us."""
    if _onednn_is_better():
        _ONEDNN.matmul.fp32_precision = "bf16" if multiply_adds >= LARGE else "ieee"


@functools.cache
def _onednn_is_better() -> bool:
    """Whether this is a processor on which MKL is slow, and "bf16" here still means full float32 accuracy.

    The setting allows oneDNN to round to bfloat16 (relative error 4e-3), which it does only on processors with matrix
    units for that; elsewhere it merely selects oneDNN's own float32 product. So the accuracy is measured.
    """
    cpuinfo = Path("/proc/cpuinfo")
    if not _ONEDNN.is_available() or not cpuinfo.exists() or "AuthenticAMD" not in cpuinfo.read_text():
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(128, 784, generator=generator), torch.randn(784, 256, generator=generator)
    with fast_arithmetic():
        _ONEDNN.matmul.fp32_precision = "bf16"
        error = (torch.mm(a, b) - torch.mm(a.double(), b.double())).abs().max() / 784**0.5
    return bool(error < 1e-5)
