"""The floor: nothing but training, a process for each core; no search, no pruning, no records.

The configurations are trained in order for as many epochs as the task says: those that our search gave them, so that the two do
the same arithmetic. The loop of the other peers with the fused AdamW.

    python -m benchmarks.peers.tight TASK.json
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import sys

from benchmarks.peers.task import Task


def train(job: tuple[str, int]) -> None:
    """The trial of that number, in the file's list of configurations."""
    from benchmarks.peers.loop import epochs

    task_path, number = job
    task = Task.read(task_path)
    budget = task.epochs[number] if task.epochs else task.max_epochs
    for _ in epochs(dataclasses.replace(task, max_epochs=budget), task.configurations[number], str(number), fused=True):
        pass


def main(task_path: str) -> None:
    task = Task.read(task_path)
    with multiprocessing.get_context("spawn").Pool(task.cores) as pool:
        for _ in pool.imap_unordered(train, [(task_path, number) for number in range(len(task.configurations))]):
            pass


if __name__ == "__main__":
    main(sys.argv[1])
