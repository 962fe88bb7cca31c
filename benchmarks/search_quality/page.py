"""Scores as tables in Markdown, and the figure of regret against budget. Says, decides nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.reproductions.runs import short, table
from benchmarks.search_quality.scores import (
    BUDGETS,
    Array,
    Scores,
    friedman,
    mean_ranks,
    mean_regrets,
    nemenyi,
    wilcoxon_holm,
    worst_ratio,
)

BASELINE, OURS = "random+asha", "ours"
TOLD = 0.05  # below this p two arms differ
STYLES = ("-", "--", ":", "-.")
MARKERS = "sv^Dx+*P<>d"


def regrets(kind: Array, scores: Scores, labels: Mapping[str, str]) -> str:
    """Mean regret of each arm at each budget, the best of a column in bold."""
    return _by_budget(mean_regrets(kind), scores, labels)


def ranks(scores: Scores, labels: Mapping[str, str]) -> str:
    """Mean rank of each arm at each budget, with the p of Friedman's test below."""
    tests = [friedman(scores.seen, b) for b in range(len(BUDGETS))]
    return _by_budget(mean_ranks(scores.seen), scores, labels, digits=2) + f"\n| Friedman, p | {' | '.join(map(_p, tests))} |"


def ratios(groups: Mapping[str, Scores]) -> str:
    """The default's mean regret over that of random + ASHA, by group of tasks: of the best value, of full trainings, the worst task."""
    rows = []
    for name, scores in groups.items():
        ours, base = scores.row(OURS), scores.row(BASELINE)
        for what, kind in (("best value seen", scores.seen), ("best full training", scores.full)):
            means = mean_regrets(kind)
            rows.append([name, what, *(_ratio(mine, theirs) for mine, theirs in zip(means[ours], means[base], strict=True))])
        worst, where = worst_ratio(scores.seen, ours, base)
        cells = (f"{_finite(ratio)} ({scores.tasks[task]})" for ratio, task in zip(worst, where, strict=True))
        rows.append([name, "worst task", *cells])
    return table(["tasks", "ratio of", *map(str, BUDGETS)], rows)


def tests(scores: Scores, labels: Mapping[str, str]) -> str:
    """How the default compares with each other arm: p of Wilcoxon's test (Holm), `=` where Nemenyi's test cannot tell them apart."""
    ours, rows = scores.row(OURS), []
    pairs = [(wilcoxon_holm(scores.seen, b, ours), nemenyi(scores.seen, b)[ours]) for b in range(len(BUDGETS))]
    better = mean_ranks(scores.seen)
    for a, arm in enumerate(scores.arms):
        if arm != OURS:
            cells = []
            for b, (wilcoxon, all_pairs) in enumerate(pairs):
                mine, theirs = better[ours, b], better[a, b]
                side = "better" if mine < theirs else "worse" if mine > theirs else "level"
                cells.append(f"{side}, {_p(wilcoxon[a])}{'' if all_pairs[a] < TOLD else ' ='}")
            rows.append([labels[arm], *cells])
    return table(["ladders against", *map(str, BUDGETS)], rows)


def speed(scores: Scores, labels: Mapping[str, str]) -> str:
    """After how many full trainings an arm saw what random points had at the end: the median, and in how many searches it did."""
    rows = []
    for arm, reached in zip(scores.arms, scores.reached, strict=True):
        middle = float(np.median(reached))
        rows.append([labels[arm], f"{middle:.1f}" if math.isfinite(middle) else "never", f"{np.isfinite(reached).mean():.0%}"])
    return table(["arm", "full trainings", "searches that did"], rows)


def figure(by_workers: Mapping[int, Scores], labels: Mapping[str, str], file: Path) -> None:
    """Mean regret against budget, a panel for each number of workers, both axes logarithmic, told apart without colour."""
    drawn = Figure(figsize=(4.6 * len(by_workers) + 1.8, 4.4), layout="constrained")
    panels = drawn.subplots(1, len(by_workers), sharey=True, squeeze=False)[0]
    for axes, (workers, scores) in zip(panels, by_workers.items(), strict=True):
        for arm, means in zip(scores.arms, mean_regrets(scores.seen), strict=True):
            i = list(labels).index(arm)  # an arm looks the same in all panels
            look = {"ls": "-", "marker": "o", "ms": 6, "lw": 3, "color": "black", "zorder": 3}
            if arm != OURS:
                look = {"ls": STYLES[i % 4], "marker": MARKERS[i % len(MARKERS)], "ms": 5, "lw": 1.2, "color": f"C{i % 10}"}
            axes.plot(BUDGETS, means, label=labels[arm], **look)
        tasks = f"{len(scores.tasks)} task{'s' if len(scores.tasks) > 1 else ''}"
        axes.set(xscale="log", yscale="log", xlabel="budget (full trainings)", title=f"{workers} workers, {tasks}")
        axes.set_xticks(BUDGETS, [str(budget) for budget in BUDGETS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("mean regret (1 = median full training)")
    panels[0].set_yticks(*_ticks([scores.seen for scores in by_workers.values()]))
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    file.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(file, dpi=130)


def _ticks(kinds: Sequence[Array]) -> tuple[list[float], list[str]]:
    lowest = min(float(mean_regrets(kind).min()) for kind in kinds)
    ticks = [tick for tick in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if tick >= lowest / 2]
    return ticks, [short(tick, 2) for tick in ticks]


def _by_budget(means: Array, scores: Scores, labels: Mapping[str, str], digits: int = 3) -> str:
    best = means.min(axis=0)
    rows = []
    for arm, row in zip(scores.arms, means, strict=True):
        cells = (short(float(mean), digits) for mean in row)
        rows.append([labels[arm], *(f"**{cell}**" if mean <= least else cell for cell, mean, least in zip(cells, row, best, strict=True))])
    return table(["full trainings", *map(str, BUDGETS)], rows)


def _ratio(mine: float, theirs: float) -> str:
    return _finite(mine / theirs) if theirs else "-"


def _finite(ratio: float) -> str:
    return short(float(ratio), 2) if math.isfinite(ratio) else "-"


def _p(p: float) -> str:
    return "-" if math.isnan(p) else "<.001" if p < 0.001 else short(float(p), 3)
