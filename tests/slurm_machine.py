"""A real Slurm on this machine, private to a test: its controller, munge and two nodes of one host. Root, and Debian's slurm-wlm."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

LONG_S = 120.0
NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "scancel", "sinfo")
PLACES = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
CONFIGURATION = """\
ClusterName=hpo
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=30
ReturnToService=2
MpiDefault=none
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs={cpus} State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs={cpus} State=UNKNOWN
PartitionName=low Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=high Nodes=n1,n2 MaxTime=INFINITE State=UP PriorityTier=10
"""


def why_not() -> str:
    """Why there can be no Slurm here; empty if there can."""
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    if missing := [name for name in NEEDED if shutil.which(name, path=PLACES) is None]:
        return f"not installed: {', '.join(missing)} (Debian: apt-get install slurm-wlm)"
    return ""


class Slurm:
    """A cluster that runs; commands are asked for with `run`."""

    def __init__(self, folder: Path) -> None:
        self.env = {**os.environ, "PATH": PLACES, "SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *words: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
        """What a command prints; its failure is an error."""
        done = subprocess.run(words, env={**self.env, **(env or {})}, cwd=cwd, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @property
    def idle(self) -> int:
        """How many nodes wait for a job."""
        done = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--partition=low", "--states=idle"], env=self.env, capture_output=True, check=False
        )
        return len(done.stdout.splitlines())

    def state(self, job: str) -> tuple[str, int]:
        """A job's state, and how often it was restarted."""
        fields = dict(field.split("=", 1) for field in self.run("scontrol", "show", "job", job, "--oneliner").split() if "=" in field)
        return fields["JobState"], int(fields["Restarts"])

    def until(self, job: str, *states: str, restarts: int | None = None) -> None:
        """Wait until the job is in one of these states."""
        end = time.monotonic() + LONG_S
        while not (self.state(job)[0] in states and restarts in (None, self.state(job)[1])):
            assert time.monotonic() < end, f"job {job} is {self.state(job)}"
            time.sleep(0.2)


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """Two idle nodes, n1 and n2, gone with their jobs at the end."""
    ports = dict(zip(("controller", "n1", "n2"), _free_ports(3), strict=True))
    text = CONFIGURATION.format(folder=folder, host=socket.gethostname(), cpus=os.cpu_count() or 1, **ports)
    (folder / "slurm.conf").write_text(text)
    for name in ("state", "spool-n1", "spool-n2"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    found = Slurm(folder)
    munge = [f"--{name}={folder}/{file}" for name, file in (("socket", "munge.socket"), ("seed-file", "seed"), ("pid-file", "munged.pid"))]
    daemons = [
        ["munged", "--foreground", "--force", f"--key-file={key}", *munge],
        ["slurmctld", "-D"],
        *(["slurmd", "-D", "-N", node] for node in ("n1", "n2")),
    ]
    with ExitStack() as stack:
        for words in daemons:
            log = stack.enter_context((folder / f"{words[0]}.log").open("ab"))
            daemon = subprocess.Popen([shutil.which(words[0], path=PLACES) or words[0], *words[1:]], env=found.env, stdout=log, stderr=log)
            stack.callback(_end, daemon)
            if words[0] == "munged":
                _wait((folder / "munge.socket").exists, folder / "munged.log")
        _wait(lambda: found.idle == 2, folder / "slurmctld.log")
        try:
            yield found
        finally:
            subprocess.run(["scancel", "--user=root"], env=found.env, check=False, capture_output=True)
            with suppress(AssertionError):  # a job that cannot be cancelled: it is swept
                _wait(lambda: not found.run("squeue", "--noheader"), folder / "slurmctld.log")
            _sweep(found.env["SLURM_CONF"])


def _sweep(configuration: str) -> None:
    """Kill what is left of the jobs, which have the cluster's configuration in their environment."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        process = int(environment.parent.name)
        with suppress(OSError):  # gone, or another user's
            if f"SLURM_CONF={configuration}".encode() in environment.read_bytes().split(b"\0") and process != os.getpid():
                os.kill(process, signal.SIGKILL)


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()


def _wait(claim: Callable[[], bool], log: Path) -> None:
    end = time.monotonic() + LONG_S
    while not claim():
        assert time.monotonic() < end, log.read_text()[-2000:]
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [found.getsockname()[1] for found in sockets]
