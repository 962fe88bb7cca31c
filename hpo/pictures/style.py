"""The common look of the charts: readable in grey, text as it is written, the same bytes each time. Knows no study."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from hpo.trial import Direction

BLACK, DARK, MID, LIGHT, GRID = "#111111", "#0b4f8a", "#8a8a8a", "#b5b5b5", "#e4e4e4"
ORANGE, RED = "#e69f00", "#b2182b"  # orange is light and red is dark in grey
DPI = 150
LEGEND_COLUMN = 1.45  # inches
SVG_DPI = 110  # of what lies in an SVG as pixels
MANY_POINTS = 6000  # of these on an SVG's marks are pixels: as shapes they take megabytes
NARROW, MOST_DECADES = 1.5, 12.0  # decades of a log axis: with fewer it has labels between them, with more no small ticks
LARGEST = 1e100  # what is larger is drawn there: matplotlib squares and subtracts
SETTINGS: Any = {
    "svg.hashsalt": "hpo",  # else the names inside an SVG are drawn by chance
    "svg.fonttype": "none",
    "text.parse_math": False,  # a `$` in a name is a `$`
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "path.simplify": True,
    "savefig.facecolor": "white",
}


@contextmanager
def plain() -> Iterator[None]:
    """Matplotlib's own settings inside. A file in the current folder, which may be a stranger's, says others: have LaTeX run, say."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        yield


@contextmanager
def look() -> Iterator[None]:
    """Our settings while charts are drawn and written; those of their caller come back afterwards."""
    with warnings.catch_warnings(), plain():
        matplotlib.rcParams.update(SETTINGS)
        warnings.filterwarnings("ignore", "Glyph .* missing")  # a name in any script: a PNG shows boxes there, an SVG the name
        yield


def figure(width: float, height: float) -> Figure:
    """An empty figure in inches, whose parts keep out of each other's way."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.07, h_pad=0.06, wspace=0.03, hspace=0.03))


def single(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """A figure with one chart."""
    drawn = figure(width, height)
    drawn.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")  # of the figure: labels at the left may leave axes narrow
    return drawn, drawn.add_subplot()


def legend(drawn: Figure, handles: Sequence[Line2D]) -> None:
    """A legend below the charts, never over them."""
    if handles:
        columns = max(2, int(drawn.get_figwidth() / LEGEND_COLUMN))
        drawn.legend(handles=list(handles), loc="outside lower left", ncols=min(columns, len(handles)), handlelength=2.6)


def number(value: float, digits: int = 4) -> str:
    """A number in few characters: `0.001`, `1e-06`, `12000`."""
    if 1000 <= abs(value) < 1e6 and value == round(value):
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def shortened(text: str, most: int) -> str:
    """At most so many characters of a text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def log_ticks(low: float, high: float) -> list[float]:
    """Where a log axis from `low` to `high` is labelled: at some powers of ten, or at 1, 2 and 5 times those, or at its ends."""
    bottom, top = math.log10(low), math.log10(high)  # high / low may be too large for a float
    if top - bottom < NARROW:
        fine = [times * 10.0**power for power in range(math.floor(bottom), math.floor(top) + 1) for times in (1, 2, 5)]
        found = [value for value in fine if low <= value <= high]
        return found if len(found) > 1 else [low, high]
    step = math.ceil((top - bottom) / 5)
    return [10.0**power for power in range(math.ceil(bottom - 1e-9), math.floor(top + 1e-9) + 1) if power % step == 0]


def log_scale(axes: Axes, axis: Axis, low: float, high: float) -> None:
    """A log axis from `low` to `high` with plain numbers at it."""
    set_scale, set_limits = (axes.set_xscale, axes.set_xlim) if axis is axes.xaxis else (axes.set_yscale, axes.set_ylim)
    set_scale("log")
    decades = math.log10(high) - math.log10(low)
    margin = 10 ** min(0.04 * decades, 1.0)
    set_limits(low / margin, min(high, sys.float_info.max / margin) * margin)
    axis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axis.set_minor_formatter(NullFormatter())
    if decades > MOST_DECADES:
        axis.set_minor_locator(NullLocator())


def whole_numbers(axis: Axis) -> None:
    """Ticks at whole numbers only, written in full with separators."""
    axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


@dataclass(frozen=True, slots=True)
class Window:
    """What part of the objective's axis is shown: from `low` to `high`; `beyond` values are worse than that."""

    low: float
    high: float
    beyond: int

    def inside(self, value: float) -> float:
        """The value, or the edge that it lies behind."""
        return min(max(value, self.low), self.high)

    def near(self, value: float) -> float:
        """The value, or a point well outside of the axis, so that a line to it leaves in the right direction: far ones overflow."""
        span = 3 * (self.high - self.low)
        return min(max(value, self.low - span), self.high + span)

    def show(self, axes: Axes) -> None:
        """Give the axes this range, with a little room."""
        room = 0.04 * (self.high - self.low)
        axes.set_ylim(self.low - room, self.high + room)


def window(values: Sequence[float], direction: Direction, factor: float = 10.0) -> Window:
    """All of the values, but for those that are worse than the best by more than `factor` times what the median is.

    A trial that diverged would press all others into a line. Never empty, even where all values are the same.
    """
    losses = sorted(min(max(direction.loss(value), -LARGEST), LARGEST) for value in values)
    if not losses:
        return Window(0.0, 1.0, 0)
    best, worst = losses[0], losses[-1]
    middle = next(
        (losses[int(share * (len(losses) - 1))] for share in (0.5, 0.75, 0.9) if losses[int(share * (len(losses) - 1))] > best), worst
    )
    fence = min(worst, best + factor * (middle - best))
    if fence == best:
        room = 0.05 * abs(best) or 1.0
        best, fence = best - room, fence + room
    low, high = sorted((direction.loss(best), direction.loss(fence)))
    return Window(low, high, sum(loss > fence for loss in losses))
