"""The statistics of a comparison: as SciPy and scikit-posthocs have them, and no claim where there is nothing to claim."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import scikit_posthocs
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hpo.significance import Rule, fewest_repeats, holm, needed_repeats, significance, superiority, wilcoxon, without_claims

TABLE = {  # losses of ten rounds, in thousandths
    "grid": [210, 250, 190, 240, 280, 220, 270, 230, 260, 200],
    "random": [200, 220, 185, 245, 260, 210, 240, 235, 230, 190],
    "tpe": [170, 190, 160, 200, 210, 175, 205, 180, 190, 165],
    "sweep": [300, 330, 290, 310, 340, 280, 350, 320, 325, 305],
}
TIED = {"a": [1, 2, 2, 3, 2, 1, 4], "b": [2, 2, 3, 4, 1, 2, 5], "c": [2, 1, 3, 4, 3, 2, 4]}


@pytest.mark.parametrize("table", [TABLE, TIED], ids=["distinct", "tied"])
def test_the_numbers_are_those_of_scipy_and_scikit_posthocs(table: dict[str, list[int]]) -> None:
    found = significance(table)
    nemenyi = scikit_posthocs.posthoc_nemenyi_friedman(np.array(list(table.values())).T).to_numpy()
    assert found.friedman == pytest.approx(stats.friedmanchisquare(*table.values()).pvalue)
    assert [(pair.first, pair.second) for pair in found.pairs] == list(combinations(table, 2))
    adjusted = step_down([stats.wilcoxon(table[a], table[b]).pvalue for a, b in combinations(table, 2)])
    for pair, (i, j), expected in zip(found.pairs, combinations(range(len(table)), 2), adjusted, strict=True):
        assert pair.p == pytest.approx(stats.wilcoxon(table[pair.first], table[pair.second]).pvalue)
        assert pair.nemenyi == pytest.approx(nemenyi[i, j])
        assert pair.holm == pytest.approx(expected)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=9))
def test_the_signed_rank_test_is_exact_among_ties_as_scipys_is(pairs: list[tuple[int, int]]) -> None:
    xs, ys = ([float(pair[side]) for pair in pairs] for side in (0, 1))
    if xs != ys:
        every_sign = stats.PermutationMethod(n_resamples=2**9)
        assert wilcoxon(xs, ys) == pytest.approx(stats.wilcoxon(xs, ys, method=every_sign).pvalue)


def test_shares_of_few_examples_tie_though_not_in_their_last_bits() -> None:
    shares = [np.float32(k / 500) for k in (400, 405, 410, 391, 399, 402)]
    more = [np.float32((k + 5) / 500) for k in (400, 405, 410, 391, 399, 402)]
    assert len({float(b) - float(a) for a, b in zip(shares, more, strict=True)}) > 1
    assert wilcoxon([*map(float, shares)], [*map(float, more)]) == 2 / 2**6
    even = [float(np.float32(k / 500)) for k in (405, 400, 415, 386)]
    assert wilcoxon([*map(float, shares[:4])], even) == 1.0  # 5 up, 5 down, 5 up, 5 down


def step_down(ps: list[float]) -> list[float]:
    """Holm's correction, written out again: each p times how many are not smaller, never below a smaller one's."""
    ranked = sorted(ps)
    return [max(min(1.0, p * (len(ps) - i)) for i, p in enumerate(ranked) if p <= mine) for mine in ps]


def test_holm_on_a_table_from_a_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_arms_that_differ_are_told_apart_and_the_better_is_named() -> None:
    found = significance(TABLE)
    assert found.rule is Rule.HOLM
    better = {(pair.first, pair.second): pair.better for pair in found.pairs}
    assert better["grid", "tpe"] == better["random", "tpe"] == better["tpe", "sweep"] == "tpe"
    assert better["grid", "sweep"] == "grid"
    two = significance({"a": TABLE["sweep"], "b": TABLE["tpe"]})
    assert (two.rule, two.friedman, two.pairs[0].nemenyi, two.pairs[0].better) == (Rule.WILCOXON, None, None, "b")
    assert [pair.better for pair in without_claims(found).pairs] == [None] * 6


@pytest.mark.parametrize(("comparisons", "repeats"), [(1, 6), (3, 7), (6, 8), (10, 9)])
def test_the_fewest_repeats_are_those_with_which_the_clearest_outcome_rejects(comparisons: int, repeats: int) -> None:
    assert fewest_repeats(comparisons) == repeats
    clear = [wilcoxon([0.0] * n, [float(i + 1) for i in range(n)]) for n in (repeats - 1, repeats)]
    assert clear[1] * comparisons <= 0.05 < clear[0] * comparisons


@pytest.mark.parametrize(
    ("arms", "repeats", "can"), [(2, 5, False), (2, 6, True), (3, 2, False), (3, 5, True), (5, 5, True), (5, 2, False)]
)
def test_it_is_known_whether_any_outcome_could_be_a_claim(arms: int, repeats: int, can: bool) -> None:
    clear = {f"arm {i}": [i * 10 + n + i * n / 7 for n in range(repeats)] for i in range(arms)}
    found = significance(clear)
    assert found.can_claim is can
    assert any(pair.better for pair in found.pairs) is can


@pytest.mark.parametrize("draw", ["normal", "coarse"])
@pytest.mark.parametrize(("arms", "repeats"), [(2, 8), (4, 5), (4, 10)])
def test_of_identical_arms_at_most_five_tournaments_in_a_hundred_claim_anything(
    arms: int, repeats: int, draw: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.significance.RESAMPLES", 10)  # no claim hangs on the intervals, which would take most of the time
    generator, tournaments = np.random.default_rng([arms, repeats, len(draw)]), 400
    claims = 0
    for _ in range(tournaments):
        values = generator.normal(size=(arms, repeats))
        table = {str(i): (values[i] if draw == "normal" else np.round(values[i] * 3) / 3) for i in range(arms)}
        claims += any(pair.better for pair in significance(table).pairs)
    print(f"{arms} arms, {repeats} repeats, {draw}: {claims / tournaments:.1%} claim a difference")
    assert claims / tournaments <= 0.05


def test_a_difference_worth_finding_is_found() -> None:
    generator = np.random.default_rng(1)
    found = sum(
        significance({"a": generator.normal(size=12), "b": generator.normal(1.5, size=12)}).pairs[0].better == "a" for _ in range(100)
    )
    assert found > 80


def test_the_repeats_that_are_said_to_be_needed_tell_the_arms_apart_four_times_in_five() -> None:
    generator = np.random.default_rng(2)
    needed = needed_repeats(generator.normal(size=4000)[:400], generator.normal(0.8, size=400))
    assert needed is not None
    samples = [(generator.normal(size=needed), generator.normal(0.8, size=needed)) for _ in range(400)]
    assert 0.72 < sum(wilcoxon(x, y) <= 0.05 for x, y in samples) / 400 < 0.9


def test_no_number_of_repeats_is_named_for_no_effect() -> None:
    assert needed_repeats([1.0, 2.0, 3.0, 4.0], [2.0, 1.0, 4.0, 3.0]) is None
    assert needed_repeats([1.0, 2.0], [1.0, 2.0]) is None


@pytest.mark.parametrize("comparisons", [1, 10])
def test_where_no_repeat_contradicts_as_many_are_named_as_can_tell_apart_at_all(comparisons: int) -> None:
    fewest = fewest_repeats(comparisons)
    for count in (1, 2, fewest - 1):
        assert needed_repeats(range(count), range(1, count + 1), comparisons) == fewest
    contradicted = needed_repeats([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 5.0, 2.0], comparisons)
    assert contradicted is not None
    assert contradicted > fewest


@pytest.mark.parametrize(
    ("xs", "ys", "share"),
    [([1, 2, 3, 4], [2, 3, 4, 5], 1.0), ([2, 2, 2, 2], [1, 1, 1, 1], 0.0), ([1, 2, 1, 2], [2, 1, 1, 1], 0.375), ([1, 1], [1, 1], 0.5)],
)
def test_superiority_counts_ties_half_and_its_interval_is_never_all_too_sure(xs: list[float], ys: list[float], share: float) -> None:
    found, low, high = superiority(xs, ys)
    assert found == share
    assert 0 <= low <= share <= high <= 1
    assert high - low > 0.2


def test_values_that_differ_in_their_last_bits_are_a_tie() -> None:
    assert superiority([0.1 + 0.2, 0.3], [0.3, 0.1 + 0.2])[0] == 0.5


def test_where_all_repeats_agree_the_interval_is_the_exact_one() -> None:
    assert superiority([1.0] * 5, [2.0] * 5)[1] == pytest.approx(stats.binomtest(5, 5).proportion_ci(0.95, "exact").low)


def test_the_bootstrap_is_seeded() -> None:
    xs, ys = TABLE["grid"], TABLE["random"]
    assert superiority(xs, ys, 3) == superiority(xs, ys, 3)
    chance, low, high = superiority(xs, ys, 3)
    assert (chance, high) == (0.2, 0.5)  # 2 of 10; of 10 draws fewer than 6 with 99.4 %, fewer than 5 with 96.7 %
    assert low == 0.0


@given(st.lists(st.lists(st.one_of(st.none(), st.just(math.nan), st.integers(0, 3).map(float)), min_size=3, max_size=3), max_size=9))
def test_no_table_crashes_it(rows: list[list[float | None]]) -> None:
    found = significance({name: [row[i] for row in rows] for i, name in enumerate("abc")})
    assert set(found.arms) | set(found.left_out) == set("abc")
    assert found.repeats <= found.rounds == len(rows)
    for pair in found.pairs:
        assert 0 <= pair.p <= pair.holm <= 1
        assert 0 <= pair.low <= pair.superiority <= pair.high <= 1


def test_an_arm_without_values_is_left_out_and_rounds_with_a_gap_do_not_count() -> None:
    found = significance({"a": [1.0, 2.0, 3.0], "b": [2.0, None, 4.0], "dead": [None, math.nan, math.inf]})
    assert (found.arms, found.left_out, found.repeats, found.rounds) == (("a", "b"), ("dead",), 2, 3)
    assert significance({"a": [1.0], "b": [None]}).rule is Rule.NONE
    assert significance({"a": [1.0, None], "b": [None, 1.0]}).rule is Rule.NONE


def test_equal_arms_are_not_told_apart() -> None:
    found = significance({name: [0.5] * 10 for name in "abcd"})
    assert found.friedman == 1.0
    assert {(pair.p, pair.superiority, pair.better, pair.needed) for pair in found.pairs} == {(1.0, 0.5, None, None)}
