"""Parallel coordinates: a line for every measured trial of the search, the best drawn last and darkest. Draws; decides nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

from hpo.pictures import style
from hpo.pictures.measured import NOTHING, as_text, best_first, best_of, searched
from hpo.pictures.picture import Drawn
from hpo.results import StoredStudy
from hpo.space import Categorical, Float, Int, Parameter, SearchSpace, Value, position
from hpo.trial import Direction, State, Trial

TITLE = "All trials in parallel coordinates"
NEAREST = 0.065  # between two labels of an axis, as a share of it
FEW_VALUES = 12  # of a number
WIDEST_NAME = 15  # characters that fit between two axes
MOST_NAMES = 30  # of choices at an axis
DARKEST, LIGHTEST = 0.0, 0.88  # of viridis: its yellow end is hardly seen on white
Tick = tuple[float, str]
Line = list[tuple[float, float]]


def chart(study: StoredStudy) -> Drawn | str:
    """One line a trial through its parameters to its value; or why there is nothing to draw."""
    trials, direction, space = searched(study), study.spec.objective.direction, study.spec.space
    if not trials:
        return NOTHING
    drawn = style.figure(min(24.0, max(6.5, 1.5 + 1.05 * (len(space) + 1))), 5.0)
    axes = drawn.add_subplot()
    axes.set_title(f"{TITLE}: {style.shortened(study.name, 50)}", pad=12)
    worst_first = best_first(trials, direction)[::-1]
    shown = style.window([best_of(trial, direction).value for trial in trials], direction)
    spread = spreads(space, trials)
    lines = [path(trial, space, shown, direction, spread) for trial in worst_first]
    _draw(axes, lines, worst_first)
    metric = study.spec.objective.metric
    turned = max(map(len, [*space, metric])) > WIDEST_NAME
    for at, (name, parameter) in enumerate(space.items()):
        _axis(axes, at, ticks(parameter), style.shortened(name, 22), turned=turned)
    better = "higher" if direction is Direction.MAXIMIZE else "lower"
    _axis(
        axes, len(space), _value_ticks(shown, direction), f"{style.shortened(metric, 22)}\n({better} is better)", turned=turned, last=True
    )
    axes.set_xlim(-0.15, len(space) + 0.3)
    axes.set_ylim(-0.03, 1.03)
    axes.set_axis_off()
    return Drawn(drawn, _caption(trials, metric, shown))


def path(trial: Trial, space: SearchSpace, shown: style.Window, direction: Direction, spread: Mapping[str, float]) -> Line:
    """The points of a trial's line: where each parameter lies on its own axis, then its value, the best at the top.

    By up to `spread` of an axis the lines of one value lie beside each other.
    """
    aside = math.modf(trial.number * 0.6180339887)[0] - 0.5
    heights = [min(max(position(parameter, trial.params[name]), 0.0), 1.0) + aside * spread[name] for name, parameter in space.items()]
    value = (shown.inside(best_of(trial, direction).value) - shown.low) / (shown.high - shown.low)
    return list(enumerate([*heights, value if direction is Direction.MAXIMIZE else 1 - value]))


def spreads(space: SearchSpace, trials: Sequence[Trial]) -> dict[str, float]:
    """By how much of each axis lines are spread: none where values are many; where they are few, all lines of one would be one."""
    found = {}
    for name, parameter in space.items():
        values = len({trial.params[name] for trial in trials})
        few = values <= FEW_VALUES and len(trials) >= 2 * values
        found[name] = min(0.06, 0.4 / len(parameter.choices)) if isinstance(parameter, Categorical) else 0.02 * few
    return found


def _draw(axes: Axes, lines: Sequence[Line], worst_first: Sequence[Trial]) -> None:
    count = len(lines)
    full = matplotlib.colormaps["viridis"]
    colours = LinearSegmentedColormap.from_list("best_is_dark", [full(LIGHTEST + (DARKEST - LIGHTEST) * i / 63) for i in range(64)])
    shares = [at / max(1, count - 1) for at in range(count)] if count > 1 else [1.0]
    best = max(1, min(10, count // 20))  # these are wider
    drawn = LineCollection(
        lines,
        colors=[colours(share) for share in shares],
        linewidths=[2.0 if at >= count - best else 0.8 for at in range(count)],
        linestyles=[(0, (1, 1.5)) if trial.state is State.FAILED else "-" for trial in worst_first],
        alpha=[1.0 if at >= count - best else max(0.35, min(0.9, (200 / count) ** 0.5)) for at in range(count)],
        capstyle="round",
        joinstyle="round",
        gid="trials",
    )
    drawn.set_rasterized(count * len(lines[0]) > style.MANY_POINTS)
    axes.add_collection(drawn)


def _axis(axes: Axes, at: int, marks: Sequence[Tick], name: str, *, turned: bool, last: bool = False) -> None:
    """One vertical axis with its labels at the left (those of the `last` one at the right), and its name below, `turned` or not."""
    side = 1 if last else -1
    axes.plot([at, at], [0, 1], color=style.BLACK, linewidth=1.0, zorder=3)
    small = 6.0 if len(marks) > 14 else 7.5
    for height, label in marks:
        axes.plot([at, at + 0.025 * side], [height, height], color=style.BLACK, linewidth=0.8, zorder=3)
        axes.text(
            at + 0.045 * side, height, label, ha="left" if last else "right", va="center", fontsize=small, zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.75},
        )  # fmt: skip
    how: dict[str, Any] = {"ha": "right", "rotation": 28, "rotation_mode": "anchor"} if turned else {"ha": "center"}
    axes.text(at + 0.06 * turned, -0.05, name, va="top", fontsize=8.5, **how)


def ticks(parameter: Parameter) -> list[Tick]:
    """Where an axis is labelled, and how: bounds and round values between them, or the names of the choices."""
    match parameter:
        case Categorical(choices):
            every = math.ceil(len(choices) / MOST_NAMES)
            return [(position(parameter, value), style.shortened(as_text(value), 14)) for value in choices[::every]]
        case Float(low, high) | Int(low, high) if low == high:
            return [(0.5, style.number(float(low)))]
        case Float(low, high, log=True) | Int(low, high, log=True):
            candidates = style.log_ticks(low, high)
        case Float(low, high) | Int(low, high):
            candidates = [
                float(v)
                for v in MaxNLocator(5, integer=isinstance(parameter, Int)).tick_values(max(low, -style.LARGEST), min(high, style.LARGEST))
            ]
    bounds, inner = (float(low), float(high)), [value for value in candidates if low < value < high]
    return _apart([(position(parameter, _kind(parameter, value)), style.number(value, 3)) for value in (*bounds, *inner)])


def _apart(marks: Iterable[Tick]) -> list[Tick]:
    """Those of the labels that do not run into an earlier one, from the bottom to the top."""
    found: list[Tick] = []
    for height, label in marks:
        if all(abs(height - other) > NEAREST for other, _ in found):
            found.append((height, label))
    return sorted(found)


def _kind(parameter: Parameter, value: float) -> Value:
    return round(value) if isinstance(parameter, Int) else value


def _value_ticks(shown: style.Window, direction: Direction) -> list[Tick]:
    inner = [float(value) for value in MaxNLocator(6).tick_values(shown.low, shown.high) if shown.low < value < shown.high]
    heights = [(value - shown.low) / (shown.high - shown.low) for value in (shown.low, shown.high, *inner)]
    labels = [style.number(value) for value in (shown.low, shown.high)] + [style.number(value, 6) for value in inner]
    upwards = direction is Direction.MAXIMIZE
    return _apart((height if upwards else 1 - height, label) for height, label in zip(heights, labels, strict=True))


def _caption(trials: Sequence[Trial], metric: str, shown: style.Window) -> str:
    parts = [f"Each of the {len(trials):,} measured trials is a line through its parameters to its {metric}: the better, the darker"]
    parts += ["dotted ones failed"] if any(trial.state is State.FAILED for trial in trials) else []
    parts += [f"{shown.beyond:,} are worse than the lower end of the last axis and drawn there"] if shown.beyond else []
    return "; ".join(parts) + "."
