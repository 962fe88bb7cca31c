"""What Ray and Tune are told: by the environment, which they read when they are imported or start, or in their place. Imports no ray."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

OBJECT_STORE_BYTES = 100 * 2**20  # results are small: Ray's default of 30 % of the memory would only be taken from training
ENVIRONMENT = {  # the workers inherit it
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the journal and MLflow record; CSV, JSON and TensorBoard copies cost time
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",  # nothing of Tune's is ever restored
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_THRESHOLD_S": "60",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a trainer's relative paths mean what they mean for the user
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_events_report_interval_ms": "0",  # nobody reads them, and with Ray's processes gone they cost the end 5 s
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # C++ that takes SIGTERM for a crash, and can hang; Python's faulthandler remains
    "RAY_AIR_NEW_OUTPUT": "0",
    "PL_DISABLE_FORK": "1",  # Tune would hand it to its workers, as a surrounding of their own, for which Ray starts new processes
    "RAY_enable_metrics_collection": "false",  # its page for Prometheus asks nobody for a token
}

# Whose death ends a process of Ray's, at once and without a word, when its raylet hangs up. Ray tells workers, and a driver takes its
# parent for the raylet: one that was left to init (nohup, setsid, a service) would end with its first cluster. It names itself.
RAYLET = "RAY_RAYLET_PID"

PRELOADED = "RAY_preload_python_modules"  # what a raylet has its workers import at once


def environment() -> dict[str, str]:
    """What this process must have in its environment before it imports ray, whose C++ reads some of it then."""
    is_driver = "ray" not in sys.modules  # in a worker it is, and knows its raylet
    return {**ENVIRONMENT, RAYLET: str(os.getpid())} if is_driver else ENVIRONMENT


@contextlib.contextmanager
def replaced(owner: Any, **new: Any) -> Iterator[None]:
    """Within, these attributes of a part of Ray's are others; those that this version of Ray lacks stay away."""
    old = {name: getattr(owner, name) for name in new if hasattr(owner, name)}
    for name in old:
        setattr(owner, name, new[name])
    try:
        yield
    finally:
        for name, value in old.items():
            setattr(owner, name, value)
