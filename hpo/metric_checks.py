"""Whether the objective and the stopper compare metrics that the trainer yields, the way that these are better. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hpo.problem import Path, bare, hint, quoted, shown
from hpo.stopping import NoStopper, Patience, Stopper, watched
from hpo.trial import Direction

if TYPE_CHECKING:
    from hpo.arguments import TrainerDeclaration
    from hpo.sections import Objective

Mistakes = Iterator[tuple[Path, str]]
_LEAST = {"epochs": 1, "strip": 1, "strips": 1, "threshold": 0, "min_improvement": 0}


def metric_mistakes(place: Path, metric: str, direction: Direction | None, declaration: TrainerDeclaration | None) -> Mistakes:
    """Whether the trainer yields the metric at `place`, and which way it is better (not asked where `direction` is None)."""
    metrics = declaration.metrics if declaration else {}
    if declaration and metrics and metric not in metrics:
        yield place, f"{declaration.name} yields no metric {quoted(metric)}; {hint(metric, metrics)}"
    elif direction not in (None, metrics.get(metric, direction)):
        yield (place[0], "direction"), f"found {direction}; {metric} is better the other way: {metrics[metric]}"


def stopper_mistakes(stopper: Stopper, objective: Objective | None, declaration: TrainerDeclaration | None) -> Mistakes:
    """What no trial can be judged by; the objective is None if it cannot be read, the declaration if there is none."""
    for field in dataclasses.fields(stopper):
        found = getattr(stopper, field.name)
        if field.name in _LEAST and found < _LEAST[field.name]:
            yield ("stopper", field.name), f"found {bare(found)}; at least {_LEAST[field.name]} is needed"
        elif found == "":
            yield ("stopper", field.name), f"found {shown(found)}; the name of a metric is needed"
    if isinstance(stopper, Patience):
        yield from _patience_mistakes(stopper, objective, declaration)
    elif not isinstance(stopper, NoStopper):
        directions = {**({objective.metric: objective.direction} if objective else {}), **(declaration.metrics if declaration else {})}
        for key, metric in zip(("metric", "training_metric"), watched(stopper), strict=False):
            yield from metric_mistakes(("stopper", key), metric, None, declaration)
            if directions.get(metric) is Direction.MAXIMIZE:
                yield ("stopper", key), f"found {shown(metric)}, which is better higher; {stopper.name} needs a loss, 0 at best"


def _patience_mistakes(stopper: Patience, objective: Objective | None, declaration: TrainerDeclaration | None) -> Mistakes:
    metric, direction = stopper.metric, stopper.direction
    if objective and direction not in (None, objective.direction) and metric in (None, objective.metric):
        message = f"found {direction}; {objective.metric}, the objective, is better the other way: {objective.direction}"
        yield ("stopper", "direction"), message
    elif metric:
        yield from metric_mistakes(("stopper", "metric"), metric, direction, declaration)


def directed(stopper: Stopper, objective: Objective, declaration: TrainerDeclaration | None) -> Stopper:
    """The stopper with the direction of its metric written out, so that a journal says what was compared."""
    if not isinstance(stopper, Patience) or stopper.metric is None or stopper.direction is not None:
        return stopper
    known = {**(declaration.metrics if declaration else {}), objective.metric: objective.direction}
    return dataclasses.replace(stopper, direction=known.get(stopper.metric, Direction.MINIMIZE))
