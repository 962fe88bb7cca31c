"""The learning rate rises in the warm-up, then follows its schedule down."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.recipe import Schedule
from trainers.schedules import factor

SCHEDULES = get_args(Schedule)
schedules = st.sampled_from(SCHEDULES)
totals = st.integers(1, 5000)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("constant", [1, 1, 1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25, 0, 0]),
        ("cosine", [1, 0.5 + 0.5 * math.sqrt(0.5), 0.5, 0.5 - 0.5 * math.sqrt(0.5), 0, 0]),
        ("exponential", [1, 0.01**0.25, 0.1, 0.01**0.75, 0.01, 0.01]),
    ],
)
def test_four_steps_of_each_and_what_would_follow(schedule: Any, factors: list[float]) -> None:
    assert [factor(schedule, step, 4, 0) for step in range(6)] == pytest.approx(factors)
    assert [factor(schedule, step, 7, 3) for step in range(9)] == pytest.approx([0.25, 0.5, 0.75, *factors])


@given(schedules, totals, st.data())
def test_it_rises_to_one_and_falls_from_there(schedule: Any, total: int, data: st.DataObject) -> None:
    warmup, step = data.draw(st.integers(0, total)), data.draw(st.integers(0, total - 1))
    here, there = factor(schedule, step, total, warmup), factor(schedule, step + 1, total, warmup)
    assert 0 < here <= 1
    assert here < there if step + 1 < warmup else step < warmup or here >= there
    if warmup < total:
        assert factor(schedule, warmup, total, warmup) == 1


@given(schedules, st.integers(0, 100), st.integers(101, 1000))
def test_a_run_that_only_warms_up_never_falls(schedule: Any, total: int, warmup: int) -> None:
    factors = [factor(schedule, step, total, warmup) for step in range(total)]
    assert factors == sorted(factors)
