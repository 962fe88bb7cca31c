"""Values, parameters and spans of time in few characters, for people. Text only."""

from __future__ import annotations

from hpo.space import Params, Value


def short(value: Value | float | None) -> str:
    """A value in few characters."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def params_text(params: Params) -> str:
    """`learning_rate 0.0012  width 122`"""
    return "  ".join(f"{name} {short(value)}" for name, value in params.items())


def duration(seconds: float) -> str:
    """`1h 02m`, `3m 05s` or `12s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"
