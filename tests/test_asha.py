"""The rule by which trials go on at a rung."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.asha import Arrivals, judge, rungs
from hpo.trial import Decision

CONTINUE, STOP = Decision.CONTINUE, Decision.STOP


@pytest.mark.parametrize(
    ("grace", "eta", "max_epochs", "expected"),
    [
        (1, 3, 243, (1, 3, 9, 27, 81)),  # int(log(243) / log(3)) is 4: a logarithm loses the fifth
        (1, 10, 1000, (1, 10, 100)),
        (1, 3, 27, (1, 3, 9)),
        (2, 4, 33, (2, 8, 32)),
        (5, 3, 5, ()),  # at the last epoch nothing is left to decide
        (1, 2, 1, ()),
    ],
)
def test_rungs_are_exact_powers_below_the_end(grace: int, eta: int, max_epochs: int, expected: tuple[int, ...]) -> None:
    assert rungs(grace, eta, max_epochs) == expected


@pytest.mark.parametrize(
    ("peers", "mine", "decision"),
    [
        ([], 0.9, CONTINUE),  # nobody to lose against
        ([1, 2, 3, 4, 5], 1.5, CONTINUE),  # second of six; a third of them goes on
        ([1, 2, 3, 4, 5], 2.5, STOP),  # third of six
        ([1], 0.5, CONTINUE),  # of two, the best one goes on
        ([1], 2, STOP),
        ([1, 2], math.nan, STOP),  # NaN never survives
        ([], math.nan, STOP),  # not even alone
        ([math.nan, math.nan], 5, CONTINUE),  # anything beats NaN
        ([math.inf], math.inf, STOP),
    ],
)
def test_the_top_third_goes_on(peers: list[float], mine: float, decision: Decision) -> None:
    assert judge(_arrived(peers), mine, 3).decision is decision


def test_the_verdict_explains_itself() -> None:
    verdict = judge(_arrived([1, 2, 3, 4, 5]), 2.5, 3)
    assert (verdict.rank, verdict.arrivals, verdict.quota, verdict.cutoff) == (3, 6, 2, 2)


@given(st.integers(1, 60), st.integers(2, 4))
def test_of_a_plateau_of_equal_values_a_share_of_one_in_eta_goes_on(n: int, eta: int) -> None:
    went_on: list[bool] = []
    _arrived([0.5] * n, eta, went_on)
    assert sum(went_on) == max(1, n // eta)


@given(st.lists(st.floats(allow_nan=True), max_size=30), st.floats(allow_nan=False, allow_infinity=False), st.integers(2, 4))
def test_whoever_goes_on_is_among_the_best(peers: list[float], mine: float, eta: int) -> None:
    verdict = judge(_arrived(peers, eta), mine, eta)
    better = sum(peer < mine for peer in peers)
    if better < Fraction(len(peers) + 1, eta) - 1 and mine not in peers:
        assert verdict.decision is CONTINUE
    if better >= max(1, (len(peers) + 1) // eta):
        assert verdict.decision is STOP


def _arrived(losses: list[float], eta: int = 3, went_on: list[bool] | None = None) -> Arrivals:
    """Arrivals in this order, each judged when it came."""
    arrivals = Arrivals()
    for loss in losses:
        goes_on = judge(arrivals, loss, eta).decision is CONTINUE
        arrivals.add(loss, went_on=goes_on)
        if went_on is not None:
            went_on.append(goes_on)
    return arrivals
