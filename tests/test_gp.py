"""The Gaussian process and the Parzen estimator against textbook formulas."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.sampling.gp import NotPositive, Posterior, Prior, Sites, cholesky, covariance, fit, loss_and_gradient
from hpo.sampling.parzen import Parzen, good_count

OWNER = np.array([0, 1, 2, 2])  # two numbers and a choice of two


def observed(seed: int, n: int = 25) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, rungs and values."""
    rng = np.random.default_rng(seed)
    return rng.random((n, 4)), rng.integers(0, 3, n).astype(float), rng.standard_normal(n)


def theta(seed: int, spread: float = 0.5) -> np.ndarray:
    return Prior().moments(3)[0] + spread * np.random.default_rng(seed).standard_normal(8)


def matern(distance: float) -> float:
    s = math.sqrt(5) * distance
    return (1 + s + s * s / 3) * math.exp(-s)


def textbook(x: np.ndarray, k: np.ndarray, y: np.ndarray, m: np.ndarray, t: np.ndarray) -> np.ndarray:
    lengths = np.exp(t[OWNER])
    return np.array(
        [
            [
                (
                    math.exp(t[-3]) * matern(np.linalg.norm((a - b) / lengths))
                    + math.exp(t[-5]) * matern(np.linalg.norm(a - b) / math.exp(t[-4]))
                )
                * math.exp(-math.exp(t[-1]) * abs(i - j))
                for b, j in zip(y, m, strict=True)
            ]
            for a, i in zip(x, k, strict=True)
        ]
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6))
def test_the_gradient_is_that_of_finite_differences(seed: int) -> None:
    x, k, z = observed(seed)
    t = theta(seed)
    _, gradient = loss_and_gradient(t, Sites(x, k, OWNER), z, Prior())
    for i, direction in enumerate(np.eye(8)):
        up, down = (loss_and_gradient(t + step * direction, Sites(x, k, OWNER), z, Prior())[0] for step in (1e-5, -1e-5))
        assert gradient[i] == pytest.approx((up - down) / 2e-5, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_covariance_and_posterior_are_those_of_the_textbook(seed: int) -> None:
    x, k, z = observed(seed)
    new, _, _ = observed(seed + 100, 7)
    t, rung = theta(seed), np.full(7, 2.0)
    assert covariance(Sites(x, k, OWNER), Sites(new, rung, OWNER), t) == pytest.approx(textbook(x, k, new, rung, t), rel=1e-9)
    full = textbook(x, k, x, k, t) + (math.exp(t[-2]) + 1e-6) * np.eye(25)
    across = textbook(new, rung, x, k, t)
    mean, deviation = Posterior(Sites(x, k, OWNER), z, t).mean_and_deviation(new, 2)
    assert mean == pytest.approx(across @ np.linalg.solve(full, z), rel=1e-6, abs=1e-9)
    variance = np.diag(textbook(new, rung, new, rung, t) - across @ np.linalg.solve(full, across.T))
    assert deviation == pytest.approx(np.sqrt(variance), rel=1e-6)


def test_what_is_expected_of_running_trials_moves_no_mean_and_lowers_deviations() -> None:
    x, k, z = observed(0)
    running, _, _ = observed(1, 3)
    before = Posterior(Sites(x, k, OWNER), z, theta(0))
    after = before.expecting(running, 2)
    points, _, _ = observed(2, 9)
    assert after.mean(points, 2) == pytest.approx(before.mean(points, 2), abs=1e-6)
    assert (after.mean_and_deviation(points, 2)[1] <= before.mean_and_deviation(points, 2)[1] + 1e-9).all()
    assert (after.mean_and_deviation(running, 2)[1] < before.mean_and_deviation(running, 2)[1]).all()


def test_a_fit_finds_a_better_theta_within_bounds() -> None:
    x, k, _ = observed(3, 60)
    z = np.sin(6 * x[:, 0]) + 0.1 * k
    found = fit(Sites(x, k, OWNER), z)
    assert loss_and_gradient(found, Sites(x, k, OWNER), z, Prior())[0] < loss_and_gradient(theta(0, 0.0), Sites(x, k, OWNER), z, Prior())[0]
    low, high = np.array(Prior.bounds(3)).T
    assert ((low <= found) & (found <= high)).all()
    assert found[0] < found[1]  # the first axis is the one that matters


def test_a_covariance_of_equal_points_gets_jitter_and_one_without_any_factor_is_refused() -> None:
    lower = cholesky(np.ones((5, 5)))
    assert lower @ lower.T == pytest.approx(np.ones((5, 5)), abs=0.011)
    with pytest.raises(NotPositive):
        cholesky(-np.eye(3))
    with pytest.raises(NotPositive):
        cholesky(np.full((3, 3), np.nan))


@pytest.mark.parametrize("values", [np.zeros(9), np.full(9, 3.0), np.r_[np.zeros(8), 1e3]])
def test_equal_points_and_values_are_fitted_without_a_warning(values: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same = Sites(np.full((9, 4), 0.5), np.zeros(9), OWNER)
        found = fit(same, values)
        mean, deviation = Posterior(same, values, found).mean_and_deviation(np.random.default_rng(0).random((3, 4)), 0)
    assert np.isfinite(mean).all()
    assert (deviation > 0).all()


def test_the_parzen_density_integrates_to_one_over_choices_and_is_that_of_its_formula() -> None:
    choices = np.array([0, 3])
    points = np.array([[0.2, 0.5 / 3], [0.4, 2.5 / 3]])
    parzen = Parzen.of(points, choices)
    h, e = parzen.widths
    x = np.array([[0.3, 2.5 / 3]])
    normal = [math.exp(-0.5 * ((0.3 - c) / h) ** 2) / (h * math.sqrt(2 * math.pi)) for c in (0.2, 0.4)]
    assert math.exp(parzen.log_density(x)[0]) == pytest.approx((1 + normal[0] * e + normal[1] * ((1 - e) * 3 + e)) / 3)
    axis = (np.arange(4000) + 0.5) / 400 - 4.5  # far beyond the cube, where the prior's 1 does not count
    total = sum((np.exp(parzen.log_density(np.c_[axis, np.full(4000, (c + 0.5) / 3)])) - 1 / 3).sum() / 400 / 3 for c in range(3))
    assert total == pytest.approx(2 / 3, rel=1e-3)


@pytest.mark.parametrize(
    ("n", "d", "good"), [(0, 3, 0), (1, 3, 1), (8, 3, 2), (9, 3, 4), (100, 3, 15), (101, 3, 16), (30, 20, 2), (50, 20, 21)]
)
def test_how_many_points_are_good(n: int, d: int, good: int) -> None:
    assert good_count(n, d) == good
