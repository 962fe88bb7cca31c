"""Tune's loop with some parts of our own: what it writes, asks and restores for nobody is left out. Knows no study."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from typing import Any

from ray import tune
from ray.air.execution._internal import RayActorManager
from ray.exceptions import NodeDiedError, ObjectLostError, OutOfMemoryError, RayActorError
from ray.tune import registry
from ray.tune.execution import class_cache, tune_controller

from hpo.engine.ray_settings import replaced

KILLED = (OutOfMemoryError, NodeDiedError, ObjectLostError)  # what Ray raises for a worker that is gone, besides its ActorDiedError


class SearchOver(BaseException):
    """Ends Tune's loop from inside it, at a point where nothing is half done; no Exception, or Tune would wrap it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ActorManager(RayActorManager):
    """Tune's own, except that a worker killed by Ray's memory monitor is a dead worker: Tune breaks the whole search off."""

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        as_death = RayActorError(error_msg=str(exception)) if isinstance(exception, KILLED) else exception
        super()._actor_task_failed(tracked_actor_task, as_death)


class Controller(tune_controller.TuneController):
    """Tune's loop without its snapshots, which nobody ever restores or analyses: they cost each trial 2 ms.

    A worker that has just finished does not take the trial for which one is starting by now, in room that it has been given: where
    trials are shorter than that takes, one worker would do everything.
    """

    def checkpoint(self, force: bool = False, wait: bool = False) -> None:
        """Nothing: the journal remembers."""

    def _maybe_reuse_cached_actor(self, trial: Any) -> bool:
        own = None if trial in self._resetting_trials else self._trial_to_actor.get(trial)
        if own is not None and self._actor_manager.is_actor_started(own):
            return False
        return bool(super()._maybe_reuse_cached_actor(trial))

    def cleanup(self) -> None:
        """Close the trainers; what Tune does then is to read its last snapshot back."""
        super().cleanup()  # type: ignore[no-untyped-call]
        if self.is_finished() and sys.exception() is None:  # type: ignore[no-untyped-call]
            raise SearchOver("budget")


@contextlib.contextmanager
def tune_as_needed() -> Iterator[None]:
    """Within, Tune's parts are ours, and it asks Ray's key-value store for the worker's class once, not three times a trial.

    Nor does it hand variables of the environment on, which Ray's settings do: for a worker with some of its own Ray starts another
    process than those that are ready, and among them are the keys of AWS, which would stand in command lines, tables and logs.
    """
    known: Any = getattr(registry, "_global_registry", None)
    read_once = {name: functools.cache(getattr(known, name)) for name in ("contains", "get") if hasattr(known, name)}
    with (
        replaced(tune_controller, RayActorManager=ActorManager),
        replaced(tune.tune, TuneController=Controller),
        replaced(known, **read_once),
        replaced(class_cache, DEFAULT_ENV_VARS={}, ENV_VARS_TO_PROPAGATE=()),
    ):
        yield


class Unpickled:
    """A part of Tune that works in this process alone. Tune writes pickles of its parts, which nobody reads: empty ones."""

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        return object, ()
