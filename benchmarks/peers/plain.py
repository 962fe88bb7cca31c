"""The script that people write: Ray Tune, OptunaSearch, ASHAScheduler and MLflowLoggerCallback, wired as documented.

Written with care, as a competent user would: tensors in memory, one thread a trial, the examples decoded beforehand.

    python -m benchmarks.peers.plain TASK.json
"""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import ray
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.peers.task import Axis, Kind, Params, Report, Task, keep


def train(config: Params, task_path: str) -> None:
    """One trial; torch is imported where it is needed, in the worker."""
    task, trial = Task.read(task_path), tune.get_context().get_trial_id()
    if task.kind == Kind.NOTHING:
        _do_nothing(config, task, trial)
        return
    from benchmarks.peers.loop import epochs

    for epoch, metrics in epochs(task, config, trial):
        tune.report({**metrics, "epoch": epoch})


def _do_nothing(config: Params, task: Task, trial: str) -> None:
    """One report, without an import of torch."""
    keep(task, Report(trial, 1, time.time(), time.time(), config["x"], 0))
    tune.report({"val_accuracy": config["x"], "epoch": 1})


def domain(axis: Axis) -> Any:
    """The axis in Ray's words, whose whole numbers exclude the upper bound."""
    if axis.whole:
        return (tune.lograndint if axis.log else tune.randint)(int(axis.low), int(axis.high) + 1)
    return (tune.loguniform if axis.log else tune.uniform)(axis.low, axis.high)


def main(task_path: str) -> None:
    task = Task.read(task_path)
    ray.init(address="local", num_cpus=task.cores, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    results = tune.Tuner(
        tune.with_resources(tune.with_parameters(train, task_path=task_path), {"cpu": 1}),
        param_space={name: domain(axis) for name, axis in task.space.items()},
        tune_config=tune.TuneConfig(
            metric="val_accuracy",
            mode="max",
            num_samples=len(task.configurations),
            max_concurrent_trials=task.cores,
            search_alg=OptunaSearch(seed=task.seed, points_to_evaluate=task.configurations),
            scheduler=ASHAScheduler(time_attr="epoch", max_t=task.max_epochs, grace_period=1, reduction_factor=3),
        ),
        run_config=tune.RunConfig(
            storage_path=task.home,
            name="plain",
            verbose=0,
            callbacks=[MLflowLoggerCallback(tracking_uri=task.tracking, experiment_name="plain")],
        ),
    ).fit()
    ray.shutdown()
    if results.num_errors:
        sys.exit(f"{results.num_errors} of {len(results)} trials failed")


if __name__ == "__main__":
    main(sys.argv[1])
