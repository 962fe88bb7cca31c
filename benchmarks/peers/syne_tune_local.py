"""Syne Tune: its LocalBackend, which starts a process for every trial, and its ASHA. It keeps records of its own, not in MLflow.

Results are polled every 0.1 s; Syne Tune's default of 5 s would leave cores idle for most of a short trial.

    python -m benchmarks.peers.syne_tune_local TASK.json
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.task import Axis, Task


def domain(axis: Axis) -> Any:
    """The axis in Syne Tune's words."""
    from syne_tune.config_space import lograndint, loguniform, randint, uniform  # type: ignore[import-not-found, unused-ignore]

    if axis.whole:
        return (lograndint if axis.log else randint)(int(axis.low), int(axis.high))
    return (loguniform if axis.log else uniform)(axis.low, axis.high)


def limit(scheduler: Any, trials: int) -> Any:
    """The scheduler, which has no more suggestions than so many; Syne Tune would fill all free workers at its end."""
    suggest, left = scheduler.suggest, iter(range(trials))
    scheduler.suggest = lambda: None if next(left, None) is None else suggest()
    return scheduler


def main(task_path: str) -> None:
    task = Task.read(task_path)
    os.environ["SYNETUNE_FOLDER"] = task.home
    from syne_tune import Tuner  # type: ignore[import-not-found, unused-ignore]
    from syne_tune.backend import LocalBackend  # type: ignore[import-not-found, unused-ignore]
    from syne_tune.optimizer.baselines import ASHA  # type: ignore[import-not-found, unused-ignore]

    asha = ASHA(
        {**{name: domain(axis) for name, axis in task.space.items()}, "task": task_path},
        metric="val_accuracy",
        time_attr="epoch",
        max_t=task.max_epochs,
        do_minimize=False,
        random_seed=task.seed,
        points_to_evaluate=task.configurations,
    )
    Tuner(
        trial_backend=LocalBackend(str(Path(__file__).with_name("syne_tune_trial.py"))),
        scheduler=limit(asha, len(task.configurations)),
        stop_criterion=lambda _: False,  # it ends when the suggestions do
        n_workers=task.cores,
        sleep_time=0.1,
        save_tuner=False,
    ).run()


if __name__ == "__main__":
    main(sys.argv[1])
