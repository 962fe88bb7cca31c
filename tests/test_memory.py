"""Ten trials that learn from one dataset at once hold it in memory little more than once."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch

from tests.dataset_machine import borrow_datasets, needs
from trainers import datasets
from trainers.recipe import Source
from trainers.splits import Part, SparseRows

PROCESSES = 10
MIB = 2**20


def read(part: Part) -> None:
    """Every byte, and a batch as in training."""
    part.x.batch(torch.arange(0, len(part), 1 + len(part) // 20))
    (part.x.indices if isinstance(part.x, SparseRows) else part.x.values).max(), part.y.max()


def trial(asked: Connection, places: dict[str, str]) -> None:
    """Says when it is ready, then loads each dataset that it is told, reads all of it and says so."""
    os.environ |= places
    torch.set_num_threads(1)
    ones = torch.ones(2, dtype=torch.int32)
    read(Part(SparseRows(torch.arange(3), ones, None, 2), ones))  # what a process needs for anything at all
    read(datasets.load(Source(dataset="digits")).train)
    asked.send("ready")
    while name := asked.recv():
        split = datasets.load(Source(dataset=name))
        read(split.train)
        read(split.val)
        asked.send("loaded")


@dataclass
class Trials:
    """Processes that have imported torch and loaded nothing, and a pipe to each."""

    processes: list[ForkServerProcess]
    pipes: list[Connection]

    def load(self, name: str) -> None:
        """All at once; returns when the last one is done."""
        for pipe in self.pipes:
            pipe.send(name)
        assert [pipe.recv() for pipe in self.pipes] == ["loaded"] * PROCESSES

    def memory(self) -> int:
        """Bytes that they hold together: of a page that n processes share, each counts one n-th (PSS)."""
        rollups = [Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="utf-8") for process in self.processes]
        return sum(int(line.split()[1]) * 1024 for rollup in rollups for line in rollup.splitlines() if line.startswith("Pss:"))


@pytest.fixture
def trials(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trials]:
    """Forked from one process that has imported torch: what they share of that is the same before and after they load."""
    borrow_datasets(tmp_path_factory.getbasetemp() / "shared_machine", monkeypatch)
    places = {name: os.environ[name] for name in ("HPO_DATA", "XDG_CACHE_HOME")}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    pipes = [context.Pipe() for _ in range(PROCESSES)]
    processes = [context.Process(target=trial, args=(theirs, places), daemon=True) for _, theirs in pipes]
    for process in processes:
        process.start()
    started = Trials(processes, [ours for ours, _ in pipes])
    try:
        assert [pipe.recv() for pipe in started.pipes] == ["ready"] * PROCESSES
        yield started
    finally:
        for process in processes:
            process.kill()
            process.join()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="what processes share in memory is told by Linux alone")
@pytest.mark.parametrize("name", ["mnist", "imdb"])
def test_ten_trials_hold_one_copy(name: str, trials: Trials) -> None:
    needs(name)
    datasets.load(Source(dataset=name))  # decoded: who does that keeps some freed memory
    (entry,) = (Path(os.environ["XDG_CACHE_HOME"]) / "hpo" / "decoded").glob(f"{name}-*")
    size = sum(file.stat().st_size for file in entry.iterdir())
    before = trials.memory()
    trials.load(name)
    grown = trials.memory() - before
    figures = f"{name}: {size / MIB:.1f} MiB in files are {grown / MIB:.1f} MiB in the memory of {PROCESSES} processes"
    print(figures)  # for README: pytest -s
    assert grown < 3 * size, figures
