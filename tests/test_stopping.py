"""Early stopping inside one trial: the published formulas, and laws of the rules that use them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.stopping import (
    GeneralisationLoss,
    NoStopper,
    Patience,
    Progress,
    ProgressQuotient,
    Rises,
    Stopper,
    after,
    generalisation_loss,
    progress_quotient,
    training_progress,
    watched,
    why_over,
)
from hpo.trial import Direction, Measurement

NAN, INF = math.nan, math.inf
losses = st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0, 2.0, NAN, INF]), min_size=1, max_size=30)
stoppers: st.SearchStrategy[Stopper] = st.one_of(
    st.just(NoStopper()),
    st.builds(Patience, epochs=st.integers(1, 4), min_improvement=st.sampled_from([0.0, 0.15]), metric=st.sampled_from([None, "val_loss"])),
    st.builds(GeneralisationLoss, threshold=st.sampled_from([0.0, 5.0, 90.0])),
    st.builds(ProgressQuotient, threshold=st.sampled_from([0.0, 0.5, 2.0]), strip=st.integers(1, 4)),
    st.builds(Rises, strips=st.integers(1, 3), strip=st.integers(1, 3)),
)


def measurements(errors: Sequence[float], training: Sequence[float] = ()) -> list[Measurement]:
    """Epochs of which the objective is an accuracy that rises all the time."""
    pairs = zip(errors, training or [1 / epoch for epoch in range(1, len(errors) + 1)], strict=True)
    return [Measurement(n, n / 1000, {"val_loss": val, "train_loss": train}, 0.1) for n, (val, train) in enumerate(pairs, start=1)]


def folded(stopper: Stopper, measured: Sequence[Measurement], direction: Direction = Direction.MAXIMIZE) -> Progress:
    progress = Progress()
    for m in measured:
        progress = after(progress, m, direction, stopper)
    return progress


def over_at(stopper: Stopper, measured: Sequence[Measurement]) -> int | None:
    """The first epoch after which the stopper ends the trial."""
    return next((n for n in range(1, len(measured) + 1) if why_over(stopper, folded(stopper, measured[:n]))), None)


@pytest.mark.parametrize(
    ("errors", "epochs", "margin", "over"),
    [
        ([1.0], 1, 0, None),  # the first epoch has nothing to improve on
        ([1.0, 1.0], 1, 0, 2),  # an equal value is no improvement
        ([1.0, 0.9], 1, 0, None),
        ([3.0, 2.0, 2.5, 2.2], 2, 0, 4),
        ([3.0, 2.0, 2.5, 1.9], 2, 0, None),
        ([3.0, 2.0, 2.5, 2.2], 3, 0, None),
        ([1.0, 5.0, 4.0, 3.0], 3, 0, 4),  # it falls, but not below its best
        ([1.0, NAN, NAN], 2, 0, 3),  # NaN is never better
        ([NAN, 5.0, 6.0, 4.0, 3.0], 2, 0, None),  # and whatever comes after it is
        ([INF, INF], 1, 0, 2),
        ([1.0, 0.75], 1, 0.25, 2),  # better by the margin, not by more
        ([1.0, 0.75, 0.5, 0.25], 2, 0.25, None),
        ([4.0, 3.9, 3.8, 3.0, 2.9], 3, 0.5, None),  # small steps add up: it is compared with the best that counted
        ([4.0, 3.9, 3.8, 3.7], 3, 0.5, 4),
    ],
)
def test_patience_counts_epochs_since_the_best(errors: list[float], epochs: int, margin: float, over: int | None) -> None:
    assert over_at(Patience(epochs=epochs, min_improvement=margin, metric="val_loss"), measurements(errors)) == over


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), min_size=1, max_size=30), st.integers(1, 5), st.sampled_from(Direction))
def test_patience_without_a_margin_ends_where_the_last_epochs_brought_nothing_better(
    values: list[float], epochs: int, direction: Direction
) -> None:
    measured = [Measurement(n, value, {}, 0.1) for n, value in enumerate(values, start=1)]
    rule = Patience(epochs=epochs)
    turned = [direction.loss(value) for value in values]
    for n in range(1, len(turned) + 1):
        nothing_better = n > epochs and min(turned[n - epochs : n]) >= min(turned[: n - epochs])
        assert (why_over(rule, folded(rule, measured[:n], direction)) is not None) == nothing_better


@pytest.mark.parametrize(
    ("error", "lowest", "percent"),
    [(1.0, 1.0, 0), (1.5, 1.0, 50), (0.0, 0.0, 0), (0.1, 0.0, INF), (INF, 1.0, INF), (INF, INF, INF)],
)
def test_the_generalisation_loss_is_prechelts(error: float, lowest: float, percent: float) -> None:
    assert generalisation_loss(error, lowest) == pytest.approx(percent)


@pytest.mark.parametrize(
    ("strip", "per_mille"),
    [
        ([1.0, 1.0], 0),  # it stands still
        ([2.0, 1.0], 500),  # mean 1.5 of minimum 1
        ([1.0, 2.0], 500),  # unstable training is progress, too
        ([0.5, 0.4, 0.3], 1000 / 3),
        ([1.0, 0.0], 0),  # perfect
        ([INF, 1.0], 0),
    ],
)
def test_the_training_progress_is_prechelts(strip: list[float], per_mille: float) -> None:
    assert training_progress(sum(strip), min(strip), len(strip)) == pytest.approx(per_mille)


@pytest.mark.parametrize(
    ("stopper", "errors", "training", "over"),
    [
        (GeneralisationLoss(threshold=25), [1.0, 1.25, 1.0, 1.26], (), 4),  # 25 % is not above 25 %
        (GeneralisationLoss(threshold=5), [2.0, 1.0, 1.5], (), 3),  # against the lowest so far
        (GeneralisationLoss(threshold=0), [2.0, 1.0, 1.0, 0.9], (), None),
        (GeneralisationLoss(threshold=1e9), [1.0, NAN], (), 2),
        (GeneralisationLoss(threshold=1e9), [INF], (), 1),
        (GeneralisationLoss(threshold=1e9), [0.0, 0.0, 0.1], (), 3),  # nothing is as good as perfect
        (ProgressQuotient(threshold=0.1, strip=2), [1.0, 2.0], [2.0, 1.0], 2),  # 100 % / 500 per mille
        (ProgressQuotient(threshold=0.2, strip=2), [1.0, 2.0, 1.0, 2.0], [2.0, 1.0, 2.0, 1.0], None),  # 0.2 is not above 0.2
        (ProgressQuotient(threshold=0.2, strip=2), [1.0, 2.0, 3.0, 1.0, 2.0, 2.0], [2, 1] * 3, None),  # judged at ends of strips alone
        (ProgressQuotient(threshold=9, strip=2), [1.0, 1.1], [1.0, 1.0], 2),  # no training progress
        (ProgressQuotient(threshold=9, strip=2), [1.0, 1.1], [0.5, 0.0], 2),  # perfect training makes none
        (ProgressQuotient(threshold=9, strip=2), [1.0, 1.1], [NAN, 0.5], 2),
        (ProgressQuotient(threshold=0, strip=2), [1.1, 1.0], [1.0, 1.0], None),  # but nothing is lost, either
        (Rises(strips=1, strip=2), [9, 1, 9, 2], (), 4),  # only ends of strips count
        (Rises(strips=1, strip=2), [9, 1], (), None),  # the first strip has none before it
        (Rises(strips=1, strip=2), [9, 1, 9, 1], (), None),
        (Rises(strips=2, strip=1), [1, 2, 1, 2, 3], (), 5),  # successive
        (Rises(strips=3, strip=1), [3, 1, 2, 3, 4], (), 5),
        (Rises(strips=2, strip=1), [1, NAN, INF], (), 3),  # not finite is as if it rose
        (NoStopper(), [1.0] * 99, (), None),
    ],
)
def test_prechelts_criteria(stopper: Stopper, errors: list[float], training: list[float], over: int | None) -> None:
    assert over_at(stopper, measurements(errors, training)) == over


@given(errors=losses, strips=st.integers(2, 4), strip=st.integers(1, 3))
def test_up_is_the_recursion_of_the_paper(errors: list[float], strips: int, strip: int) -> None:
    measured = measurements(errors)

    def stops(s: int, t: int) -> bool:
        if s == 0:
            return True
        if t % strip or t - strip < 1:
            return False
        now, before = (e if math.isfinite(e) else INF for e in (errors[t - 1], errors[t - strip - 1]))
        return (now > before or now == INF) and stops(s - 1, t - strip)

    for t in range(1, len(errors) + 1):
        rule = Rises(strips=strips, strip=strip)
        assert (why_over(rule, folded(rule, measured[:t])) is not None) == stops(strips, t)


@given(errors=losses, rule=stoppers)
def test_a_slower_criterion_never_stops_earlier(errors: list[float], rule: Stopper) -> None:
    measured = measurements(errors)
    match rule:
        case Patience(epochs=n, min_improvement=d):
            slower: Stopper = Patience(epochs=n + 1, min_improvement=d, metric=rule.metric)
        case GeneralisationLoss(threshold=a):
            slower = GeneralisationLoss(threshold=a + 1)
        case ProgressQuotient(threshold=a, strip=k):
            slower = ProgressQuotient(threshold=a + 1, strip=k)
        case Rises(strips=s, strip=k):
            slower = Rises(strips=s + 1, strip=k)
        case NoStopper():
            slower = rule
    assert (over_at(slower, measured) or INF) >= (over_at(rule, measured) or INF)


@given(errors=losses, rule=stoppers)
def test_the_progress_is_what_its_words_say(errors: list[float], rule: Stopper) -> None:
    measured = measurements(errors)
    at = folded(rule, measured)
    assert (at.epoch, at.best, at.best_epoch) == (len(errors), -len(errors) / 1000, len(errors))
    if isinstance(rule, GeneralisationLoss | ProgressQuotient | Rises):
        worst_if_not_finite = [error if math.isfinite(error) else INF for error in errors]
        assert (at.error, at.lowest) == (worst_if_not_finite[-1], min(worst_if_not_finite))
        assert at.lowest_epoch == worst_if_not_finite.index(at.lowest) + 1
    if isinstance(rule, ProgressQuotient):
        strip = [m.metrics["train_loss"] for m in measured[(len(measured) - 1) // rule.strip * rule.strip :]]
        assert (at.strip_total, at.strip_lowest) == (pytest.approx(sum(strip)), min(strip))
        assert progress_quotient(at, rule.strip) >= 0


@pytest.mark.parametrize(
    ("stopper", "errors", "why"),
    [
        (Patience(epochs=2), [0.5, 0.4, 0.5, 0.6], None),  # the objective rises all the time
        (Patience(epochs=1, metric="val_loss"), [0.4, 0.5], "no better val_loss in 1 epochs, at epoch 2: 0.5, after 0.4 at epoch 1"),
        (
            Patience(epochs=1, min_improvement=0.01, metric="val_loss", direction=Direction.MAXIMIZE),
            [0.4, 0.405],
            "no better val_loss by more than 0.01 in 1 epochs, at epoch 2: 0.405, after 0.4 at epoch 1",
        ),
        (GeneralisationLoss(), [0.4, 0.5], "GL 25 above 5 at epoch 2: val_loss 0.5, lowest 0.4 at epoch 1"),
        (GeneralisationLoss(), [0.4, NAN], "GL inf above 5 at epoch 2: val_loss inf, lowest 0.4 at epoch 1"),
        (ProgressQuotient("pq", 0.01, 2), [0.4, 0.5], "PQ 0.05 above 0.01 at epoch 2: val_loss 0.5, lowest 0.4 at epoch 1"),
        (
            Rises("up", 1, 1),
            [0.4, 0.5],
            "UP: a strip of 1 epoch ended higher than the one before, at epoch 2: val_loss 0.5, lowest 0.4 at epoch 1",
        ),
    ],
)
def test_the_reason_has_the_numbers(stopper: Stopper, errors: list[float], why: str | None) -> None:
    assert why_over(stopper, folded(stopper, measurements(errors))) == why


@pytest.mark.parametrize(
    ("stopper", "metrics"),
    [
        (NoStopper(), {}),
        (Patience(), {}),
        (Patience(metric="val_accuracy"), {"val_accuracy": -INF}),
        (GeneralisationLoss(), {"val_loss": 0}),
        (ProgressQuotient(metric="v", training_metric="t"), {"v": 0, "t": 0}),
        (Rises(), {"val_loss": -INF}),
    ],
)
def test_what_a_trainer_has_to_yield_for_a_stopper(stopper: Stopper, metrics: dict[str, float]) -> None:
    assert watched(stopper) == metrics
