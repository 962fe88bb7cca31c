"""Best value so far against the epochs that the whole study trained. Draws; decides nothing."""

from __future__ import annotations

from dataclasses import replace

from matplotlib.axes import Axes

from hpo.pictures import style
from hpo.pictures.measured import NOTHING, FinalsSpan, best_so_far, finals_span
from hpo.pictures.picture import Drawn
from hpo.results import StoredStudy
from hpo.trial import Direction

TITLE = "Best value so far"


def chart(study: StoredStudy) -> Drawn | str:
    """The best value so far as steps, its last step named, and where the finals begin; or why there is none."""
    found = [(epoch, best) for epoch, best in enumerate(best_so_far(study), 1) if best is not None]
    if not found:
        return NOTHING
    metric, direction = study.spec.objective.metric, study.spec.objective.direction
    drawn, axes = style.single(7.2, 3.9, f"{TITLE}: {style.shortened(study.name, 50)}")
    shown = style.window([best for _, best in found], direction, factor=8.0)
    shown = _with_finals(shown, study)
    last, best = found[-1]
    steps = [at for at, one in enumerate(found) if at == 0 or one[1] != found[at - 1][1]]
    epochs, values = [found[at][0] for at in steps], [shown.near(found[at][1]) for at in steps]
    axes.step([*epochs, last], [*values, values[-1]], where="post", color=style.DARK, linewidth=1.6)
    axes.plot(epochs, values, linestyle="none", marker="o", markersize=3.5, color=style.DARK)
    span = finals_span(study)
    axes.set_xlim(0, (last + span.epochs if span else last) * 1.02 + 0.5)
    shown.show(axes)
    _name_best(axes, epochs[-1], shown.inside(best), direction, span.begin if span else last)
    judged = span is not None and _finals(axes, study, span, shown)
    axes.set_xlabel("epochs trained by the whole study")
    axes.set_ylabel(f"{style.shortened(metric, 30)}, best so far")
    style.whole_numbers(axes.xaxis)
    words = [
        f"The best value of any trial so far, after each of the {last:,} epochs that the search trained",
        *([f"it began at {style.number(found[0][1])}, outside the axis"] if shown.beyond else []),
        *([f"the dashed line marks where the finals begin ({span.epochs:,} epochs more)"] if span else []),
        *(["the diamond is the mean that they found for the winner, the bar its 95 % interval"] if judged else []),
    ]
    return Drawn(drawn, "; ".join(words) + ".")


def _name_best(axes: Axes, epoch: int, best: float, direction: Direction, right: int) -> None:
    """A star where the best value was reached, and its name in the corner that the line leaves free, left of `right`."""
    upwards = direction is Direction.MAXIMIZE
    axes.plot([epoch], [best], marker="*", markersize=11, color=style.BLACK, zorder=5)
    axes.annotate(
        f"★ best {style.number(best)}, after {epoch:,} epoch{'s' * (epoch != 1)}",
        (right, 0.05 if upwards else 0.95),
        xycoords=axes.get_xaxis_transform(),
        xytext=(-6, 0),
        textcoords="offset points",
        ha="right",
        va="bottom" if upwards else "top",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
    )


def _with_finals(shown: style.Window, study: StoredStudy) -> style.Window:
    """The part of the axis that has room for what the finals found, too."""
    judged = study.study.judged
    if judged is None:
        return shown
    known = [value for value in (judged.winner.low, judged.winner.mean, judged.winner.high) if value is not None]
    return replace(shown, low=min(shown.low, *known), high=max(shown.high, *known)) if known else shown


def _finals(axes: Axes, study: StoredStudy, span: FinalsSpan, shown: style.Window) -> bool:
    """A line where the finals begin and, where they are judged, what they say of the winner; whether they are."""
    axes.axvline(span.begin, color=style.BLACK, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.text(span.begin, 1.01, "finals", transform=axes.get_xaxis_transform(), ha="center", va="bottom", fontsize=8.5)
    judged = study.study.judged
    if judged is None or judged.winner.mean is None:
        return False
    winner, mean, at = judged.winner, judged.winner.mean, span.begin + span.epochs
    if winner.low is not None and winner.high is not None:
        axes.plot([at, at], [shown.inside(winner.low), shown.inside(winner.high)], color=style.RED, linewidth=1.4)
    axes.plot([at], [shown.inside(mean)], marker="D", markersize=5, color=style.RED)
    return True
