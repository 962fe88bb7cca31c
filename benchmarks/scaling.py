"""Whether a trial costs the driver the same however many there are, and however many workers: python -m benchmarks.scaling

First a session with its journal on the disk whose workers are made up, random points and ASHA that stops: CPU time a trial with 10
to 10,000 trials behind it, for 2 to 256 workers, the counts taking turns. Then real launches on Ray, trainers that only sleep: the
driver's CPU time for each trial more, its start left out, and the largest memory of its own process.

--ray 2 8 32 chooses the workers of the second part, some 110 MB each; --ray alone leaves it out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.driver import Driver

SIZES, WORKERS = (10, 100, 1_000, 10_000), (2, 16, 64, 256)
ROUNDS, TRIALS = 5, 100
REAL_WORKERS, EACH = (2, 8, 32), (4, 40)  # trials a worker, in two launches: what differs is what trials cost
EPOCHS = 3
SPEC = """
name: scaling
trainer: {{name: mlp, settings: {{max_epochs: {epochs}}}}}
objective: {{metric: value, direction: maximize}}
space: {{x: {{type: float, low: 0.0, high: 1.0}}}}
sampler: {{name: random}}
pruner: {{name: none}}
budget: {{trials: {trials}}}
resources: {{cpus: {cpus}, gpus: 0}}
finals: none
"""
LAUNCH = """
import resource, sys, time
from hpo.launching import launch_spec
from hpo.spec import load_spec
study = launch_spec(load_spec(sys.argv[1], trainer_override="benchmarks.idle_trainers:sleeping"))
assert len(study.trials) == int(sys.argv[2])
print("cost", time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def simulated(folder: Path) -> None:
    """A row for each number of workers: ms of CPU a trial, and the last of the first."""
    print(f"CPU ms a trial of the driver (journal, decisions, checkpoints that stay; about {EPOCHS} results a trial)")
    print(f"{'workers':>9}" + "".join(f"{size:>10,}" for size in SIZES) + f"{'last/first':>12}   trials behind it")
    for workers in WORKERS:
        drivers = [Driver(folder / f"{workers}-{size}", "stop", "none", size + ROUNDS * TRIALS + workers, workers) for size in SIZES]
        for driver, size in zip(drivers, SIZES, strict=True):
            driver.bring_to(size)
        rounds = [[driver.trials(TRIALS) for driver in drivers] for _ in range(ROUNDS)]
        medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
        ratio = statistics.median(costs[-1] / costs[1] for costs in rounds)  # with ten behind it, 64 workers are at their first
        print(f"{workers:9}" + "".join(f"{cost:10.2f}" for cost in medians) + f"{ratio:12.2f}", flush=True)


def real(workers: int) -> None:
    """A row: what a trial more costs the driver's process, and its memory."""
    (few, cpu_few, _), (many, cpu_many, megabytes) = (launched(workers, workers * each) for each in EACH)
    each = 1000 * (cpu_many - cpu_few) / (many - few)
    print(f"{workers:9}{many:10}{each:12.1f}{cpu_few - few * each / 1000:10.1f}{megabytes:10.0f}", flush=True)


def launched(workers: int, trials: int) -> tuple[int, float, float]:
    """So many trials on so many workers: their number, the driver's CPU seconds and its largest memory in MB."""
    cpus = len(os.sched_getaffinity(0)) / workers
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "scaling.yaml"
        spec.write_text(SPEC.format(trials=trials, epochs=EPOCHS, cpus=cpus))
        done = subprocess.run(
            [sys.executable, "-c", LAUNCH, str(spec), str(trials)],
            env=os.environ | {"HPO_HOME": folder, "PYTHONPATH": str(Path.cwd())},
            capture_output=True,
            text=True,
            check=True,
        )
    _, cpu, megabytes = next(line for line in done.stdout.splitlines() if line.startswith("cost")).split()
    return trials, float(cpu), float(megabytes)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ray", nargs="*", type=int, default=REAL_WORKERS, help="workers of the real launches; none: leave them out")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        simulated(Path(name))
    if options.ray:
        print(f"\non Ray, trials of {EPOCHS} epochs of 0.1 s that only sleep")
        print(f"{'workers':>9}{'trials':>10}{'ms a trial':>12}{'start, s':>10}{'MB':>10}")
        for workers in options.ray:
            real(workers)


if __name__ == "__main__":
    main()
