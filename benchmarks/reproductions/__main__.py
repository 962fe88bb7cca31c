"""`python -m benchmarks.reproductions fashion imdb ...`: trains as published, prints the tables, and puts them into the document."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.reproductions import fashion, imdb, joint, mnist, prechelt, sst2

DOCUMENT = Path("docs/reproductions.md")
SECTIONS: dict[str, tuple[Callable[[int], dict[str, str]], int]] = {  # and how many seeds unless told
    "fashion": (fashion.run, 5),
    "imdb": (imdb.run, 3),
    "sst2": (sst2.run, 5),
    "mnist": (mnist.run_stopping, 3),
    "sizes": (mnist.run_sizes, 3),
    "prechelt": (prechelt.run, 20),
}


def main() -> None:
    """Run the sections that are named, or all of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reproductions", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)} (all of them unless named)")
    parser.add_argument("--seeds", type=int, help="runs of each row")
    parser.add_argument("--judge", nargs="+", default=[], metavar="STUDY", help="open the test split for the best trials of these studies")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT}")
    options = parser.parse_args()
    if unknown := [name for name in options.sections if name not in SECTIONS]:
        parser.error(f"{', '.join(unknown)}: known sections are {', '.join(SECTIONS)}")
    if options.judge:
        _show(joint.run(options.judge), write=options.write)
    for name in options.sections or ([] if options.judge else SECTIONS):
        began, (run, seeds) = time.perf_counter(), SECTIONS[name]
        _show(run(options.seeds or seeds), write=options.write)
        print(f"{name}: {time.perf_counter() - began:.0f} s")


def _show(tables: dict[str, str], *, write: bool) -> None:
    for name, table in tables.items():
        print(f"\n{name}\n{table}")
        if write:
            before = DOCUMENT.read_text()
            after, places = re.subn(rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m: f"{m[1]}{table}\n{m[2]}", before, flags=re.DOTALL)  # noqa: B023
            if not places:
                raise SystemExit(f"{DOCUMENT} has no place for the table {name}: add the lines <!-- {name} --> and <!-- end -->")
            DOCUMENT.write_text(after)


if __name__ == "__main__":
    main()
