"""Which hyperparameters matter, as bars, beside what chance alone would give them. Draws what `hpo.importance` computes."""

from __future__ import annotations

from matplotlib.lines import Line2D

from hpo.importance import Importance, importance
from hpo.pictures import style
from hpo.pictures.picture import Drawn
from hpo.results import StoredStudy

TITLE = "Importance of each hyperparameter"
MOST = 30


def chart(study: StoredStudy) -> Drawn | str:
    """The shares as bars, the largest on top; or why there are none."""
    found = importance(study)
    if found.lacking:
        return found.lacking
    shares = found.shares[:MOST]
    drawn, axes = style.single(6.6, 1.5 + 0.3 * len(shares), f"{TITLE}: {style.shortened(study.name, 40)}")
    for at, one in enumerate(shares):
        told = one.share > one.by_chance
        axes.barh(
            at,
            100 * one.share,
            height=0.62,
            color=style.DARK if told else "white",
            edgecolor=style.DARK,
            hatch="" if told else "////",
            linewidth=0.8,
        )
        for colour, width in (("white", 3.6), (style.RED, 1.6)):  # white around it, or it is lost in the bar
            axes.plot([min(100, 100 * one.by_chance)] * 2, [at - 0.42, at + 0.42], color=colour, linewidth=width)
    axes.set_yticks(range(len(shares)), [f"{style.shortened(one.parameter, 34)}   {one.share:.0%}" for one in shares])
    axes.set_ylim(len(shares) - 0.4, -0.6)
    axes.set_xlim(0, min(102, 106 * max(max(one.share, one.by_chance) for one in shares)))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("share of the importance (%)")
    style.legend(
        drawn, [Line2D([], [], color=style.RED, linewidth=1.6, label="reached by chance in one of twenty shufflings of the results")]
    )
    return Drawn(drawn, _caption(found))


def _caption(found: Importance) -> str:
    unclear = sum(one.share <= one.by_chance for one in found.shares)
    marked = "1 hatched is" if unclear == 1 else f"{unclear} hatched are"
    words = f"How much each hyperparameter sets the best {found.best} of {found.trials:,} trials apart from the others (PED-ANOVA)"
    return words + (f"; {marked} no more than chance would give." if unclear else ".")
