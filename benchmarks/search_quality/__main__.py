"""How good the searches are, replayed on recorded learning curves: regret, rank, tests, worst task, into docs/search.md.

    python -m benchmarks.search_quality --curves benchmarks/curves/*.npz TABLE.npz --seeds 5 --workers 4 16 --write

Every search has a budget of 100 full trainings, of which the smaller budgets are the beginning; all arms get the same seeds.
What was run is kept in --out and not run again; remove the folder after a change to a search. Formats of tables are
documented in `benchmarks/curves.py`.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import curves
from benchmarks.curves import Scale
from benchmarks.search_quality import page
from benchmarks.search_quality.arms import ARMS
from benchmarks.search_quality.running import Job, Outcome, run, tables
from benchmarks.search_quality.scores import Scores

DOCUMENT = Path("docs/search.md")
FIGURE = Path("docs/figures/search_regret.png")
FEW = ["random", "random+asha", "random+promote", "tpe-optuna", "ours"]  # what says whether the order stays with more workers
LABELS = {name: arm.label for name, arm in ARMS.items()}


def main() -> None:
    """Run what is missing, print all tables, and write them into the document if asked."""
    options = _options()
    if options.real_ray:
        from benchmarks.search_quality import real_ray

        real_ray.compare(tables(str(options.curves[0]))[0], options.seeds, options.workers[0])
        return
    os.environ["OMP_NUM_THREADS"] = "1"  # one core for each process, torch's threads included
    paths = list(map(str, options.curves))
    tasks = [(path, task) for path in paths for task in range(len(tables(path)))]
    for path, task in tasks:
        Scale.of(tables(path)[task])  # what cannot be scored is said before anything runs
    few = [arm for arm in options.arms if arm in options.few]
    arms = {workers: options.arms if i == 0 else few for i, workers in enumerate(options.workers) if i == 0 or few}
    jobs = [
        Job(path, task, arm, workers, seed)
        for workers in arms
        for arm in arms[workers]
        for path, task in tasks
        for seed in range(options.seeds)
    ]
    outcomes = run(jobs, options.out, options.processes)
    by_workers = {workers: _scores(outcomes, arms[workers], tasks, workers, options.seeds) for workers in arms}
    groups = {Path(path).stem: [t for t, (of, _) in enumerate(tasks) if of == path] for path in paths}
    sections = _sections(by_workers, groups, options.arms)
    for name, text in sections.items():
        print(f"\n{name}\n{text}")
    print("\nseconds of a search, mean:", ", ".join(f"{arm} {_seconds(outcomes, arm):.1f}" for arm in options.arms))
    if options.write:
        page.figure(by_workers, LABELS, FIGURE)
        write(sections)


def _options() -> argparse.Namespace:
    own = sorted(curves.OWN.glob("*.npz"))
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.search_quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--curves", nargs="+", type=Path, default=own, metavar="PATH", help="tables (those in benchmarks/curves)")
    parser.add_argument("--seeds", type=_count, default=5)
    parser.add_argument("--workers", nargs="+", type=_count, default=[4, 16, 64])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help=f"of {', '.join(ARMS)}")
    parser.add_argument(
        "--few", nargs="*", choices=ARMS, default=FEW, metavar="ARM", help=f"behind the first number of workers ({', '.join(FEW)})"
    )
    parser.add_argument("--out", type=Path, default=Path("build/search_quality"), help="where searches that were run are kept")
    parser.add_argument("--processes", type=_count, default=2)
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT} and draw {FIGURE}")
    parser.add_argument("--real-ray", action="store_true", help="check the emulated Ray wiring against Ray itself on the first task")
    return parser.parse_args()


def _count(text: str) -> int:
    """A number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text}; a whole number of at least 1 is needed")
    return int(text)


def _scores(outcomes: Mapping[Job, Outcome], arms: Sequence[str], tasks: Sequence[tuple[str, int]], workers: int, seeds: int) -> Scores:
    found = {
        (arm, t, seed): outcomes[Job(path, task, arm, workers, seed)].progress
        for arm in arms
        for t, (path, task) in enumerate(tasks)
        for seed in range(seeds)
    }
    return Scores.of(found, arms, [tables(path)[task] for path, task in tasks], seeds)


def _sections(by_workers: Mapping[int, Scores], groups: Mapping[str, list[int]], arms: Sequence[str]) -> dict[str, str]:
    """The tables by the names of their places in the document."""
    found = {"arms": "\n".join(f"- **{ARMS[arm].label}** (`{arm}`): {ARMS[arm].says}" for arm in arms)}
    for workers, scores in by_workers.items():
        arms = scores.arms
        found[f"regret-{workers}"] = page.regrets(scores.seen, scores, LABELS)
        found[f"full-{workers}"] = page.regrets(scores.full, scores, LABELS)
        found[f"rank-{workers}"] = page.ranks(scores, LABELS)
        if "random" in arms:
            found[f"speed-{workers}"] = page.speed(scores, LABELS)
        if page.OURS in arms and page.BASELINE in arms:
            named = {name: scores.only(tasks) for name, tasks in groups.items()}
            found[f"ratio-{workers}"] = page.ratios({**named, "all": scores} if len(named) > 1 else named)
            found[f"test-{workers}"] = page.tests(scores, LABELS)
    return found


def _seconds(outcomes: Mapping[Job, Outcome], arm: str) -> float:
    taken = [outcome.seconds for job, outcome in outcomes.items() if job.arm == arm]
    return sum(taken) / len(taken)


def write(sections: Mapping[str, str]) -> None:
    """Put every section between its marks in the document; one that has no place there is only printed."""
    text = DOCUMENT.read_text(encoding="utf-8")
    for name, section in sections.items():
        text = re.sub(rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, s=section: f"{m[1]}{s}\n{m[2]}", text, flags=re.DOTALL)  # type: ignore[misc]
    DOCUMENT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
