"""Penalties, noise and limits are what their formulas say, and weights that were perturbed come back to the bit."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from trainers.regularisation import add_l1_gradient, kept, l1_penalty, limit_norms, noisy, perturbed

pytestmark = pytest.mark.usefixtures("one_thread")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random(*shapes: tuple[int, ...], seed: int = 0) -> list[nn.Parameter]:
    draws = generator(seed)
    return [nn.Parameter(torch.randn(shape, generator=draws)) for shape in shapes]


def cubes(weights: list[nn.Parameter]) -> Tensor:
    """A loss whose gradient depends on the weights."""
    return torch.stack([(weight**3).sum() for weight in weights]).sum()


# ---- L1


def test_the_l1_penalty_by_hand() -> None:
    weights = [nn.Parameter(torch.tensor([[1.0, -2.0], [0.0, 0.5]])), nn.Parameter(torch.tensor([[-4.0]]))]
    assert l1_penalty(weights, 0.1).item() == pytest.approx(0.75)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    add_l1_gradient(weights, 0.1)
    assert torch.allclose(weights[0].grad, torch.tensor([[1.1, 0.9], [1.0, 1.1]]))  # type: ignore[arg-type]
    assert torch.allclose(weights[1].grad, torch.tensor([[0.9]]))  # type: ignore[arg-type]


@given(st.integers(0, 1000), st.floats(0, 10))
def test_the_l1_gradient_is_autograds(seed: int, strength: float) -> None:
    by_hand, by_autograd = random((4, 3), (2, 4), seed=seed), random((4, 3), (2, 4), seed=seed)
    cubes(by_hand).backward()
    add_l1_gradient(by_hand, strength)
    (cubes(by_autograd) + l1_penalty(by_autograd, strength)).backward()
    for ours, theirs in zip(by_hand, by_autograd, strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)  # type: ignore[arg-type]


# ---- max-norm


def test_long_weight_vectors_are_shortened_and_others_stay() -> None:
    weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [0.0, -2.0]]))
    kernel = nn.Parameter(torch.stack([torch.full((1, 3, 3), 2.0), torch.full((1, 3, 3), 0.25)]))
    limit_norms([weight, kernel], 1.0)
    assert torch.allclose(weight, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0], [0.0, -1.0]]))
    assert torch.allclose(kernel[0], torch.full((1, 3, 3), 1 / 3))
    assert torch.equal(kernel[1], torch.full((1, 3, 3), 0.25))


@given(st.integers(0, 1000), st.floats(0.01, 10))
def test_no_vector_is_longer_and_none_turns(seed: int, longest: float) -> None:
    (weight,) = random((6, 5), seed=seed)
    before = weight.detach().clone()
    limit_norms([weight], longest)
    lengths = before.norm(dim=1, keepdim=True)
    assert torch.allclose(weight, before * (longest / lengths).clamp(max=1), atol=1e-5)


# ---- noise


def test_noise_on_inputs_has_the_deviation_and_leaves_the_inputs() -> None:
    x = torch.rand(200, 100, generator=generator())
    before = x.clone()
    noise = noisy(x, 0.3, generator(1)) - x
    assert torch.equal(x, before)
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)
    assert torch.equal(noisy(x, 0.3, generator(1)), noisy(x, 0.3, generator(1)))
    assert not torch.equal(noisy(x, 0.3, generator(2)), noisy(x, 0.3, generator(1)))


@given(st.floats(0, 0.99))
def test_as_many_are_kept_as_asked_for(probability: float) -> None:
    mask = kept(torch.empty(300, 101), probability, generator())
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert mask.mean().item() == pytest.approx(1 - probability, abs=0.015)


def test_noise_on_weights_is_there_for_the_gradient_only() -> None:
    weights = random((80, 50), (30, 80))
    before = [weight.detach().clone() for weight in weights]
    with perturbed(weights, noise=0.1, dropconnect=0, generator=generator()):
        within = [weight.detach().clone() for weight in weights]
        cubes(weights).backward()
    for weight, original, noised in zip(weights, before, within, strict=True):
        assert torch.equal(weight, original)
        assert (noised - original).std().item() == pytest.approx(0.1, rel=0.05)
        assert torch.allclose(weight.grad, 3 * noised**2)  # type: ignore[arg-type]  # d (w + e)^3 / dw = 3 (w + e)^2


def test_dropconnect_masks_and_rescales_weights_and_their_gradient() -> None:
    weights = random((80, 50), (30, 80))
    before = [weight.detach().clone() for weight in weights]
    with perturbed(weights, noise=0, dropconnect=0.25, generator=generator()):
        within = [weight.detach().clone() for weight in weights]
        cubes(weights).backward()
    for weight, original, masked in zip(weights, before, within, strict=True):
        assert torch.equal(weight, original)
        mask = (masked != 0).float()
        assert mask.mean().item() == pytest.approx(0.75, abs=0.03)
        assert torch.allclose(masked, mask * original / 0.75)
        # d (m w / .75)^3 / dw = 3 (m w / .75)^2 m / .75
        assert torch.allclose(weight.grad, 3 * (mask * original / 0.75) ** 2 * mask / 0.75, rtol=1e-4)  # type: ignore[arg-type]


@given(st.integers(0, 100), st.sampled_from([0.0, 0.1, 1.0]), st.sampled_from([0.0, 0.3, 0.9]))
def test_the_gradient_is_that_of_the_true_weights(seed: int, noise: float, dropconnect: float) -> None:
    weights, draws = random((5, 4), (3, 5), seed=seed), generator(seed)
    x = torch.randn(8, 4, generator=draws)
    with perturbed(weights, noise=noise, dropconnect=dropconnect, generator=generator(seed)):
        (torch.tanh(x @ weights[0].t()) @ weights[1].t()).square().sum().backward()

    again, draws = random((5, 4), (3, 5), seed=seed), generator(seed)
    factors = [kept(weight, dropconnect, draws) / (1 - dropconnect) if dropconnect else torch.ones_like(weight) for weight in again]
    noises = [torch.empty_like(weight).normal_(0, noise, generator=draws) if noise else 0 for weight in again]
    first, second = (f * (weight + e) for f, weight, e in zip(factors, again, noises, strict=True))
    (torch.tanh(x @ first.t()) @ second.t()).square().sum().backward()
    for ours, theirs in zip(weights, again, strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4)  # type: ignore[arg-type]


def test_dropped_weights_are_right_on_average() -> None:
    (weight,) = random((3, 2))
    draws, total = generator(), torch.zeros(3, 2)
    for _ in range(4000):
        with perturbed([weight], noise=0.1, dropconnect=0.5, generator=draws):
            total += weight.detach()
    assert torch.allclose(total / 4000, weight, atol=0.1)


def test_weights_come_back_from_an_error_too() -> None:
    (weight,) = random((3, 2))
    before = weight.detach().clone()
    with pytest.raises(RuntimeError, match="boom"), perturbed([weight], noise=1.0, dropconnect=0.5, generator=generator()):
        raise RuntimeError("boom")
    assert torch.equal(weight, before)


def test_layouts_other_than_rows_are_perturbed_alike() -> None:
    rows = nn.Parameter(torch.randn(6, 4, generator=generator()))
    columns = nn.Parameter(rows.detach().t().contiguous().t())
    for weight in (rows, columns):
        with perturbed([weight], noise=0, dropconnect=0.5, generator=generator(1)):
            (weight**2).sum().backward()
    assert rows.grad is not None
    assert columns.grad is not None
    assert torch.equal(rows.grad, columns.grad)
    assert columns.grad.stride() == columns.stride()
