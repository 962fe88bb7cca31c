"""The learning curves of all trials of the search, with the rungs, each state in a way of its own. Draws; decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from hpo.pictures import style
from hpo.pictures.measured import NOTHING, STATES, best_first, best_of, searched
from hpo.pictures.picture import Drawn
from hpo.results import StoredStudy
from hpo.trial import Direction, State, Trial

TITLE = "Learning curves"
FAINT, CROWD = 40, 150  # curves of one state, above which they become fainter, and their ends smaller


@dataclass(frozen=True, slots=True)
class Stroke:
    """How the curves of one state look: the line (`dashes` None: solid), its end's mark, and how far up they lie."""

    colour: str
    dashes: tuple[float, ...] | None
    width: float
    mark: str
    layer: int

    @property
    def line(self) -> tuple[float, tuple[float, ...]] | Literal["solid"]:
        """Matplotlib's name for the line."""
        return (0.0, self.dashes) if self.dashes else "solid"


STROKES = {
    State.PRUNED: Stroke(style.LIGHT, None, 0.7, ".", 2),
    State.PAUSED: Stroke(style.MID, (5, 2), 0.8, "o", 3),
    State.RUNNING: Stroke(style.BLACK, (5, 2, 1, 2), 0.9, ">", 4),
    State.COMPLETE: Stroke(style.DARK, None, 1.1, "", 5),
    State.FAILED: Stroke(style.RED, (1, 1.5), 1.2, "x", 6),
}


def chart(study: StoredStudy) -> Drawn | str:
    """Every trial's objective over its epochs; or why there is nothing to draw."""
    trials, direction = searched(study), study.spec.objective.direction
    if not trials:
        return NOTHING
    drawn, axes = style.single(7.2, 4.6, f"{TITLE}: {style.shortened(study.name, 50)}")
    shown = style.window([measured.value for trial in trials for measured in trial.measurements], direction, factor=6.0)
    last = max(trial.epoch for trial in trials)
    handles = [_state(axes, state, [trial for trial in trials if trial.state is state], shown) for state in STATES]
    found, best = [handle for handle in handles if handle], best_first(trials, direction)[0]
    if best.state is not State.FAILED:
        found.append(_best(axes, best, direction, shown))
    axes.set_xlim(*((1 - 0.02 * last, last) if last > 1 else (0.5, 1.5)))
    axes.margins(x=0)
    shown.show(axes)
    rungs = [epoch for epoch in study.study.rules.rungs if epoch <= last]
    _rungs(axes, rungs, last)
    found += [Line2D([], [], color=style.BLACK, linewidth=0.8, linestyle=(0, (1, 3)), label="rung")] if rungs else []
    style.legend(drawn, found)
    style.whole_numbers(axes.xaxis)
    axes.set_xlabel("epoch of the trial")
    axes.set_ylabel(style.shortened(study.spec.objective.metric, 40))
    return Drawn(drawn, _caption(study, trials, rungs, shown))


def _state(axes: Axes, state: State, trials: Sequence[Trial], shown: style.Window) -> Line2D | None:
    """Draw the curves of one state; what stands for them in the legend."""
    if not trials:
        return None
    stroke = STROKES[state]
    alpha = max(0.25, min(1.0, (FAINT / len(trials)) ** 0.5))
    many = sum(len(trial.measurements) for trial in trials) > style.MANY_POINTS
    curves = [[(m.epoch, shown.near(m.value)) for m in trial.measurements] for trial in trials]
    lines = LineCollection(
        curves, colors=stroke.colour, linestyles=[stroke.line], linewidths=stroke.width, alpha=alpha, zorder=stroke.layer
    )
    lines.set_rasterized(many)
    axes.add_collection(lines)
    ends = [trial.measurements[-1] for trial in trials if stroke.mark or len(trial.measurements) == 1]  # one epoch is a point
    crowded, face = len(ends) > CROWD, "white" if state is State.PAUSED else None
    if ends:
        axes.plot(
        [m.epoch for m in ends], [shown.inside(m.value) for m in ends], linestyle="none", color=stroke.colour, alpha=alpha,
        marker=stroke.mark or ".", markersize=3.0 if crowded else 4.5, markerfacecolor=face, zorder=stroke.layer + 0.5, clip_on=False,
        rasterized=many or len(ends) > style.MANY_POINTS // 4,
    )  # fmt: skip
    return Line2D(
        [], [], color=stroke.colour, linestyle=stroke.line, linewidth=max(1.2, stroke.width), marker=stroke.mark or None, markersize=4.5,
        markerfacecolor=face, label=f"{state} ({len(trials):,})",
    )  # fmt: skip


def _best(axes: Axes, best: Trial, direction: Direction, shown: style.Window) -> Line2D:
    """The best trial on top of all, with a star at its best epoch."""
    epochs, values = [m.epoch for m in best.measurements], [shown.near(m.value) for m in best.measurements]
    axes.plot(epochs, values, color="white", linewidth=3.6, zorder=8)
    axes.plot(epochs, values, color=style.BLACK, linewidth=1.9, zorder=9)
    measured = best_of(best, direction)
    axes.plot([measured.epoch], [shown.inside(measured.value)], marker="*", markersize=11, color=style.BLACK, zorder=10, clip_on=False)
    return Line2D([], [], color=style.BLACK, linewidth=1.9, marker="*", markersize=9, label=f"best: trial {best.number}")


def _rungs(axes: Axes, rungs: Sequence[int], last: int) -> None:
    """Vertical lines at the rungs, each with its epoch above it where there is room."""
    before = -last
    for epoch in rungs:
        axes.axvline(epoch, color=style.BLACK, linewidth=0.8, linestyle=(0, (1, 3)), zorder=7)
    for epoch in reversed(rungs):
        if before < 0 or before - epoch > 0.035 * last:
            axes.text(
                epoch, 1.005, str(epoch), transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=7.5, color="#333333"
            )
            before = epoch


def _caption(study: StoredStudy, trials: Sequence[Trial], rungs: Sequence[int], shown: style.Window) -> str:
    parts = [f"{study.spec.objective.metric} after each epoch of {len(trials):,} trials"]
    silent = sum(trial.state is State.FAILED and not trial.measurements for trial in study.trials)
    parts += ["dotted lines are the rungs at which trials are compared"] if rungs else []
    parts += [f"{silent} failed before their first epoch and have no curve"] if silent else []
    parts += [f"{shown.beyond:,} worse values lie outside the axis"] if shown.beyond else []
    return "; ".join(parts) + "."
