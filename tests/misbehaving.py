"""Trainers that do what no trainer should, one for each name in KINDS; most after a first epoch that is as it should be."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hpo.trainer import RunningTrial

Kind = Callable[[RunningTrial], Iterator[Any]]
KINDS: dict[str, Kind] = {}


def train(trial: RunningTrial, *, kind: str) -> Iterator[Any]:
    """The trainer called `kind`."""
    yield from KINDS[kind](trial)


def kind(trainer: Kind) -> Kind:
    """Enter a trainer into the table."""
    KINDS[trainer.__name__] = trainer
    return trainer


def well(trial: RunningTrial) -> Iterator[dict[str, Any]]:
    """Every epoch as it should be."""
    for epoch in range(1, trial.max_epochs + 1):
        trial.save(epoch=epoch)
        yield {"value": epoch / 10}


def yielding(name: str, second: Callable[[], Any]) -> None:
    """Enter a trainer whose second epoch yields what `second` makes."""

    def trainer(trial: RunningTrial) -> Iterator[Any]:
        yield {"value": 0.1}
        yield second()

    KINDS[name] = trainer


def doing(name: str, second: Callable[[], Any]) -> None:
    """Enter a trainer that calls `second` in its second epoch, and would go on after it."""

    def trainer(trial: RunningTrial) -> Iterator[Any]:
        for epoch in range(1, trial.max_epochs + 1):
            trial.save(epoch=epoch)
            if epoch == 2:
                second()
            yield {"value": epoch / 10}

    KINDS[name] = trainer


def tensor(*values: float) -> Any:
    import torch

    return torch.tensor(values)


def raised(error: BaseException) -> Callable[[], Any]:
    def throw() -> None:
        raise error

    return throw


yielding("not a number", lambda: {"value": float("nan")})
yielding("infinite", lambda: {"value": float("inf")})
yielding("minus infinite", lambda: {"value": float("-inf")})
yielding("text", lambda: {"value": "0.9"})
yielding("bool", lambda: {"value": True})
yielding("nothing", lambda: None)
yielding("a list", lambda: [0.9])
yielding("two elements", lambda: {"value": tensor(0.1, 0.2)})
yielding("one element", lambda: {"value": tensor(0.2)})
yielding("complex", lambda: {"value": 1j})
yielding("no objective", lambda: {"loss": 1.0})
yielding("empty", dict)
yielding("too large", lambda: {"value": 10**400})
yielding("ten thousand metrics", lambda: {"value": 0.1} | {f"m{i}": float(i) for i in range(10_000)})
yielding("a thousand metrics", lambda: {"value": 0.2} | {f"m{i}": float(i) for i in range(999)})


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit("no words")


doing("raises", raised(RuntimeError("boom \x1b[31m\udcff")))
doing("unspeakable", raised(Unspeakable()))
doing("sys.exit", lambda: sys.exit(3))
doing("KeyboardInterrupt", raised(KeyboardInterrupt()))
doing("os._exit", lambda: os._exit(7))
doing("segfault", lambda: ctypes.string_at(0))
doing("SIGKILL", lambda: os.kill(os.getpid(), signal.SIGKILL))
doing("SIGTERM", lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(60)))
doing("abort", os.abort)
doing("sleeps", lambda: time.sleep(10_000))
doing("spins in C", lambda: all(itertools.repeat(True)))  # never lets go of Python's lock
doing("prints a megabyte", lambda: print("x" * 2**20))
doing("closes its streams", lambda: (os.close(0), os.close(1), os.close(2)))
doing("forks", os.fork)
doing("a thread stays", lambda: threading.Thread(target=threading.Event().wait).start())


@kind
def no_report(trial: RunningTrial) -> Iterator[dict[str, float]]:
    yield from ()


@kind
def returns(trial: RunningTrial) -> Iterator[Any]:
    return {"value": 0.1}
    yield


@kind
def backwards(trial: RunningTrial) -> Iterator[dict[str, float]]:
    for epoch in range(trial.max_epochs, 0, -1):
        yield {"value": 0.1, "epoch": float(epoch), "step": -float(epoch)}


@kind
def cleanup_raises(trial: RunningTrial) -> Iterator[dict[str, float]]:
    try:
        yield from well(trial)
        yield {"value": 9.0}
    finally:
        raise RuntimeError("in its cleanup")


@kind
def cleanup_interrupts(trial: RunningTrial) -> Iterator[dict[str, float]]:
    try:
        yield from well(trial)
        yield {"value": 9.0}
    finally:
        raise KeyboardInterrupt


@kind
def cleanup_yields(trial: RunningTrial) -> Iterator[dict[str, float]]:
    while True:
        with contextlib.suppress(GeneratorExit):
            yield {"value": 0.1}


@kind
def out_of_memory(trial: RunningTrial) -> Iterator[dict[str, float]]:
    yield {"value": 0.1}
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**28, limits[1]))
    try:
        yield {"value": 0.1 + len(bytearray(2**30))}
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@kind
def saves_an_object(trial: RunningTrial) -> Iterator[dict[str, float]]:
    yield {"value": 0.1}
    trial.save(model=[object()])
    yield {"value": 0.2}


@kind
def saves_ten_thousand_values(trial: RunningTrial) -> Iterator[dict[str, float]]:
    for epoch in range(1, trial.max_epochs + 1):
        trial.save(**{f"v{i}": i * epoch for i in range(10_000)})
        yield {"value": epoch / 10}


@kind
def removes_its_folder(trial: RunningTrial) -> Iterator[dict[str, float]]:
    for metrics in well(trial):
        yield metrics
        shutil.rmtree(trial.folder)


@kind
def goes_elsewhere(trial: RunningTrial) -> Iterator[dict[str, float]]:
    """It stays where it went, until that is gone; metrics `here` say so."""
    with tempfile.TemporaryDirectory() as there:
        os.chdir(there)
        trial.save(epoch=1)
        yield {"value": 0.1, "here": 1.0}
        yield {"value": 0.2, "here": float(Path.cwd() == Path(there))}
    yield {"value": 0.3, "here": 0.0}


@kind
def a_child_stays(trial: RunningTrial) -> Iterator[dict[str, float]]:
    """Its process number is in the folder of the trials."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(10_000)"])
    (trial.folder.parent / "child").write_text(str(child.pid))
    yield from well(trial)


@kind
def changes_its_metrics(trial: RunningTrial) -> Iterator[dict[str, float]]:
    metrics = {"value": 0.0}
    for epoch in range(1, trial.max_epochs + 1):
        metrics["value"] = epoch / 20
        yield metrics
        metrics["value"] = float("nan")


@kind
def logs(trial: RunningTrial) -> Iterator[dict[str, float]]:
    """Through a handler that keeps the stream of the first epoch of the worker's first such trial."""
    logging.basicConfig(level=logging.INFO)
    for metrics in well(trial):
        logging.getLogger("trainer").info("trial %d: %s", trial.number, metrics)
        yield metrics
