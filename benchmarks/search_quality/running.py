"""Runs every (task, arm, workers, seed) that a folder does not have yet, in several processes, and reads them all back."""

from __future__ import annotations

import functools
import json
import sys
import time
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks import curves
from benchmarks.curves import Table
from benchmarks.search_quality.progress import Progress

TRAININGS = 100  # the largest budget, in full trainings


@dataclass(frozen=True, slots=True)
class Job:
    """One search: the file and number of its task, its arm, how many workers, which seed."""

    path: str
    task: int
    arm: str
    workers: int
    seed: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search found, and the seconds that all of it took here."""

    progress: Progress
    seconds: float


@functools.lru_cache(maxsize=8)
def tables(path: str) -> list[Table]:
    """The tasks of a file, read once per process."""
    return curves.load(path)


def run(jobs: Sequence[Job], folder: Path, processes: int) -> dict[Job, Outcome]:
    """The outcome of every job: from `folder` where it has one, from a search now otherwise."""
    missing = [job for job in jobs if not place(job, folder).exists()]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(search, job, folder): job for job in missing}
        for done, future in enumerate(as_completed(waiting), 1):
            job = waiting[future]
            future.result()
            name = tables(job.path)[job.task].task
            print(f"{done} of {len(missing)}: {name} {job.arm}, {job.workers} workers, seed {job.seed}", file=sys.stderr, flush=True)
    return {job: _read(place(job, folder)) for job in jobs}


def search(job: Job, folder: Path) -> None:
    """Run one search and keep what it found; a file is whole or not there."""
    from benchmarks.search_quality.arms import ARMS  # Optuna and the engine, only where something runs

    table = tables(job.path)[job.task]
    began = time.perf_counter()
    epochs = ARMS[job.arm].search(table, job.workers, job.seed, TRAININGS * table.max_epochs)
    seconds = time.perf_counter() - began
    progress = Progress.of(epochs, table.direction, table.max_epochs)
    file = place(job, folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".partial")
    beside.write_text(json.dumps({"progress": asdict(progress), "seconds": seconds}), encoding="utf-8")
    beside.replace(file)


def place(job: Job, folder: Path) -> Path:
    """The file of a job's outcome; a table that was changed has another."""
    table = tables(job.path)[job.task]
    content = zlib.crc32(np.ascontiguousarray(table.curves).tobytes())
    return folder / f"{Path(job.path).stem}-{table.task}-{content:08x}" / f"{job.arm}-w{job.workers}-s{job.seed}.json"


def _read(file: Path) -> Outcome:
    plain = json.loads(file.read_text(encoding="utf-8"))
    return Outcome(Progress.from_plain(plain["progress"]), plain["seconds"])
