"""Stands in for a Slurm cluster: the files of its jobs, and scontrol, squeue and srun, which a batch script calls.

`python -m tests.slurm_stand_ins.slurm srun ...`; $SLURM_STAND_IN is the folder. The behaviour is that of 22.05, watched there: an
srun that gets SIGTERM has its step killed, and hands SIGUSR1 on to all of the step; a job that was cancelled is COMPLETING to its end.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from tests.slurm_stand_ins.options import SRUN, SRUN_FLAGS, NoSuchOption, parsed

FOLDER = "SLURM_STAND_IN"


def folder() -> Path:
    """Where the cluster's state is."""
    return Path(os.environ[FOLDER])


def hostnames(text: str) -> list[str]:
    """n[1-3] as three names."""
    match = re.fullmatch(r"([a-z]+)\[(\d+)-(\d+)\]", text)
    return [f"{match[1]}{number}" for number in range(int(match[2]), int(match[3]) + 1)] if match else [text]


def state_of(job: str) -> str:
    """A job's state; empty for one that there is not."""
    path = folder() / job / "state"
    return path.read_text() if path.exists() else ""


def set_state(job: str, state: str) -> None:
    """Change it, in one step."""
    path = folder() / job / "state"
    path.with_suffix(".new").write_text(state)
    path.with_suffix(".new").replace(path)


def scontrol(words: Sequence[str]) -> int:
    """show hostnames LIST, show job ID --oneliner, requeue ID."""
    match list(words):
        case ["show", "hostnames", hosts]:
            print(*hostnames(hosts), sep="\n")
        case ["show", "job", job, "--oneliner"] if state_of(job):
            print(f"JobId={job} JobName=hpo UserId=me(1000) Priority=1 JobState={state_of(job)} Reason=None Requeue=1")
        case ["requeue", job] if state_of(job) in ("RUNNING", "COMPLETING"):  # even where the user has just cancelled it
            set_state(job, "PENDING")
        case ["requeue" | "show", *_]:
            print("slurm_update error: Job is pending execution, or there is none", file=sys.stderr)
            return 1
        case _:
            raise NoSuchOption(f"scontrol {words}")
    return 0


def squeue(words: Sequence[str]) -> int:
    """--noheader --format=%T --jobs=ID: its state while it is in the queue or runs."""
    noheader, form, jobs = words
    assert (noheader, form) == ("--noheader", "--format=%T")
    state = state_of(jobs.removeprefix("--jobs="))
    if state in ("PENDING", "RUNNING", "COMPLETING"):
        print(state)
        return 0
    print("slurm_load_jobs error: Invalid job id specified", file=sys.stderr)
    return 1


def srun(words: Sequence[str]) -> int:
    """One step on one node, in a session of its own; its output goes where --output says."""
    options, command = parsed(words, SRUN, SRUN_FLAGS)
    (node,) = hostnames(options["nodelist"])
    job = folder() / os.environ["SLURM_JOB_ID"]
    if node not in (job / "nodes").read_text().split():
        print("srun: error: Unable to create step: Requested node configuration is not available", file=sys.stderr)
        return 1
    gpus = dict(pair.split("=") for pair in (job / "gpus").read_text().split())
    place = {"SLURMD_NODENAME": node, "SLURM_CPUS_PER_TASK": options["cpus-per-task"]}
    place |= {"SLURM_GPUS_ON_NODE": gpus[node]} if node in gpus else {}
    with Path(options["output"]).open("ab" if options.get("open-mode") == "append" else "wb") as output:
        # it says itself that it is there: whoever ends this process the next moment finds it
        marked = ["sh", "-c", 'touch "$0-$$" && exec "$@"', str(job / "steps" / node), *command]
        step = subprocess.Popen(marked, stdout=output, stderr=output, env=os.environ | place, start_new_session=True)
    mark = job / "steps" / f"{node}-{step.pid}"

    def hand_on(number: int, frame: FrameType | None) -> None:
        signal_group(step.pid, number if number == signal.SIGUSR1 else signal.SIGKILL)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, hand_on)
    code = step.wait()
    signal_group(step.pid, signal.SIGKILL)
    mark.unlink(missing_ok=True)
    return code if code >= 0 else 128 - code


def signal_group(leader: int, number: int) -> bool:
    """To all of a step; whether there was anything of it."""
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return False
    return True


def signal_steps(job: str, number: int, node: str = "") -> bool:
    """To all steps of a job, or those on one node; whether there was any."""
    marks = (folder() / job / "steps").glob(f"{node or '*'}-*")
    there = [signal_group(int(mark.name.rpartition("-")[2]), number) for mark in marks]  # all of them, not up to the first
    return any(there)


def have_ended(job: str, within_s: float) -> bool:
    """Whether all steps of the job have, after that time at most."""
    until = time.monotonic() + within_s
    while signal_steps(job, 0):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


if __name__ == "__main__":
    sys.exit({"srun": srun, "scontrol": scontrol, "squeue": squeue}[sys.argv[1]](sys.argv[2:]))
