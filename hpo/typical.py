"""Made-up learning curves that look like real ones, over any space: what plans are simulated on. Pure, but for the trainer."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpo.space import Categorical, Float, Int, Parameter, Params, SearchSpace, Value, position

if TYPE_CHECKING:
    from hpo.trainer import RunningTrial

NOISE = 0.005  # sd of an epoch's value, where 1 is the range of all
LOWEST_ERROR, ERROR_RANGE = 0.05, 0.85
SMALLEST_GAP, LARGEST_GAP = 0.2, 0.85  # what the first epoch of a fast and of a slow starter leaves to be learned, as a share of all
SHORTEST, LONGEST = 1.0, 30.0  # epochs in which the one and the other learn most of it
MOST_CELLS = 1000  # of an axis whose every value is tried for the best


def typical_curve(space: SearchSpace, max_epochs: int, task: int = 0) -> Callable[[Params, int], Sequence[float]]:
    """A curve(params, seed) of validation accuracies in [0, 1] over `space`; each `task` has its own best point.

    Quality falls with the squared distance from the best point, some parameters mattering more than others. Values are
    1 - error, the error falling as a power of a shifted epoch (Domhan et al. 2015, "Speeding up Automatic Hyperparameter
    Optimization", pow4), with noise of the trial's seed. Slow starters begin with a larger error and catch up late; which
    configurations do follows from the parameters, half of it smoothly. The order after 1, 4 and 16 epochs of 51 agrees with
    that at the end as on real curves (LCBench: Spearman's correlation .7, .8 and .9).
    """
    best, weight = _task(space, task)
    total = sum(weight.values())
    drawn = random.Random(f"slow/{task}")
    slope = {name: drawn.gauss(0, 1) for name in space}

    def curve(params: Params, seed: int) -> Sequence[float]:
        at = {name: position(parameter, params[name]) for name, parameter in space.items()}
        distance = sum(weight[name] * (at[name] - best[name]) ** 2 for name in space) / total
        tilt = sum(slope[name] * (at[name] - 0.5) for name in space)
        return _values(distance, 0.5 * _fixed(params) + 0.5 / (1 + math.exp(-4 * tilt)), seed, max_epochs)

    return curve


def best_possible(space: SearchSpace, task: int = 0) -> float:
    """What no curve of `typical_curve` exceeds but by its noise: the value of the best point, were it trained for ever."""
    best, weight = _task(space, task)
    away = sum(weight[name] * _nearest(parameter, best[name]) ** 2 for name, parameter in space.items())
    return 1 - _error(away / sum(weight.values()))


def _task(space: SearchSpace, task: int) -> tuple[dict[str, float], dict[str, float]]:
    """The best point of a task and how much each parameter matters."""
    drawn = random.Random(f"typical/{task}")
    best = {name: drawn.uniform(0.15, 0.85) for name in space}
    return best, {name: drawn.expovariate(1.0) + 0.05 for name in space}


def _nearest(parameter: Parameter, best: float) -> float:
    """How far the parameter's nearest value lies from the best point on its axis."""
    match parameter:
        case Categorical(choices):
            values: Sequence[Value] = choices
        case Int(low, high, step=step) if high - low < MOST_CELLS:
            values = range(low, high + 1, step or 1)
        case Float(low, high) if low == high:
            values = (low,)
        case _:
            return 0.0
    return min(abs(position(parameter, value) - best) for value in values)


def _error(distance: float) -> float:
    return LOWEST_ERROR + ERROR_RANGE * (1 - math.exp(-4 * distance))


def _values(distance: float, slow: float, seed: int, max_epochs: int) -> list[float]:
    """The curve of a configuration at a squared `distance` from the best one; `slow` lies between 0 and 1."""
    noise = random.Random(f"noise/{seed}")
    final = 1 - _error(distance)
    gap = SMALLEST_GAP + (LARGEST_GAP - SMALLEST_GAP) * slow
    span = SHORTEST * (LONGEST / SHORTEST) ** slow
    return [max(0.0, final * (1 - gap * (1 + epoch / span) ** -1.5) + noise.gauss(0, NOISE)) for epoch in range(max_epochs)]


def _fixed(params: Params) -> float:
    """A number in [0, 1) that depends on the configuration alone, smoothly on none of it."""
    text = ",".join(f"{name}={value!r}" for name, value in params.items())
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest()) / 2**48


def train(trial: RunningTrial, **params: Any) -> Iterator[dict[str, float]]:
    """The trainer `simulated`: a made-up learning curve over whatever parameters it is given.

    It does not know their ranges: a number counts by its order of magnitude, a choice by its name. Yields the usual names
    for a value that rises (value, accuracy, val_accuracy) and for one that falls (loss, val_loss, error). A function of
    parameters and seed alone; a trial that goes on yields what it would have.
    """
    distance = sum(_away(name, value) ** 2 for name, value in params.items()) / max(len(params), 1)
    values = _values(distance, _fixed(params), trial.seed, trial.max_epochs)
    state: Mapping[str, Any] = trial.restored() or {}
    for epoch in range(int(state.get("epoch", 0)) + 1, trial.max_epochs + 1):
        value = values[epoch - 1]
        rising = dict.fromkeys(("value", "accuracy", "val_accuracy"), value)
        trial.save(epoch=epoch)
        yield rising | dict.fromkeys(("loss", "val_loss", "error"), 1 - value)


def _away(name: str, value: object) -> float:
    """How far a value lies from the best one of a parameter of that name; 1 is far."""
    drawn = random.Random(f"best/{name}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return random.Random(f"{name}={value!r}").random()
    if value == 0:
        return 0.5
    return min(1.0, abs(math.log10(abs(value)) - drawn.uniform(-3, 2)) / 4)
