"""Checks the emulated wiring of Ray's OptunaSearch and ASHAScheduler against Ray itself, whose order of results is real time's."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import ray
from optuna.samplers import TPESampler
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from benchmarks.curves import Scale, Table
from benchmarks.reproductions.runs import short, table
from benchmarks.search_quality.arms import ARMS, ETA
from benchmarks.search_quality.progress import Epoch, Progress, regret_at
from benchmarks.search_quality.running import TRAININGS
from benchmarks.search_quality.scores import BUDGETS
from hpo.sampling.with_optuna import distribution
from hpo.trial import Direction

EPOCH_S = 0.02  # long enough that the driver keeps up with all workers


class Replay(tune.Trainable):
    """A training that is read from a table."""

    def setup(self, config: dict[str, Any], **parameters: Any) -> None:
        self.table: Table = parameters["what"]
        self.curve = self.table.curve(config)

    def step(self) -> dict[str, float]:
        time.sleep(EPOCH_S)
        return {"value": self.curve[self.iteration]}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.curve = self.table.curve(new_config)
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing goes on from a checkpoint."""


class Recorder(tune.Callback):
    """Every result in the order in which the driver had it."""

    def __init__(self) -> None:
        self.epochs: list[Epoch] = []
        self._numbers: dict[str, int] = {}

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:  # noqa: ARG002
        number = self._numbers.setdefault(trial.trial_id, len(self._numbers))
        self.epochs.append(Epoch(len(self.epochs), number, result["training_iteration"], result["value"]))


class Enough(tune.Stopper):
    """The end of the search, after so many results."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        self.left -= 1
        return False

    def stop_all(self) -> bool:
        return self.left <= 0


def search(what: Table, workers: int, seed: int, epochs: int) -> list[Epoch]:
    """The arm `tpe+asha-ray`, by Ray Tune."""
    mode = "max" if what.direction is Direction.MAXIMIZE else "min"
    sampler = TPESampler(seed=seed, multivariate=False)
    space = {name: distribution(parameter) for name, parameter in what.space.items()}
    recorder = Recorder()
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            tune.Tuner(
                tune.with_resources(tune.with_parameters(Replay, what=what), {"cpu": 1}),
                tune_config=tune.TuneConfig(
                    search_alg=OptunaSearch(space, metric="value", mode=mode, sampler=sampler),
                    scheduler=ASHAScheduler(metric="value", mode=mode, max_t=what.max_epochs, grace_period=1, reduction_factor=ETA),
                    num_samples=100_000,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(storage_path=folder, callbacks=[recorder], stop=Enough(epochs), verbose=0),
            ).fit()
    finally:
        ray.shutdown()
    return recorder.epochs


def compare(what: Table, seeds: int, workers: int) -> None:
    """Print the regrets of Ray and of its emulation, seed by seed."""
    scale, rows = Scale.of(what), []
    for seed in range(seeds):
        for name, run in (("Ray", search), ("emulated", ARMS["tpe+asha-ray"].search)):
            epochs = run(what, workers, seed, TRAININGS * what.max_epochs)
            progress = Progress.of(epochs, what.direction, what.max_epochs)
            regrets = (short(regret_at(progress.seen, scale, budget * what.max_epochs)) for budget in BUDGETS)
            rows.append([name, str(seed), str(progress.trials), *regrets])
    print(table(["TPE + ASHA", "seed", "trials", *map(str, BUDGETS)], rows))
