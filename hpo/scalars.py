"""Which value a plain scalar spells by the core schema of YAML 1.2: `1e-4` is a number, `010` is 10, `on` is text. Pure."""

from __future__ import annotations

import math
import re

MAX_DIGITS = 300
_WORDS: dict[str, bool | float | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan),
}
_INT = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


def resolve(text: str) -> bool | int | float | str | None:
    """The value of a plain scalar; ValueError if it spells a number that nothing can hold."""
    if text in _WORDS:
        return _WORDS[text]
    value = number(text)
    return text if value is None else value


def number(text: str) -> int | float | None:
    """The number that `text` spells, None if it spells none; ValueError if nothing can hold it."""
    other_base, whole = _OTHER_BASE.fullmatch(text), _INT.fullmatch(text)
    if not (other_base or whole or _FLOAT.fullmatch(text)):
        return None
    if len(text) > MAX_DIGITS:
        raise ValueError(f"found a number of {len(text)} characters; {MAX_DIGITS} are allowed")
    if whole or other_base:
        return int(text) if whole else int(text, 0)
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"found {text}; no floating-point number is that large (the largest is about 1.8e308)")
    return value


def quotes_hint(found: object) -> str:
    """`: write 0.1 without quotes` where `found` is a text that would be a number or a truth value without them, else nothing."""
    if not isinstance(found, str):
        return ""
    try:
        plain = resolve(found.strip())
    except ValueError:
        return ""
    return f": write {found.strip()} without quotes" if isinstance(plain, (bool, int, float)) else ""
