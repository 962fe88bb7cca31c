"""Each hyperparameter against the result, on validation and on training data, so that over- and underfitting show. Draws only."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from hpo.pictures import style
from hpo.pictures.measured import NOTHING, as_text, best_of, searched, trained_with
from hpo.pictures.picture import Drawn
from hpo.results import StoredStudy
from hpo.space import Categorical, Float, Int, Parameter, Value
from hpo.trial import State, Trial

TITLE = "Each hyperparameter against the result"
FEW_VALUES, GROUPS = 12, 8  # values with a median each; groups of equally many trials where there are more values
SMALLEST_GROUP = 4
MOST_NAMES = 30
CROWD = 300  # points in a panel, above which they are smaller and fainter
WIDE = 14  # choices whose names would run into each other


@dataclass(frozen=True, slots=True)
class Point:
    """One trial's values at its best epoch; `train` None: not measured. `short`: it did not get far enough to show what it can do."""

    value: Value
    val: float
    train: float | None
    short: bool
    number: int


def chart(study: StoredStudy) -> Drawn | str:
    """A panel for each searched hyperparameter; or why there is nothing to draw."""
    trials, space = searched(study), study.spec.space
    if not trials:
        return NOTHING
    metric = study.spec.objective.metric
    rows_of = {name: points(study, trials, name) for name in space}
    found = next(iter(rows_of.values()), [])
    if not found:
        return "no hyperparameter is searched"
    shown = style.window([*(p.val for p in found), *(p.train for p in found if p.train is not None)], study.spec.objective.direction)
    columns = len(space) if len(space) < 4 else 2 if len(space) == 4 else min(4, math.ceil(len(space) / 2)) if len(space) < 9 else 4
    rows = math.ceil(len(space) / columns)
    drawn = style.figure(max(5.0, 3.1 * columns), 0.9 + 2.7 * rows + (0.4 if rows == 1 else 0))
    drawn.suptitle(f"{TITLE}: {style.shortened(study.name, 50)}", x=0.01, ha="left", fontsize=10, fontweight="bold")
    for at, (name, parameter) in enumerate(space.items()):
        axes = drawn.add_subplot(rows, columns, at + 1)
        _panel(axes, parameter, rows_of[name], shown)
        axes.set_xlabel(style.shortened(name, 34) + (" (log)" if is_log(parameter) else ""))
        if at % columns == 0:
            axes.set_ylabel(style.shortened(metric, 26))
        else:
            axes.tick_params(labelleft=False)
    both = any(p.train is not None for p in found)
    style.legend(drawn, _handles(found, both, any(_medians(p, rows_of[name]) for name, p in space.items())))
    return Drawn(drawn, _caption(study, both, found, shown))


def is_log(parameter: Parameter) -> bool:
    """Whether the parameter's own axis, and so the chart's, is logarithmic."""
    return isinstance(parameter, Float | Int) and parameter.log and parameter.low < parameter.high


def points(study: StoredStudy, trials: Sequence[Trial], name: str) -> list[Point]:
    """Each trial at its best epoch. Short are those that ended or wait before half of the longest training, and failures."""
    direction, paired = study.spec.objective.direction, trained_with(study.spec.objective.metric)
    longest = max((trial.epoch for trial in trials), default=0)
    found = []
    for trial in trials:
        measured = best_of(trial, direction)
        train = measured.metrics.get(paired) if paired else None
        short = trial.state is State.FAILED or (trial.state is not State.COMPLETE and trial.epoch < longest / 2)
        train = train if train is not None and math.isfinite(train) else None
        found.append(Point(trial.params[name], measured.value, train, short, trial.number))
    return found


def _panel(axes: Axes, parameter: Parameter, found: Sequence[Point], shown: style.Window) -> None:
    _scale(axes, parameter)
    many = 2 * len(found) > style.MANY_POINTS // 4
    for short in (True, False):
        group = [point for point in found if point.short is short]
        x, trained = [_x(parameter, p) for p in group], [(_x(parameter, p), shown.inside(p.train)) for p in group if p.train is not None]
        crowded = len(group) > CROWD
        size, alpha = (2.4, 0.35) if short else (2.6, 0.4) if crowded else (4.0, 0.9)
        for xs, ys, mark, colour, face in (
            ([a for a, _ in trained], [b for _, b in trained], "^", style.ORANGE, "none"),
            (x, [shown.inside(p.val) for p in group], "o", style.DARK, style.DARK),
        ):
            axes.plot(
                xs, ys, linestyle="none", marker=mark, markersize=size, color=colour, markerfacecolor=face, alpha=alpha, rasterized=many
            )
    for line, colour, dashes in zip(_medians(parameter, found), (style.DARK, style.ORANGE), ("-", (0, (4, 2))), strict=False):
        x, y = [a for a, _ in line], [shown.inside(b) for _, b in line]
        if isinstance(parameter, Categorical):
            length = max(4.0, min(15.0, 100 / len(parameter.choices)))
            axes.plot(x, y, color="white", linestyle="none", marker="_", markersize=length + 2, markeredgewidth=4.5)
            axes.plot(x, y, color=colour, linestyle="none", marker="_", markersize=length, markeredgewidth=2.0)
        else:
            axes.plot(x, y, color="white", linewidth=3.4)
            axes.plot(x, y, color=colour, linewidth=1.6, linestyle=dashes)
    shown.show(axes)


def _scale(axes: Axes, parameter: Parameter) -> None:
    match parameter:
        case Categorical(choices):
            every = math.ceil(len(choices) / MOST_NAMES)
            long = sum(len(style.shortened(as_text(value), 12)) for value in choices) > 28
            axes.set_xlim(-0.6, len(choices) - 0.4)
            axes.set_xticks(
                range(0, len(choices), every),
                [style.shortened(as_text(value), 12) for value in choices[::every]],
                rotation=90 if len(choices) > WIDE else 35 if long else 0,
                ha="right" if long and len(choices) <= WIDE else "center",
                rotation_mode="anchor" if long and len(choices) <= WIDE else "default",
                fontsize=6.0 if len(choices) > WIDE else 7.5,
            )
        case Float(low, high) | Int(low, high) if low == high:
            axes.set_xticks([float(low)], [as_text(low)])
        case Float(low, high, log=True) | Int(low, high, log=True):
            style.log_scale(axes, axes.xaxis, low, high)
        case Float(low, high) | Int(low, high):
            left, right = (min(max(float(bound), -style.LARGEST), style.LARGEST) for bound in (low, high))
            room = 0.04 * (right - left)
            axes.set_xlim(left - room, right + room)
            axes.locator_params(axis="x", nbins=5)


def _x(parameter: Parameter, point: Point) -> float:
    """Where a point is drawn: those of one choice are spread a little around its place."""
    spread = (math.modf(point.number * 0.6180339887)[0] - 0.5) * 0.5 if isinstance(parameter, Categorical) else 0.0
    return _place(parameter, point) + spread


def _medians(parameter: Parameter, found: Sequence[Point]) -> list[list[tuple[float, float]]]:
    """Lines through medians, of validation values and then of training values, over trials that got far enough.

    One median for each value where there are few values, else one for each of equally large groups; none where trials are few.
    """
    far = sorted((p for p in found if not p.short), key=lambda p: (_place(parameter, p), p.number))
    values = sorted({_place(parameter, p) for p in far})
    if len(values) < 2:
        return []
    if isinstance(parameter, Categorical) or (len(values) <= FEW_VALUES and len(far) >= 2 * len(values)):
        groups = [[p for p in far if _place(parameter, p) == value] for value in values]
    else:
        count = min(GROUPS, len(far) // SMALLEST_GROUP)
        if count < 4:
            return []
        groups = [far[len(far) * at // count : len(far) * (at + 1) // count] for at in range(count)]
    centres = [statistics.median(_place(parameter, p) for p in group) for group in groups]
    val = [(at, statistics.median(p.val for p in group)) for at, group in zip(centres, groups, strict=True)]
    known = [(at, [p.train for p in group if p.train is not None]) for at, group in zip(centres, groups, strict=True)]
    return [val, [(at, statistics.median(values)) for at, values in known if values]]


def _place(parameter: Parameter, point: Point) -> float:
    """Where the point's value lies on the axis: a choice at its number."""
    if isinstance(parameter, Categorical):  # True == 1: the type counts, too
        return next(at for at, choice in enumerate(parameter.choices) if choice == point.value and type(choice) is type(point.value))
    return float(point.value) if is_log(parameter) else min(max(float(point.value), -style.LARGEST), style.LARGEST)


def _handles(found: Iterable[Point], both: bool, medians: bool) -> list[Line2D]:
    handles = [Line2D([], [], linestyle="none", marker="o", color=style.DARK, label="validation")]
    if both:
        handles.append(Line2D([], [], linestyle="none", marker="^", color=style.ORANGE, markerfacecolor="none", label="training"))
    if medians:
        handles.append(Line2D([], [], color=style.DARK, linewidth=1.6, label="median" + (", validation" if both else "")))
        handles += [Line2D([], [], color=style.ORANGE, linewidth=1.6, linestyle=(0, (4, 2)), label="median, training")] if both else []
    if any(point.short for point in found):
        handles.append(
            Line2D(
                [], [], linestyle="none", marker="o", markersize=3, color=style.DARK, alpha=0.35, label="pruned early, waiting or failed"
            )
        )
    return handles


def _caption(study: StoredStudy, both: bool, found: Sequence[Point], shown: style.Window) -> str:
    parts = [f"{study.spec.objective.metric} of {len(found):,} trials at their best epochs, over each hyperparameter"]
    if both:
        parts.append("where training is good and validation is not, the model overfits; where both are bad, it underfits")
    parts += [f"{shown.beyond:,} worse values are drawn at the axis's end"] if shown.beyond else []
    return "; ".join(parts) + "."
