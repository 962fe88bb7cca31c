"""One trial of Syne Tune's local backend, which starts this script with the hyperparameters as options."""

from __future__ import annotations

import argparse
import uuid

from syne_tune import Reporter  # type: ignore[import-not-found, unused-ignore]

from benchmarks.peers.loop import epochs
from benchmarks.peers.task import Task


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task")
    given, _ = parser.parse_known_args()
    task = Task.read(given.task)
    for name, axis in task.space.items():
        parser.add_argument(f"--{name}", type=int if axis.whole else float)
    chosen, _ = parser.parse_known_args()
    report = Reporter()
    for epoch, metrics in epochs(task, {name: getattr(chosen, name) for name in task.space}, uuid.uuid4().hex):
        report(epoch=epoch, **metrics)


if __name__ == "__main__":
    main()
