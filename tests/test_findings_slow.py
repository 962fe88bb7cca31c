"""How often advice is wrong under samplers that adapt, of so many studies that little is left to chance."""

from __future__ import annotations

import pytest

from tests.test_findings import assert_edges_are_rare


@pytest.mark.parametrize(("sampler", "studies"), [("ladders", 60), ("tpe", 15)])
def test_edges_without_reason_are_rare(sampler: str, studies: int) -> None:
    assert_edges_are_rare(sampler, studies)
