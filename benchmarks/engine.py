"""What the engine costs: 500 trials that do nothing, and how busy sleeping trials keep two slots.

python -m benchmarks.engine [--trials 500] [--sleeping 60]

Whole launches, MLflow's shipper beside them; the figures come from the study's journal.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from hpo.events import Asked, Created, Finished, Measured
from hpo.journal import FILE_NAME
from hpo.journal_format import Record, read

HPO = str(Path(sys.executable).parent / "hpo")
SPEC = """
name: engine
trainer: {{settings: {{max_epochs: {epochs}}}}}
objective: {{metric: value, direction: maximize}}
space:
  x: {{type: float, low: 0.0, high: 1.0}}
sampler: {{name: random}}
pruner: {{name: none}}
budget: {{trials: {trials}}}
resources: {{cpus: {cpus}, gpus: 0}}
"""
Kind = TypeVar("Kind", Created, Asked, Measured, Finished)


def launched(trainer: str, trials: int, epochs: int) -> tuple[list[Record], float]:
    """The journal of a launch on two slots, and the command's wall seconds."""
    cpus = max(1, len(os.sched_getaffinity(0)) // 2)
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "engine.yaml"
        spec.write_text(SPEC.format(trials=trials, epochs=epochs, cpus=cpus))
        began = time.perf_counter()
        command = [HPO, "launch", str(spec), "--trainer", f"benchmarks.idle_trainers:{trainer}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"HPO_HOME": folder})
        return read(Path(folder) / "engine" / FILE_NAME), time.perf_counter() - began


def of(records: list[Record], kind: type[Kind]) -> list[tuple[float, Kind]]:
    """The events of one kind with their times in seconds."""
    return [(record.at.timestamp(), record.event) for record in records if isinstance(record.event, kind)]


def overhead(trials: int) -> None:
    """Milliseconds a trial of a trainer that does nothing."""
    records, wall = launched("nothing", trials, 1)
    created, measured = of(records, Created)[0][0], of(records, Measured)
    ends = [at for at, _ in of(records, Finished)]
    each = 1000 * (ends[-1] - measured[0][0]) / (len(ends) - 1)
    whole = 1000 * (ends[-1] - created) / len(ends)
    print(f"{len(ends)} trials that do nothing: {each:.1f} ms a trial; with Ray's start {whole:.1f} ms; command {wall:.1f} s")
    if len(ends) > 200:
        first, last = (1000 * (ends[stop] - ends[stop - 100]) / 100 for stop in (100, len(ends) - 1))
        print(f"  the first hundred {first:.1f} ms each, the last hundred {last:.1f} ms each: ratio {last / first:.2f}")


def busy(trials: int, epochs: int) -> None:
    """The share of two slots' time between the first and the last report that was spent in the trainer."""
    records, _ = launched("sleeping", trials, epochs)
    metrics: list[Mapping[str, float]] = [event.metrics for _, event in of(records, Measured)]
    span = max(m["ended"] for m in metrics) - min(m["began"] for m in metrics)
    share = sum(m["ended"] - m["began"] for m in metrics) / (2 * span)
    workers = len({m["pid"] for m in metrics})
    print(f"{trials} trials of {epochs} epochs of 0.1 s: two slots busy {share:.0%} of the time, by {workers} workers")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--sleeping", type=int, default=60)
    options = parser.parse_args()
    overhead(options.trials)
    for epochs in (1, 3, 10):
        busy(options.sleeping, epochs)


if __name__ == "__main__":
    main()
