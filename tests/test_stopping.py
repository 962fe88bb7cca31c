"""Early stopping inside one trial."""

from __future__ import annotations

import pytest

from hpo.stopping import patience_is_over


@pytest.mark.parametrize(
    ("losses", "epochs", "over"),
    [
        ([], 2, False),
        ([1.0], 1, False),  # the first epoch has nothing to improve on
        ([1.0, 1.0], 1, True),  # an equal value is no improvement
        ([1.0, 0.9], 1, False),
        ([3.0, 2.0, 2.5, 2.2], 2, True),
        ([3.0, 2.0, 2.5, 1.9], 2, False),
        ([3.0, 2.0, 2.5, 2.2], 3, False),
        ([1.0, 5.0, 4.0, 3.0], 3, True),  # it falls, but not below its best
    ],
)
def test_patience_counts_epochs_since_the_best(losses: list[float], epochs: int, over: bool) -> None:
    assert patience_is_over(losses, epochs) is over
