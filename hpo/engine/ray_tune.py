"""Ray Tune runs the trials: two thin adapters over one session. Its loop is in `ray_loop`, the process that trains in `ray_worker`.

The searcher asks, the scheduler hands in results and tells of dead workers; both run in the driver's one thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hpo import own_code
from hpo.capacity import Placement
from hpo.engine import ray_deaths, ray_settings
from hpo.interrupt import Interrupts
from hpo.session import Session
from hpo.trial import Decision
from hpo.trial_files import death_log, trial_folder

os.environ.update(ray_settings.environment())  # before they are imported

from ray import tune
from ray._private import worker
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from hpo.engine import ray_fitness
from hpo.engine.ray_loop import SearchOver, Unpickled, tune_as_needed
from hpo.engine.ray_sharing import Slots
from hpo.engine.ray_worker import Worker

MOST_PENDING = 1000  # how many trials Tune may ask for before they run, where Slots says how many that are


class Fault(BaseException):
    """Carries an exception of ours (a full disk under the journal) out of Tune, which would take it for a trial's."""


@contextlib.contextmanager
def _ours() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the border to Tune: nothing of ours may pass for a failed trial
        raise Fault from error


class Asking(Unpickled, Searcher):
    """Asks the session for a trial when a slot is free, and not earlier, so that every suggestion knows all results.

    While none is free, the session prepares for it what no result can change.
    """

    def __init__(self, session: Session, slots: Callable[[], int]) -> None:
        super().__init__(metric=None, mode=None)
        self._session, self._slots = session, slots
        self._folders = own_code.folders(session.spec.trainer.name)
        self._running: set[str] = set()

    def suggest(self, trial_id: str) -> Any:
        if len(self._running) >= self._slots():
            with _ours():
                self._session.prepare()
            return None
        with _ours():
            assignment = self._session.next()
        if assignment is None:
            return None if self._running else Searcher.FINISHED  # the worker of a running trial may die yet
        self._running.add(trial_id)
        return {"assignment": assignment, "folders": self._folders}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: ARG002
        self._running.discard(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal remembers."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the journal remembers."""


class Judging(Unpickled, FIFOScheduler):
    """Hands each result to the session and returns its decision; tells the session of workers that died.

    Tune's own retries are off: a worker that dies while it is reset for its next trial is noticed twice, and the second
    notice ends the trial for good. The session gives the trial out again, as a new trial of Tune's.
    """

    def __init__(self, session: Session, logs: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._session, self._logs = session, logs

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        with _ours():
            decision = self._session.take(trial.config["assignment"].number, result["report"])
        return TrialScheduler.CONTINUE if decision is Decision.CONTINUE else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002
        assignment = trial.config["assignment"]
        kept = death_log(trial_folder(self._session.folder, assignment.number), assignment.lease, assignment.attempt)
        death = ray_deaths.death(ray_deaths.noted(trial.error_file), trial.temporary_state.location.pid)
        if trial.temporary_state.location.hostname in (None, _this_node()):  # elsewhere its number is another process's
            death = ray_deaths.with_log(death, self._logs, kept)
        with _ours():
            self._session.lost(assignment.number, assignment.attempt, death.reason, preempted=death.preempted)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Leave it to Tune, which starts pending trials in order without walking through all finished ones."""


class Ending(Unpickled, tune.Stopper):
    """Ends the loop between two of its steps, when the study's time is up or a signal came."""

    def __init__(self, session: Session, interrupts: Interrupts) -> None:
        self._session, self._interrupts = session, interrupts

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        return False

    def stop_all(self) -> bool:
        self._interrupts.check()
        if reason := self._session.over:
            raise SearchOver(reason)
        return False


def run(session: Session, at: Placement, scratch: Path, interrupts: Interrupts, *, shared: bool = False) -> str:
    """Run the session's trials on the Ray that is started or joined, placed as `at` says; says why the search ended (budget or time).

    A `shared` Ray has nodes and other searches that come and go; ClusterError where one of its nodes cannot train the study.
    """
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(MOST_PENDING if shared else at.slots)
    if shared:
        ray_fitness.require(session, at)
    shares = Slots(session, at) if shared else None
    slots = shares.limit if shares else lambda: at.slots
    for name in ("ray", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    tuner = tune.Tuner(
        tune.with_resources(Worker, {"cpu": at.cpus, "gpu": at.gpus, **at.custom}),
        tune_config=tune.TuneConfig(
            num_samples=-1,
            search_alg=Asking(session, slots),
            scheduler=Judging(session, _logs()),
            reuse_actors=True,
            trial_dirname_creator=lambda trial: str(trial.trial_id),
            trial_name_creator=lambda trial: str(trial.trial_id),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch),
            verbose=0,
            stop=Ending(session, interrupts),
            failure_config=tune.FailureConfig(max_failures=0),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    try:
        with tune_as_needed(), contextlib.closing(shares) if shares else contextlib.nullcontext():
            tuner.fit()
    except SearchOver as over:
        return over.reason
    except Fault as fault:
        raise (fault.__cause__ or fault) from None
    return "budget"


def _this_node() -> str:
    """This machine's address, as Ray knows it."""
    node: Any = worker._global_node
    return str(node.node_ip_address)


def _logs() -> Path:
    """The folder of what Ray's workers on this machine print."""
    node: Any = worker._global_node
    return Path(node.get_logs_dir_path())
