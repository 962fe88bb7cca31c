"""Optuna alone, as its tutorial on parallel optimisation has it: a process for each core, one JournalStorage file between them.

TPESampler, SuccessiveHalvingPruner, and optuna-integration's MLflowCallback, which records parameters and the last value of a
trial at its end and no curve.

    python -m benchmarks.peers.optuna_processes TASK.json
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from benchmarks.peers.task import Axis, Params, Task


def suggested(trial: optuna.Trial, space: dict[str, Axis]) -> Params:
    """The point that the study enqueued for this trial."""
    return {
        name: trial.suggest_int(name, int(axis.low), int(axis.high), log=axis.log)
        if axis.whole
        else trial.suggest_float(name, axis.low, axis.high, log=axis.log)
        for name, axis in space.items()
    }


def opened(task: Task) -> optuna.Study:
    """The study in `home`, made if there is none."""
    return optuna.create_study(
        study_name="optuna",
        storage=JournalStorage(JournalFileBackend(str(Path(task.home) / "journal.log"))),
        sampler=optuna.samplers.TPESampler(seed=task.seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
        direction="maximize",
        load_if_exists=True,
    )


def search(task_path: str) -> None:
    """Train trials of the study until none of the enqueued ones is left."""
    from optuna_integration import MLflowCallback  # type: ignore[import-not-found, unused-ignore]

    from benchmarks.peers.loop import epochs

    task = Task.read(task_path)
    study = opened(task)

    def objective(trial: optuna.Trial) -> float:
        if trial.number >= len(task.configurations):  # the list is used up, and this one was never asked for
            study.stop()
            raise optuna.TrialPruned
        accuracy = 0.0
        for epoch, metrics in epochs(task, suggested(trial, task.space), str(trial.number)):
            accuracy = metrics["val_accuracy"]
            trial.report(accuracy, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return accuracy

    study.optimize(objective, callbacks=[MLflowCallback(tracking_uri=task.tracking, metric_name="val_accuracy")])


def main(task_path: str) -> None:
    task = Task.read(task_path)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = opened(task)
    for params in task.configurations:
        study.enqueue_trial(params)
    _migrated(task)
    with multiprocessing.get_context("spawn").Pool(task.cores) as pool:
        pool.map(search, [task_path] * task.cores, chunksize=1)


def _migrated(task: Task) -> None:
    """Have MLflow make its tables and the experiment once, before processes race for it."""
    import mlflow

    mlflow.set_tracking_uri(task.tracking)
    mlflow.set_experiment("optuna")


if __name__ == "__main__":
    main(sys.argv[1])
