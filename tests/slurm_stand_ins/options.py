"""The options of sbatch and srun (Slurm 20.11 to 25.05, from their manuals), and a parser that takes no others."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence

FLAGS = {  # no value, or an optional one after "="
    "compress", "contiguous", "exclusive", "get-user-env", "hold", "ignore-pbs", "kill-on-bad-exit", "nice", "no-kill", "no-requeue",
    "overcommit", "oversubscribe", "parsable", "propagate", "quiet", "reboot", "requeue", "spread-job", "test-only", "use-min-nodes",
    "verbose", "wait", "exact", "label", "no-allocate", "overlap", "preserve-env", "pty", "unbuffered", "whole",
}  # fmt: skip
SBATCH = {
    "account", "acctg-freq", "array", "batch", "bb", "bbf", "begin", "chdir", "cluster-constraint", "clusters", "comment", "constraint",
    "container", "core-spec", "cores-per-socket", "cpu-freq", "cpus-per-gpu", "cpus-per-task", "deadline", "delay-boot", "dependency",
    "distribution", "error", "exclude", "export", "export-file", "extra-node-info", "gid", "gpu-bind", "gpu-freq", "gpus", "gpus-per-node",
    "gpus-per-socket", "gpus-per-task", "gres", "gres-flags", "hint", "input", "job-name", "kill-on-invalid-dep", "licenses", "mail-type",
    "mail-user", "mcs-label", "mem", "mem-bind", "mem-per-cpu", "mem-per-gpu", "mincpus", "network", "nodefile", "nodelist", "nodes",
    "ntasks", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-node", "ntasks-per-socket", "open-mode", "output", "partition", "power",
    "prefer", "priority", "profile", "qos", "reservation", "signal", "sockets-per-node", "switches", "thread-spec", "threads-per-core",
    "time", "time-min", "tmp", "uid", "wait-all-nodes", "wckey", "wrap",
}  # fmt: skip
SRUN = SBATCH - {"array", "batch", "export-file", "gid", "uid", "wrap", "kill-on-invalid-dep", "wait-all-nodes"} | {
    "bcast", "cpu-bind", "epilog", "gpus-per-task", "het-group", "jobid", "mpi", "multi-prog", "ntasks", "prolog", "relative", "resv-ports",
    "slurmd-debug", "task-epilog", "task-prolog", "threads", "tres-bind", "tres-per-task",
}  # fmt: skip
SBATCH_FLAGS = FLAGS - {"exact", "label", "no-allocate", "overlap", "preserve-env", "pty", "unbuffered", "whole", "kill-on-bad-exit"}
SRUN_FLAGS = FLAGS - {"parsable", "requeue", "no-requeue", "ignore-pbs", "test-only", "get-user-env", "hold"}

NUMBER = r"[1-9][0-9]*"
VALUES = {
    "cpus-per-task": NUMBER,
    "gpus-per-node": rf"(?:[a-z0-9_]+:)?{NUMBER}",
    "kill-on-bad-exit": "[01]",
    "job-name": r"[\w.-]+",
    "mpi": "none|pmi2|pmix",
    "nodes": rf"{NUMBER}(?:-{NUMBER})?",
    "ntasks": NUMBER,
    "ntasks-per-node": NUMBER,
    "open-mode": "append|truncate",
    "requeue": "",
    "no-kill": "|off",
    "signal": r"(?:[RB]{1,2}:)?(?:[A-Z]+[12]?|[0-9]+)(?:@[0-9]{1,5})?",
    "time": r"(?:\d+-)?\d{1,2}:\d{2}(?::\d{2})?|\d+",
}


class NoSuchOption(ValueError):
    """Slurm would refuse this command or line."""


def parsed(words: Iterable[str], known: set[str], flags: set[str]) -> tuple[dict[str, str], list[str]]:
    """The options that the words begin with, long ones as `--name=value`, and what follows; NoSuchOption for any that is none."""
    found: dict[str, str] = {}
    left = list(words)
    while left and left[0].startswith("-"):
        word = left.pop(0)
        name, has_value, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or name not in known | flags:
            raise NoSuchOption(f"unrecognized option '{word}'")
        if name in known and not has_value:
            raise NoSuchOption(f"option '{word}' requires an argument, behind =")
        if not re.fullmatch(VALUES.get(name, ".*" if name in flags else ".+"), value):
            raise NoSuchOption(f"invalid value of '{word}'")
        found[name] = value
    return found, left


def of_script(text: str) -> dict[str, str]:
    """The options in a batch script's #SBATCH lines, which Slurm reads up to the first command."""
    lines = text.splitlines()
    if not lines[0].startswith("#!/"):
        raise NoSuchOption("This does not look like a batch script")
    found: dict[str, str] = {}
    for line in lines[1:]:
        if line.startswith("#SBATCH "):
            options, rest = parsed(shlex.split(line.removeprefix("#SBATCH"), comments=True), SBATCH, SBATCH_FLAGS)
            if rest:
                raise NoSuchOption(f"{line}: what is {rest[0]}?")
            found |= options
        elif re.match(r"\s*#\s*SBATCH|#SBATCH\S", line):
            raise NoSuchOption(f"{line}: Slurm takes this for a comment")
        elif line.strip() and not line.startswith("#"):
            break
    if late := [line for line in lines[lines.index(line) :] if line.startswith("#SBATCH")]:
        raise NoSuchOption(f"{late[0]}: behind the first command Slurm reads no options")
    return found


def submitted(words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The options of an sbatch command line, and its script with arguments."""
    return parsed(words, SBATCH, SBATCH_FLAGS)
