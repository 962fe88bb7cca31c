"""A span of time as people write it (`90s`, `1h30m`) and as seconds. Pure."""

from __future__ import annotations

import re
from decimal import Decimal

from hpo.problem import shown

UNIT_S = {"d": 86400, "h": 3600, "m": 60, "s": 1}
LONGEST_TEXT = 64
_SPAN = re.compile("".join(rf"(?:([0-9]+(?:\.[0-9]+)?){unit} *)?" for unit in UNIT_S))


def seconds(text: object) -> float:
    """The seconds of `90s`, `30m`, `2h`, `1d` or `1h30m`, above 0; ValueError says what is wrong with anything else."""
    match = _SPAN.fullmatch(text.strip()) if isinstance(text, str) and len(text) <= LONGEST_TEXT else None
    if match is None or not any(match.groups()):
        raise ValueError(_complaint(text))
    total = sum(float(count) * unit_s for count, unit_s in zip(match.groups(), UNIT_S.values(), strict=True) if count)
    if total <= 0:
        raise ValueError(f"found {text}; a time above 0 is needed, such as 30s")
    return total


def _complaint(text: object) -> str:
    bare = str(text).strip()
    if not isinstance(text, bool) and len(bare) <= 12 and re.fullmatch(r"[0-9]+(\.[0-9]+)?", bare):
        return f"found {bare} without a unit; write {bare}s, {bare}m, {bare}h or {bare}d"
    return f"found {shown(text)}; a time with a unit is needed: 90s, 30m, 2h, 1d or 1h30m"


def span(seconds: float) -> str:
    """The text that `seconds` reads back as exactly the same number: `1h30m`, `0.5s`."""
    if not seconds.is_integer() or seconds >= 2**53:
        return f"{Decimal(repr(seconds)):f}s"
    text, rest = "", int(seconds)
    for unit, unit_s in UNIT_S.items():
        count, rest = divmod(rest, unit_s)
        text += f"{count}{unit}" if count else ""
    return text
