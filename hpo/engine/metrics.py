"""What a trainer yielded after an epoch, as numbers, or the sentence that says why it is unusable. Pure."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

from hpo.engine.failures import printable
from hpo.trainer import MetricError

MOST = 1000  # metrics of an epoch: each is kept in memory for as long as the study runs, and is a row in MLflow
SHOWN = 5


def measured(metrics: Any, epoch: int, objective: str, watched: Mapping[str, float] = MappingProxyType({})) -> dict[str, float]:
    """The metrics of an epoch as floats, the objective's among them and finite; a copy, whatever becomes of `metrics`.

    What the stopper has `watched` is among them, too, and not below the value given with it, but need not be finite. A
    tensor or array of one element counts as a number. MetricError for anything that is none, and for more than MOST.
    """
    if not isinstance(metrics, Mapping):
        raise MetricError(f"epoch {epoch} yielded {type(metrics).__name__}; yield a mapping of metric names to numbers")
    if len(metrics) > MOST:
        raise MetricError(
            f"epoch {epoch} reported {len(metrics):,} metrics, {MOST:,} at most are recorded; "
            "write larger tables into files in trial.folder, or sum them up"
        )
    found = {str(name): _number(str(name), value, epoch) for name, value in metrics.items()}
    for name, role in ((objective, "the objective"), *((name, "which the stopper watches") for name in watched)):
        if name not in found:
            raise MetricError(f"epoch {epoch} reported no {name} ({role}); it reported {_listed(found)}")
    if not math.isfinite(found[objective]):
        raise MetricError(f"{objective} was {found[objective]} at epoch {epoch}")
    for name, least in watched.items():
        if -math.inf < found[name] < least:
            raise MetricError(f"{name} was {found[name]} at epoch {epoch}; the stopper needs a loss of {least:g} or more")
    return found


def _number(name: str, value: Any, epoch: int) -> float:
    item = value.item() if hasattr(value, "item") and getattr(value, "size", None) is not None and _has_one_element(value) else value
    if isinstance(item, bool) or not isinstance(item, numbers.Real):
        raise MetricError(f"{printable(name, 60)} was {_shown(value)} at epoch {epoch}; metrics are numbers")
    try:
        return float(item)
    except OverflowError:
        raise MetricError(f"{printable(name, 60)} was a number too large to hold at epoch {epoch}") from None


def _has_one_element(value: Any) -> bool:
    return math.prod(getattr(value, "shape", (0,))) == 1


def _shown(value: Any) -> str:
    return f"{type(value).__name__} {printable(repr(value), 60)}"


def _listed(names: Iterable[str]) -> str:
    shown = [printable(name, 60) for name in names]
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return ", ".join(shown[:SHOWN]) + more or "nothing"
