"""The Ray that a search runs on: one of its own on this machine, ended without a trace, or a running cluster that it joins.

Ray's and Tune's own files (pickles among them) are scratch: in a temporary folder, never restored, removed at the end.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from math import floor
from pathlib import Path
from typing import Any

from hpo.capacity import Capacity
from hpo.engine import ray_processes, ray_settings, ray_token
from hpo.engine.ray_code import carried
from hpo.engine.ray_nodes import require_node_here
from hpo.engine.ray_settings import replaced
from hpo.errors import ClusterError
from hpo.interrupt import Interrupts

os.environ.update(ray_settings.environment())  # before it is imported

import ray
from ray._private import utils, worker
from ray.job_config import JobConfig

from hpo.engine.ray_start import listen_no_more, quick_start


@contextlib.contextmanager
def cluster(there: Capacity, interrupts: Interrupts, *, workers: int = 0, modules: Sequence[str] = ()) -> Iterator[Path]:
    """A Ray of our own on this machine; yields the scratch folder of all that Ray and Tune write, gone with it at the end.

    So many `workers` start with it, and import these `modules` before they are asked anything, as all later ones do.
    It ends by SIGKILL, at its normal end too: nothing of Ray's is kept, and its own way takes seconds.
    """
    ray_token.have_own()
    ray_processes.sweep()
    scratch = ray_processes.Scratch()
    interrupts.last_acts.append(scratch.clear)
    try:
        with _signals_kept(interrupts), quick_start(workers, modules):
            ray.init(
                address="local",
                num_cpus=floor(there.cpus),
                num_gpus=floor(there.gpus),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=ray_settings.OBJECT_STORE_BYTES,
                _temp_dir=str(scratch.folder),
            )
        interrupts.install()  # should this version of Ray have taken the signals after all
        yield scratch.folder
    finally:
        with interrupts.shielded():
            listen_no_more()
            ray_processes.kill_all(scratch.folder)
            ray.shutdown()
            scratch.clear()
            interrupts.last_acts.remove(scratch.clear)


@contextlib.contextmanager
def joined(address: str, trainer: str, interrupts: Interrupts) -> Iterator[Path]:
    """The running cluster at HOST:PORT, of which this machine is a node; yields a scratch folder for Tune, gone at the end.

    The source of a `trainer` that is the user's own code goes to the nodes. The workers end with this process, however it ends: Ray
    sees to that.
    ClusterError where this machine is no node of that cluster, or has another version of Ray.
    """
    ray_token.have_given()
    require_node_here(address)
    scratch = ray_processes.Scratch()
    interrupts.last_acts.append(scratch.clear)
    try:
        try:
            with _signals_kept(interrupts):
                ray.init(
                    address=address,
                    runtime_env=_surroundings(carried(trainer, scratch.folder / "code")),
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        except (RuntimeError, ConnectionError, ValueError) as error:
            raise ClusterError(_why_not_joined(address, str(error))) from error
        interrupts.install()
        yield scratch.folder
    finally:
        with interrupts.shielded():
            ray.shutdown()
            scratch.clear()
            interrupts.last_acts.remove(scratch.clear)


def _why_not_joined(address: str, said: str) -> str:
    if "ersion mismatch" in said:
        return f"the Ray cluster at {address} runs other versions of Ray or Python than this environment: {said.strip().splitlines()[-1]}"
    if "Failed to connect to Ray cluster" in said or "find node" in said:
        return f"no node on this machine belongs to the Ray cluster at {address}; make it one: `hpo node --address {address}`"
    return f"the Ray cluster at {address} cannot be joined: {said}"


def _surroundings(code: Path | None) -> dict[str, Any]:
    """The runtime environment of workers on nodes that others started; in a copy of the folder `code`, if there is one."""
    threads = {name: os.environ[name] for name in ("OMP_NUM_THREADS",) if name in os.environ}
    return {"env_vars": {**ray_settings.ENVIRONMENT, **threads}, **({"working_dir": str(code)} if code else {})}


@contextlib.contextmanager
def _signals_kept(interrupts: Interrupts) -> Iterator[None]:
    """Have `ray.init` leave SIGTERM to us, and not be interrupted where that would crash this process at its exit.

    It starts Ray's processes for some seconds, which can be broken off anywhere, and then makes the C++ part of this
    process known to them in half a second, which cannot. They get process groups of their own: a signal for
    this one's must not take them away under that part, which would wait for them.
    """
    connect, tie = worker.connect, utils.set_kill_on_parent_death_linux

    def connect_as_a_whole(*arguments: Any, **options: Any) -> None:
        # Ray has workers import from the driver's current folder before all else, where a stranger's `torch.py` may lie
        with interrupts.shielded(), replaced(JobConfig, _runtime_env_has_working_dir=lambda _: True):
            connect(*arguments, **options)

    def tie_and_part() -> None:
        os.setpgrp()
        tie()  # type: ignore[no-untyped-call]

    with (
        replaced(worker, connect=connect_as_a_whole),
        replaced(utils, set_sigterm_handler=lambda *_: None, set_kill_on_parent_death_linux=tie_and_part),
    ):
        yield
