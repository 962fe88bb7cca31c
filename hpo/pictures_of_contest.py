"""The curves of a contest as a picture: medians of all arms together, then each arm with its repeats' interval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hpo.brief import short
from hpo.contest import ArmRow, Contest
from hpo.pictures.style import plain
from hpo.trajectories import Band, band
from hpo.trial import Direction

SETTLED = 0.15  # of the budget: what comes before it may leave the picture at the bottom, or the rest could not be told apart
COLOURS = ("#0b3c6f", "#b5651d", "#4f7d2f", "#8c2d4b", "#6b6b6b", "#2a8c8c", "#7a5ea8", "#a08a1f")
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (2, 1.5), (8, 2, 2, 2), (1, 1.5), (10, 3), (4, 1, 1, 1), (3, 3))
PANEL_COLUMNS = 3


def save(found: Contest, folder: Path) -> list[Path]:
    """Write curves.png and curves.svg; returns their paths."""
    paths = [folder / "curves.png", folder / "curves.svg"]
    with plain():
        figure = curves(found)
        for path in paths:
            figure.savefig(path, dpi=150)
    return paths


def curves(found: Contest) -> Figure:
    """Best value so far against epochs."""
    bands = [band([run.path for run in arm.present], found.epochs) for arm in found.arms]
    columns = min(PANEL_COLUMNS, len(bands))
    rows = -(-len(bands) // columns)
    figure = Figure(figsize=(10, 4.2 + 2.3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[2, *[1] * rows])
    limits = _limits(found, bands)
    wide = figure.add_subplot(grid[0, :])
    _medians(wide, found, bands)
    _label_axes(wide, found, limits)
    wide.set_ylabel(f"best {found.metric} so far (validation)")
    for number, (arm, one) in enumerate(zip(found.arms, bands, strict=True)):
        panel = figure.add_subplot(grid[1 + number // columns, number % columns], sharex=wide, sharey=wide)
        _panel(panel, number, arm, bands, one)
        _label_axes(panel, found, limits)
    figure.supxlabel("epochs of all trials of a search together", fontsize="medium")
    figure.suptitle(f"{found.name}: median of {found.rounds} repeat{'s' if found.rounds != 1 else ''}; below, each arm with {_what(found)}")
    return figure


def _what(found: Contest) -> str:
    return "the lowest to highest repeat" if found.rounds < 6 else "the 95 % interval of its median"


def _medians(axes: Axes, found: Contest, bands: Sequence[Band]) -> None:
    ends: list[tuple[float, int]] = []
    for number, one in enumerate(bands):
        if one.epochs:
            axes.step(
                one.epochs, [m.median for m in one.middles], where="post", **_style(number), linewidth=1.8, label=found.arms[number].label
            )
            ends.append((one.middles[-1].median, number))
    ends.sort(reverse=found.direction is Direction.MAXIMIZE)
    handles = {line.get_label(): line for line in axes.get_lines()}
    labels = [found.arms[number].label for _, number in ends]
    if labels:
        shown = [f"{label}  {short(value)}" for label, (value, _) in zip(labels, ends, strict=True)]
        axes.legend(
            [handles[label] for label in labels],
            shown,
            loc="lower right" if found.direction is Direction.MAXIMIZE else "upper right",
            frameon=False,
            handlelength=4,
        )


def _panel(axes: Axes, number: int, arm: ArmRow, bands: Sequence[Band], one: Band) -> None:
    for other in bands:
        if other is not one and other.epochs:
            axes.step(other.epochs, [m.median for m in other.middles], where="post", color="0.8", linewidth=0.8)
    if one.epochs:
        lows, highs = [m.low for m in one.middles], [m.high for m in one.middles]
        axes.fill_between(one.epochs, lows, highs, step="post", color=COLOURS[number % len(COLOURS)], alpha=0.3, linewidth=0)
        axes.step(one.epochs, [m.median for m in one.middles], where="post", **_style(number), linewidth=1.5)
    axes.set_title(arm.label, fontsize="medium", loc="left")
    axes.tick_params(labelsize="small")


def _style(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "dashes": DASHES[number % len(DASHES)] or (None, None)}


def _label_axes(axes: Axes, found: Contest, limits: tuple[float, float] | None) -> None:
    axes.set_xlim(0, max(1, found.epochs))
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    if limits:
        axes.set_ylim(*limits)
    axes.spines[["top", "right"]].set_visible(False)


def _limits(found: Contest, bands: Sequence[Band]) -> tuple[float, float] | None:
    """From the worst median when the curves have settled to the best value, and a little beyond."""
    settled = [m for one in bands for epoch, m in zip(one.epochs, one.middles, strict=True) if epoch >= SETTLED * found.epochs]
    if not settled:
        return None
    ends = [m.high if found.direction is Direction.MAXIMIZE else m.low for m in settled]
    low, high = min(*ends, *(m.median for m in settled)), max(*ends, *(m.median for m in settled))
    margin = 0.05 * (high - low) or max(abs(high), 1.0) * 0.01
    return low - margin, high + margin
