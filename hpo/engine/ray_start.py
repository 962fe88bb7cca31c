"""Has the Ray of one search start with what the search needs: no process that nobody asks, and workers that are ready when the trials are.

And end without asking those that were killed. What it replaces are Ray's private parts; where a version of Ray has others, Ray does
as it does by itself.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hpo.engine import idle_agent, ray_settings
from hpo.engine.ray_settings import replaced

import ray  # isort: skip  # behind hpo's settings
from ray import _raylet
from ray._private import ray_constants, services, state, utils, worker
from ray._private.node import Node

# of Ray's processes those that serve its autoscaler, its printing of workers' logs and its dashboard: half of what a start costs
UNUSED = ("start_monitor", "start_log_monitor", "start_api_server")
# of a raylet's those for which it waits, 0.5 s where nothing else runs, and else 1.5 s
AGENTS = ("dashboard/agent.py", "_private/runtime_env/agent/main.py")
NAMED = ("--session-dir=", "--node-id=", "--node-ip-address=")  # what an idle agent must be told
LATEST_RAYLET_S = 5.0  # then Ray waits in its own way
LISTENING_S = 1.0


@contextlib.contextmanager
def quick_start(workers: int, modules: Sequence[str]) -> Iterator[None]:
    """Have `ray.init` start so many workers with the node, which import these modules at once; and no more than a search needs."""
    before = os.environ.get(ray_settings.PRELOADED)
    os.environ[ray_settings.PRELOADED] = ",".join(modules)
    try:
        with _few_processes(), _own_raylet(workers), _patient():
            yield
    finally:
        del os.environ[ray_settings.PRELOADED]
        if before is not None:
            os.environ[ray_settings.PRELOADED] = before


@contextlib.contextmanager
def _few_processes() -> Iterator[None]:
    """Have `ray.init` start no process that nobody asks anything: 0.7 s sooner, 1.4 s of a processor less.

    Nor the dashboard's agent, which it does where Ray's dashboard is installed.
    """
    unwanted = ImportError("the dashboard is not wanted")
    with replaced(Node, **dict.fromkeys(UNUSED, _nothing)), replaced(utils, get_dashboard_dependency_error=lambda: unwanted):
        yield


def _nothing(*_arguments: Any, **_options: Any) -> None:
    """Done instead of something."""


@contextlib.contextmanager
def _own_raylet(workers: int) -> Iterator[None]:
    """Have `ray.init` start a raylet that waits for no agent, and which starts so many workers at once, not one for each processor.

    Where Ray's agents do not hand their ports over by files, or are not told what they need for that, they are started as ever.
    """
    theirs = getattr(services, "start_ray_process", None)
    folder = Path(str(ray.__file__)).parent
    idle = subprocess.list2cmdline([sys.executable, "-I", "-S", str(idle_agent.__file__)])
    programs = [subprocess.list2cmdline([str(folder / agent)]) for agent in AGENTS]
    theirs_begin = subprocess.list2cmdline((sys.executable, "-u"))

    def changed(word: str) -> str:
        if word.startswith("--num_prestart_python_workers="):
            return f"{word.partition('=')[0]}={workers}"
        option, _, command = word.partition("=")
        is_known = any(command.startswith(f"{theirs_begin} {program} ") for program in programs) and hasattr(_raylet, "persist_port")
        if option.endswith("_agent_command") and is_known and all(name in command for name in NAMED):
            return f"{option}={idle}{command.removeprefix(theirs_begin)}"
        return word

    def start(command: Sequence[str], process_type: str, *arguments: Any, **options: Any) -> Any:
        is_raylet = process_type == ray_constants.PROCESS_TYPE_RAYLET
        return theirs and theirs([changed(word) for word in command] if is_raylet else command, process_type, *arguments, **options)

    with replaced(services, start_ray_process=start):
        yield


@contextlib.contextmanager
def _patient() -> Iterator[None]:
    """Have `ray.init` notice its raylet within 10 ms: it looks once, and then again after a second."""
    theirs = getattr(services, "get_node", None)

    def once_it_is_there(*arguments: Any, **options: Any) -> Any:
        with contextlib.suppress(Exception):  # the border to Ray's private parts: where they are others, it waits in its own way
            _until_a_node_is_known(*arguments)
        return theirs(*arguments, **options) if theirs else None

    with replaced(services, get_node=once_it_is_there):
        yield


def _until_a_node_is_known(gcs_address: str, *_node_id: str) -> None:
    private: Any = services
    gcs: Any = state.GlobalState()  # type: ignore[no-untyped-call]
    gcs._initialize_global_state(private._get_gcs_client_options(gcs_address))
    until = time.monotonic() + LATEST_RAYLET_S
    while not gcs.node_table() and time.monotonic() < until:
        time.sleep(0.01)


def listen_no_more() -> None:
    """End the thread in which this process hears of Ray's errors, before Ray's processes are killed, and not after.

    In its first moment it asks them something, and `ray.shutdown` would wait for an answer that can't come.
    """
    listener: Any = worker.global_worker
    if not listener.connected:
        return
    with contextlib.suppress(AttributeError):  # another version of Ray
        listener.threads_stopped.set()
        listener.gcs_error_subscriber.close()
        listener.listener_thread.join(LISTENING_S)
