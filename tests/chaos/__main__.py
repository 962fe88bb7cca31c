"""Tries every fault of the README's table, prints each row as it ends, then the table; exits 1 if something was lost.

`python -m tests.chaos` is a seeded sample of at most 15 minutes on two cores, `--full` is all of it.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hpo import trust
from tests.chaos import disk, drivers, files, mlflow_faults, ray_faults, simulated
from tests.chaos.mlflow_scene import Server
from tests.chaos.outcome import Outcome, table
from tests.conftest import ROOT


@dataclass(frozen=True)
class Run:
    """How much is tried, from which seed, in which folder."""

    full: bool
    seed: int
    folder: Path

    def times(self, full: int, sample: int) -> int:
        """The one or the other."""
        return full if self.full else sample


def _driver(run: Run) -> Iterator[Outcome]:
    yield simulated.driver_kills(run.folder, run.times(1000, 60), run.seed)


def _ray_driver(run: Run) -> Iterator[Outcome]:
    yield ray_faults.driver_kills(run.folder, run.times(25, 3), run.seed)


def _cuts(run: Run) -> Iterator[Outcome]:
    yield files.cuts(run.folder, None if run.full else 150, run.seed)


def _flips(run: Run) -> Iterator[Outcome]:
    yield files.journal_flips(run.folder, run.seed, step=run.times(0, 1), repairs=run.times(200, 20), commands=run.times(10, 2))
    yield files.manifest_flips(run.folder, run.seed, step=run.times(0, 1), commands=run.times(5, 1))


def _workers(run: Run) -> Iterator[Outcome]:
    yield ray_faults.worker_kills(run.folder, run.times(20, 4), run.seed)


def _stops(run: Run) -> Iterator[Outcome]:
    yield ray_faults.stops(run.folder, run.times(50, 4), run.seed)


def _mlflow(run: Run) -> Iterator[Outcome]:
    with Server(run.folder / "server") as server:
        yield mlflow_faults.absent(run.folder / "absent", seed=run.seed, server=server)
        yield mlflow_faults.frozen(run.folder / "frozen", run.times(10, 1), run.seed, server)
        yield mlflow_faults.killed(run.folder / "killed", run.times(10, 1), run.seed, server)
        yield mlflow_faults.failing(run.folder / "failing", run.times(2000, 200), run.seed, server)
        yield mlflow_faults.dropping(run.folder / "dropping", run.times(10_000, 300), run.seed, server)
        yield mlflow_faults.late(run.folder / "late", run.seed, server)
        yield mlflow_faults.shipper_killed(run.folder / "shipper", run.times(20, 3), run.seed, server)


def _disk(run: Run) -> Iterator[Outcome]:
    return disk.disk_full(run.folder, run.seed, full=run.full)


def _drivers(run: Run) -> Iterator[Outcome]:
    yield drivers.two_drivers(run.folder, run.times(200, 20), run.seed)
    yield drivers.refused_commands(run.folder)
    yield drivers.zombies(run.folder)


def _misbehaving(run: Run) -> Iterator[Outcome]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_misbehaving.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    from tests.misbehaving import KINDS

    passed = re.search(r"(\d+) passed", done.stdout)
    note = "each ends as the table in tests/test_misbehaving.py says" if done.returncode == 0 else done.stdout[-2000:]
    yield Outcome(
        "misbehaving trainers",
        "a table of trainers on real Ray",
        len(KINDS),
        {"tests passed": int(passed[1]) if passed else 0},
        done.returncode == 0,
        note,
    )


ROWS: dict[str, Callable[[Run], Iterator[Outcome]]] = {
    "driver": _driver,
    "driver-ray": _ray_driver,
    "cuts": _cuts,
    "flips": _flips,
    "workers": _workers,
    "stops": _stops,
    "mlflow": _mlflow,
    "disk": _disk,
    "two-drivers": _drivers,
    "misbehaving": _misbehaving,
}


def _tried(name: str, run: Run) -> Iterator[Outcome]:
    """The row's outcomes; what broke off, for whatever reason, is a row that failed."""
    begin = time.monotonic()
    try:
        for outcome in ROWS[name](run):
            print(f"{time.monotonic() - begin:6.1f} s  {' | '.join(outcome.cells)}", flush=True)
            begin = time.monotonic()
            yield outcome
    except Exception as error:  # the border of a row: the others are tried all the same
        traceback.print_exc()
        yield Outcome(name, "broke off", 0, {}, ok=False, note=f"{type(error).__name__}: {error}")


def main() -> None:
    """Parse, try, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--full", action="store_true", help="as often as the README says (hours), not a sample")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of every random moment and place")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--folder", type=Path, help="where to work, kept; otherwise a temporary one, kept if something fails")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="hpo-chaos-"))
    print(f"seed {given.seed}, in {folder}", flush=True)
    os.environ["XDG_STATE_HOME"] = str(folder / "state")  # what these studies may do is no matter of the user's
    trust.vouch([trust.code("tests:any")])
    outcomes: list[Outcome] = []
    for name in given.only:
        (folder / name).mkdir(parents=True, exist_ok=True)
        outcomes += _tried(name, Run(given.full, given.seed, folder / name))
    print(f"\n{table(outcomes)}\n\nseed {given.seed}")
    if not all(outcome.ok for outcome in outcomes):
        sys.exit(f"something does not hold: see {folder}")
    if given.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
