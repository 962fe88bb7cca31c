"""The gradient of a batch's loss by autograd, for any network, in float32 or with products in bfloat16. Knows no optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trainers.losses import Loss
from trainers.splits import Bags

# (net, inputs, targets, loss, generator) -> outputs: leaves the gradient of the batch's mean loss in every `.grad`
Gradient = Callable[[Any, Any, Tensor, Loss, torch.Generator], Tensor]


def autograd(net: nn.Module, x: Tensor | Bags, targets: Tensor, loss: Loss, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """The gradient by autograd, for any module; what it draws at random comes from torch's global generators."""
    net.zero_grad()
    choose_library(net, len(x), sparse=isinstance(x, Bags))
    with torch.enable_grad():
        outputs: Tensor = net(x)
    return _backward(outputs, targets, loss)


def autograd_in_bfloat16(net: nn.Module, x: Tensor | Bags, targets: Tensor, loss: Loss, generator: torch.Generator) -> Tensor:  # noqa: ARG001
    """As `autograd`, but products and convolutions round what they multiply to bfloat16 (8 bits, relative error 4e-3).

    Weights, their gradients and the loss stay float32, and so does what `torch.autocast` keeps so: sums of many numbers.
    """
    net.zero_grad()
    with torch.enable_grad():
        with torch.autocast(targets.device.type, torch.bfloat16):
            rounded: Tensor = net(x)
        outputs = rounded.float()
    return _backward(outputs, targets, loss)


def choose_library(net: nn.Module, rows: int, *, sparse: bool) -> None:
    """Have a network that offers it choose who multiplies in a pass over so many rows. A user's own is left as torch is by itself:

    where a library was chosen, torch's older functions for that raise (`torch.get_float32_matmul_precision`).
    """
    if choose := getattr(net, "choose_library", None):
        choose(rows, sparse=sparse)


def _backward(outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    delta = loss.gradient(outputs.detach(), targets)
    outputs.backward(delta)  # type: ignore[no-untyped-call]
    return outputs.detach()
