"""What the finals are worth: the tables and the figure of docs/finals.md.

    python -m benchmarks.finals [--studies 400] [--write]

Runs that many simulated studies of each kind (`benchmarks/finals_simulated.py`) on each table of `benchmarks/curves/seeds`, in one
process, and prints what they claimed beside the truth. `--write` puts the tables into the document and draws its figure.
"""

from __future__ import annotations

import argparse
import math
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks import curves
from benchmarks.curves import Table
from benchmarks.finals_simulated import NONE, STOP, TABLES, Outcome, Setting, gained, outcomes, overstated, overstated_without
from benchmarks.reproductions.runs import table as in_markdown
from hpo.finals import SHARE

DOCUMENT, FIGURE = Path("docs/finals.md"), Path("docs/figures/finals.png")
TRIALS = (10, 30, 100, 300)
PRUNED_TRIALS = (100, 300)
FINALS = ((5, 2), (3, 2))
FEW = {
    1: ((3, 2),),
    2: ((3, 2), (2, 1)),
    3: ((3, 2), (3, 1), (1, 3)),
    4: ((3, 2), (4, 1), (1, 4)),
}  # runs that fit under the share -> finals
HEAD = (
    "overstated without", "with finals", "chosen better by", "another one", "winner's runs",
    "runs", "out", "of the search", "saved", "covered",
)  # fmt: skip
BRIEF = 5  # of these columns, where the rest says nothing new

Key = tuple[str, ...]
"""What tells a setting from others: the first cells of its row."""


def settings_of_finals() -> dict[Key, Setting]:
    """Searches of many trials: how many, pruned or not, finals."""
    every = [(trials, "none", NONE) for trials in TRIALS] + [(trials, "ASHA", STOP) for trials in PRUNED_TRIALS]
    return {
        (str(trials), name, f"{top} x {seeds}"): Setting(top, seeds, trials, pruner=pruner)
        for trials, name, pruner in every
        for top, seeds in FINALS
    }


def settings_of_few(max_epochs: int) -> dict[Key, Setting]:
    """Searches so small that few runs fit under the share: the default, or all runs on as many, or on one."""
    found: dict[Key, Setting] = {}
    for runs, ways in FEW.items():
        epochs = math.ceil(runs * max_epochs / SHARE)
        for top, seeds in ways:
            found[str(runs), str(epochs), f"{top} x {seeds}"] = Setting(top, seeds, epochs=epochs, pruner=STOP)
    return found


def cells(found: Sequence[Outcome]) -> list[str]:
    """Those of `HEAD`, means over the studies and their standard errors."""
    known = [o.interval for o in found if o.interval]
    covered = f"{_mean(i.covers_a_mean for i in known):.0%} ({_mean(i.covers for i in known):.0%})" if known else "-"
    return [
        _with_error(overstated_without(found)),
        _with_error(overstated(found)),
        _with_error(gained(found), sign="+"),
        f"{_mean(o.differs for o in found):.0%}",
        f"{_mean(o.fresh for o in found):.1f}",
        f"{_mean(o.runs for o in found):.1f}",
        f"{_mean(o.out for o in found):.1f}",
        f"{_mean(o.share for o in found):.0%}",
        f"{_mean(o.saved for o in found):.0%}",
        covered,
    ]


def _mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def _with_error(found: tuple[float, float], sign: str = "-") -> str:
    return f"{found[0]:{sign}.2f} ± {found[1]:.2f}"


def figure(found: dict[str, dict[Key, list[Outcome]]], file: Path) -> None:
    """Overstatement against trials of an unpruned search, without and with finals, a panel for each task."""
    picture = Figure(figsize=(8, 3.2), layout="constrained")
    panels = picture.subplots(1, len(found), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (task, by_setting) in zip(panels, found.items(), strict=True):
        top, seeds = FINALS[-1]
        searched = [overstated_without(by_setting[str(n), "none", f"{top} x {seeds}"]) for n in TRIALS]
        axes.errorbar(TRIALS, *zip(*searched, strict=True), fmt="o-", color="black", capsize=3, label="best value of the search")
        for (top, seeds), style, shade in zip(FINALS, ("s--", "^:"), ("0.2", "0.5"), strict=True):
            points = [overstated(by_setting[str(n), "none", f"{top} x {seeds}"]) for n in TRIALS]
            label = f"mean after finals, top {top}, {seeds} seeds"
            axes.errorbar(TRIALS, *zip(*points, strict=True), fmt=style, color=shade, capsize=3, label=label)
        axes.set(title=task, xscale="log", xlabel="trials of the search", ylim=(0, None))
        axes.set_xticks(TRIALS, labels=map(str, TRIALS), minor=False)
        axes.set_xticks([], minor=True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("overstated by (points of accuracy)")
    panels[0].legend(frameon=False, fontsize="small")
    picture.savefig(file, dpi=150)


def write(sections: dict[str, str]) -> None:
    """Put each section between its marks in the document. Raises ValueError where it has none."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, content in sections.items():
        marks = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
        if not marks.search(text):
            raise ValueError(f"{DOCUMENT}: no place for {name}")
        text = marks.sub(lambda found, content=content: f"{found[1]}{content}\n{found[2]}", text)  # type: ignore[misc]
    DOCUMENT.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=400)
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT} and draw {FIGURE}")
    options = parser.parse_args()
    tasks: list[Table] = [task for file in sorted(TABLES.glob("*.npz"), reverse=True) for task in curves.load(file)]
    drawn: dict[str, dict[Key, list[Outcome]]] = {}
    rows: dict[str, list[list[str]]] = {"many": [], "few": []}
    for task in tasks:
        drawn[task.task] = {key: outcomes(task, setting, options.studies) for key, setting in settings_of_finals().items()}
        rows["many"] += [[task.task, *key, *cells(found)] for key, found in drawn[task.task].items()]
        for key, setting in settings_of_few(task.max_epochs).items():
            rows["few"].append([task.task, *key, *cells(outcomes(task, setting, options.studies))[:BRIEF]])
    sections = {
        "many": in_markdown(["task", "trials", "pruner", "finals", *HEAD], rows["many"]),
        "few": in_markdown(["task", "runs that fit", "epochs of the search", "finals", *HEAD[:BRIEF]], rows["few"]),
    }
    for text in sections.values():
        print(f"\n{text}", flush=True)
    if options.write:
        figure(drawn, FIGURE)
        write(sections)


if __name__ == "__main__":
    main()
