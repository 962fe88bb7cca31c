"""Ray Tune runs the trials: two thin adapters over one session, and a worker that is kept from trial to trial.

The searcher asks, the scheduler hands in results and tells of dead workers; both run in the driver's one thread.
Ray's and Tune's own files (pickles among them) are scratch: in a temporary folder, never restored, removed at the end.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hpo.capacity import Capacity, Placement
from hpo.session import Session
from hpo.trial import Decision

# Tune reads these when it is imported or starts; the workers inherit them.
os.environ.update(
    {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the journal and MLflow record; CSV, JSON and TensorBoard copies cost time
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # nothing of Tune's is ever restored
        "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
        "TUNE_WARN_THRESHOLD_S": "60",
        "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a trainer's relative paths mean what they mean for the user
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
)

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from hpo.data import seal
from hpo.engine.worker import TrialRun

DEATH = ("pid", "ip", "Worker exit type", "Worker exit detail")  # what Ray says of a dead worker, each as "name: value"
OBJECT_STORE_BYTES = 100 * 2**20  # results are small: Ray's default of 30 % of the memory would only be taken from training


class SearchOver(BaseException):
    """Ends Tune's loop from inside it, at a point where nothing is half done; no Exception, or Tune would wrap it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Fault(BaseException):
    """Carries an exception of ours (a full disk under the journal) out of Tune, which would take it for a trial's."""


@contextlib.contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the border to Tune: nothing of ours may pass for a failed trial
        raise Fault from error


class Worker(tune.Trainable):
    """A process that trains one trial after another."""

    def setup(self, config: dict[str, Any]) -> None:
        seal()
        sys.path.append(config["here"])  # for a trainer there; last, so that nothing there hides a package of ours
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


class Asking(Searcher):
    """Asks the session for a trial when a slot is free, and not earlier, so that every suggestion knows all results."""

    def __init__(self, session: Session, slots: int) -> None:
        super().__init__(metric=None, mode=None)
        self._session, self._slots = session, slots
        self._running: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        if len(self._running) >= self._slots:
            return None
        with _ours():
            assignment = self._session.next()
        if assignment is None:
            return None if self._running else Searcher.FINISHED  # the worker of a running trial may die yet
        self._running.add(trial_id)
        return {"assignment": assignment, "here": str(Path.cwd())}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: ARG002
        self._running.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal remembers."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the journal remembers."""


class Judging(FIFOScheduler):
    """Hands each result to the session and returns its decision; tells the session of workers that died.

    Tune's own retries are off: a worker that dies while it is reset for its next trial is noticed twice, and the second
    notice ends the trial for good. The session gives the trial out again, as a new trial of Tune's.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._session = session

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        with _ours():
            decision = self._session.take(trial.config["assignment"].number, result["report"])
        return TrialScheduler.STOP if decision is Decision.STOP else TrialScheduler.CONTINUE

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002
        with _ours():
            self._session.lost(trial.config["assignment"].number, _death(trial))

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Leave it to Tune, which starts pending trials in order without walking through all finished ones."""


class Ending(tune.Stopper):
    """Ends the loop between two of its steps, when the study's time is up."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        return False

    def stop_all(self) -> bool:
        if self._session.time_is_up:
            raise SearchOver("time")
        return False


def _death(trial: Any) -> str:
    """Why a worker died, from what Tune noted of it (text, no pickle): in one line."""
    try:
        noted = Path(trial.error_file).read_text(encoding="utf-8")
    except (OSError, TypeError):
        return "its worker process died"
    found = {name: match.group(1) for name, match in ((name, re.search(rf"{name}: *(.+)", noted)) for name in DEATH) if match}
    if "Worker exit type" not in found:
        return [line.strip() for line in noted.splitlines() if line.strip()][-1][:300]
    detail = found.get("Worker exit detail", "").partition(" Some common causes")[0]
    return f"worker process {found.get('pid', '?')} on {found.get('ip', '?')} died: {found['Worker exit type'].split()[0]}: {detail}"


@contextlib.contextmanager
def cluster(there: Capacity) -> Iterator[Path]:
    """A Ray of our own on this machine; yields the scratch folder of all that Ray and Tune write, gone with it at the end."""
    # under /tmp, because the paths of Ray's sockets must stay under 108 bytes
    with tempfile.TemporaryDirectory(prefix="hpo-ray-", dir="/tmp", ignore_cleanup_errors=True) as scratch:
        try:
            ray.init(
                address="local",
                num_cpus=there.cpus,
                num_gpus=there.gpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=OBJECT_STORE_BYTES,
                _temp_dir=scratch,
            )
            yield Path(scratch)
        finally:
            ray.shutdown()


def run(session: Session, at: Placement, scratch: Path) -> str:
    """Run the session's trials, placed as `at` says; says why the search ended (budget or time)."""
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(at.slots)
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    tuner = tune.Tuner(
        tune.with_resources(Worker, {"cpu": at.cpus, "gpu": at.gpus}),
        tune_config=tune.TuneConfig(
            num_samples=-1,
            search_alg=Asking(session, at.slots),
            scheduler=Judging(session),
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
            trial_name_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch),
            verbose=0,
            stop=Ending(session),
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    try:
        tuner.fit()
    except SearchOver as over:
        return over.reason
    except Fault as fault:
        raise (fault.__cause__ or fault) from None
    return "budget"
