"""What a comparison of arms comes to, in plain words, a claim only where the rule makes one. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from hpo.significance import LEVEL, Pair, Rule, Significance


def verdict(found: Significance, medians: Mapping[str, float | None], what: str) -> list[str]:
    """Sentences: which arms are told apart, how the one that looks best stands to the others, and what would settle it.

    `medians` are the arms' losses (lower is better), `what` names the value that is compared.
    """
    lines = [f"no value at all: {', '.join(found.left_out)}"] if found.left_out else []
    if found.rule is Rule.NONE:
        return [*lines, "nothing can be compared: fewer than two arms have a value in the same round"]
    lines += [f"told apart on {what}: {_claim(pair)}" for pair in found.pairs if pair.better]
    leader = min(found.arms, key=lambda arm: (medians.get(arm) is None, medians.get(arm) or 0.0))
    beside = [pair for pair in found.pairs if leader in (pair.first, pair.second) and not pair.better]
    if beside:
        others = "; ".join(_open(pair, leader, found) for pair in beside)
        lines.append(f"{leader} has the best median of {what}, but is not told apart from {others}")
    if not any(pair.better for pair in found.pairs):
        lines.append(_too_few(found) or f"so no claim that one arm is better than another ({found.rule.value}, {found.repeats} repeats)")
    return lines


def _claim(pair: Pair) -> str:
    """`tpe is better than random (in 90 % of repeats, 95 % interval 70 to 100 %)`"""
    assert pair.better is not None
    chance, low, high = _seen_from(pair, pair.better)
    worse = pair.second if pair.better == pair.first else pair.first
    return f"{pair.better} is better than {worse} (in {chance:.0%} of repeats, 95 % interval {low:.0%} to {high:.0%})"


def _open(pair: Pair, leader: str, found: Significance) -> str:
    other = pair.second if leader == pair.first else pair.first
    chance, _, _ = _seen_from(pair, leader)
    if pair.needed is None:
        return f"{other} (ahead in {chance:.0%} of repeats; no number of repeats within reason would tell them apart)"
    more = max(1, pair.needed - found.repeats)
    needed = f"{about(pair, found)} {more} more repeat{'s' if more > 1 else ''} would be needed, {found.repeats + more} in all"
    return f"{other} (ahead in {chance:.0%} of repeats; {needed})"


def about(pair: Pair, found: Significance) -> str:
    """How the repeats that a pair needs are to be taken: where none contradicts, the effect looks as large as it can be."""
    return "about" if pair.needed != found.fewest else "at least"


def _seen_from(pair: Pair, arm: str) -> tuple[float, float, float]:
    if arm == pair.first:
        return pair.superiority, pair.low, pair.high
    return 1 - pair.superiority, 1 - pair.high, 1 - pair.low


def _too_few(found: Significance) -> str:
    """Where no outcome whatever could have been a claim."""
    if found.can_claim:
        return ""
    repeats = f"{found.repeats} repeat{'s' if found.repeats > 1 else ''}"
    least = f"Wilcoxon's test needs at least {found.fewest} to reach {LEVEL:.0%} for {len(found.arms)} arms"
    return f"{repeats} are too few for any claim: {least}" if found.repeats > 1 else f"one repeat is too few for any claim: {least}"
