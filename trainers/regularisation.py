"""Penalties, noise and limits on weights and inputs. Knows no network, no optimizer and no loop; draws from a given generator only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def l1_penalty(weights: Iterable[Tensor], strength: float) -> Tensor:
    """Scalar penalty `strength * sum |w|` over weights (biases are left alone).

    Source: Goodfellow et al. 2016, "Deep Learning", eq. 7.18.
    """
    return strength * torch.stack([weight.abs().sum() for weight in weights]).sum()


@torch.no_grad()
def add_l1_gradient(weights: Iterable[nn.Parameter], strength: float) -> None:
    """Add the gradient of `l1_penalty`, `strength * sign(w)`, to each weight's `.grad`; at 0 it is 0.

    Source: Goodfellow et al. 2016, "Deep Learning", eq. 7.20.
    """
    for weight in weights:
        if weight.grad is not None:
            weight.grad.add_(weight.sign(), alpha=strength)


@torch.no_grad()
def limit_norms(weights: Iterable[Tensor], longest: float) -> None:
    """Max-norm: shorten each unit's incoming weight vector to at most `longest`, in place; shorter ones stay.

    A weight is [units, inputs], or [channels, inputs, height, width], where a channel's whole kernel is the vector.
    Source: Srivastava et al. 2014, "Dropout", section 5.1 (there of hidden units; here of output units too).
    """
    for weight in weights:
        weight.renorm_(2, 0, longest)


def noisy(x: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    """`x` plus Gaussian noise of this standard deviation, float32 like `x`, in new memory.

    Source: Goodfellow et al. 2016, "Deep Learning", section 7.5; Bishop 1995, "Training with noise is equivalent to
    Tikhonov regularization".
    """
    return torch.empty_like(x).normal_(0, deviation, generator=generator).add_(x)


@contextmanager
def perturbed(weights: Sequence[nn.Parameter], *, noise: float, dropconnect: float, generator: torch.Generator) -> Iterator[None]:
    """Within, each weight w is m (w + e) / (1 - p): e is Gaussian of deviation `noise`, m is 0 with p = `dropconnect`, else 1.

    Compute the gradient within. At the exit the weights are what they were, to the bit, and each `.grad`, so far that
    with respect to the perturbed weight, is multiplied with m / (1 - p): that with respect to w (chain rule).
    Each weight of a batch has one mask (Wan et al. 2013 draw one for each example), and the network that is evaluated has
    the mean weights instead of their section 3.2's moment matching.

    Source: Goodfellow et al. 2016, "Deep Learning", section 7.5 (noise on weights); Wan et al. 2013, "Regularization of Neural
    Networks using DropConnect", eqs. 4-6, scaled in training as inverted dropout is.
    """
    with torch.no_grad():
        originals = [weight.clone() for weight in weights]
        factors = [kept(weight, dropconnect, generator).div_(1 - dropconnect) for weight in weights] if dropconnect else []
        if noise:
            for weight in weights:
                weight.add_(torch.empty_like(weight).normal_(0, noise, generator=generator))
        for weight, factor in zip(weights, factors, strict=False):
            weight.mul_(factor)
    try:
        yield
        for weight, factor in zip(weights, factors, strict=False):
            if weight.grad is not None:
                weight.grad.mul_(factor)
    finally:
        with torch.no_grad():
            for weight, original in zip(weights, originals, strict=True):
                weight.copy_(original)


def kept(like: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Zeros with this probability (rounded to 1/65536), else ones, float32 in the shape of `like`."""
    # 16 random bits an element cost a fifth of a random float
    bits = torch.empty(-(-like.numel() // 4), dtype=torch.int64, device=like.device).random_(-(2**63), None, generator=generator)
    below = min(round(probability * 65536), 65535) - 32768
    # written as numbers at once: by way of booleans it takes eight times as long
    return torch.ge(
        bits.view(torch.int16)[: like.numel()].view(like.shape), below, out=torch.empty(like.shape, dtype=like.dtype, device=like.device)
    )
