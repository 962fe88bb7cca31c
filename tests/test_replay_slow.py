"""Every suggestion and decision of fifty studies of all kinds is made again from their journals: minutes, so not in the fast suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulations import any_spec, journaled_and_replayed

STUDIES = 50


@pytest.mark.parametrize("number", range(STUDIES))
def test_a_study_of_any_kind_replays(number: int, tmp_path: Path) -> None:
    what, workers = any_spec(number, most_trials=150)
    found = journaled_and_replayed(what, workers, tmp_path / "study")
    assert found.divergence is None


def test_fifty_studies_are_of_all_kinds() -> None:
    specs = [any_spec(number, most_trials=150) for number in range(STUDIES)]
    assert {what.sampler.name for what, _ in specs} == {"ladders", "random", "tpe", "qmc", "cmaes", "gp", "grid", "sweep"}
    assert {workers for _, workers in specs} == {1, 2, 4, 16, 64}
