"""The process that trains trials, as Tune starts it. Decides nothing."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import ray
from ray import tune

from hpo.data import seal
from hpo.engine import ray_processes, ray_settings
from hpo.engine.worker import TrialRun
from hpo.preparing import have_dataset


class Worker(tune.Trainable):
    """A process that trains one trial after another."""

    def setup(self, config: dict[str, Any]) -> None:
        ray_processes.die_with_parent()
        os.environ.pop(ray_settings.PRELOADED, None)  # a Ray that the trainer starts has workers of its own
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray makes it a SystemExit in the trainer, which would pass for the trial's fault
        have_dataset(config["assignment"].arguments)
        seal()
        sys.path.extend(config["folders"])  # for a user's own code; last, so that nothing there hides a package of ours
        self._run = self._new_run(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._run.close()
        self._run = self._new_run(new_config)
        return True

    def step(self) -> dict[str, Any]:
        return {"report": self._run.advance()}

    def cleanup(self) -> None:
        self._run.close()

    def _new_run(self, config: dict[str, Any]) -> TrialRun:
        return TrialRun(config["assignment"], "cuda:0" if ray.get_gpu_ids() else "cpu")
