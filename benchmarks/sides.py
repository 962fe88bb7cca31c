"""Each side of a comparison, run once: ours by `hpo launch`, a peer by its script in its own environment."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.commands import Run, mlflow_server, timed
from benchmarks.figures import Search, Workload, epochs_of, from_journal
from benchmarks.peers.environments import PEERS, ROOT
from benchmarks.peers.task import Kind, Params, Report, Task, kept
from benchmarks.rows import VOCABULARY, Row, axes, our_spec
from hpo.journal import FILE_NAME
from hpo.journal_format import read
from trainers import datasets
from trainers.recipe import Source
from trainers.splits import DenseRows, Rows, SparseRows

HPO = str(Path(sys.executable).parent / "hpo")


@dataclass(frozen=True)
class Bench:
    """A row with what its sides share in one repeat: the examples as a file, the configurations, the seed, the cores."""

    row: Row
    examples: str
    workload: Workload
    points: list[Params]
    seed: int
    cores: int


def decoded(row: Row, file: Path) -> Workload:
    """The examples of a row, by our own split, written for the peers as a plain .npz; raises DataError where they are missing."""
    if row.kind == Kind.NOTHING:
        return Workload(0, 0, 0)
    name, vocabulary = ("imdb", VOCABULARY) if row.kind == Kind.TEXTS else ("fashion-mnist", None)
    split = datasets.load(Source(dataset=name, vocabulary=vocabulary, train_size=row.train, val_size=row.val))
    arrays: dict[str, Any] = {"y": split.train.y.numpy(), "y_val": split.val.y.numpy(), "columns": np.array(split.columns)}
    np.savez(file, **arrays, **_rows(split.train.x, ""), **_rows(split.val.x, "_val"))
    return Workload(len(split.train), split.columns, 1 if row.kind == Kind.TEXTS else split.outputs)


def _rows(rows: Rows, suffix: str) -> dict[str, Any]:
    match rows:
        case DenseRows():
            return {f"x{suffix}": rows.values.numpy()}
        case SparseRows():
            return {f"starts{suffix}": rows.starts.numpy(), f"indices{suffix}": rows.indices.numpy()}


def ours(bench: Bench) -> Search:
    """`hpo launch` with every configuration a starting point; it also registers the best trial's model, as it always does."""
    with _home() as home, _server(bench.row) as uri:
        spec = home / "bench.yaml"
        spec.write_text(json.dumps(our_spec(bench.row, bench.points, bench.seed)))
        trainer = ["--trainer", "benchmarks.idle_trainers:nothing"] if bench.row.kind == Kind.NOTHING else []
        variables = {"HPO_HOME": str(home), "MLFLOW_TRACKING_URI": uri, "PYTHONPATH": str(ROOT)}
        run = timed([HPO, "launch", str(spec), *trainer], variables, home / "log")
        reports = from_journal(read(home / "bench" / FILE_NAME), bench.row.width)
    return _search("ours", run, reports, bench)


def peer(name: str, bench: Bench, mine: Search, trials: int | None) -> Search:
    """The peer, on the first `trials` of the configurations (None: all); the floor trains the epochs that our search did."""
    with _home() as home, _server(bench.row) as uri:
        task = Task(
            bench.row.kind,
            str(home),
            axes(bench.row.space()),
            bench.points[:trials],
            bench.row.max_epochs,
            bench.cores,
            examples=bench.examples,
            batch=bench.row.batch,
            width=bench.row.width,
            seed=bench.seed,
            tracking_uri=uri,
            epochs=epochs_of(mine.reports, len(bench.points)) if name == "tight" else None,
        )
        variables = {"MLFLOW_TRACKING_URI": None, "PYTHONPATH": str(ROOT)}
        command = [PEERS[name].program("python"), "-m", f"benchmarks.peers.{PEERS[name].module}", task.write()]
        run = timed(command, variables, home / "log")
        return _search(name, run, kept(str(home)), bench)


def _search(side: str, run: Run, reports: Sequence[Report], bench: Bench) -> Search:
    return Search(side, run.wall_s, tuple(reports), run.peak_mb, bench.workload)


@contextlib.contextmanager
def _home() -> Iterator[Path]:
    """A folder for one side of one repeat."""
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _server(row: Row) -> contextlib.AbstractContextManager[str | None]:
    """A fresh MLflow server for a row that wants one, the same program for every side; it runs before the clock does."""
    return mlflow_server(PEERS["plain"].program("mlflow")) if row.served else contextlib.nullcontext()
