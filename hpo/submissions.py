"""A study as a job of a Ray cluster: its id, its metadata, the words of its driver, and how it ended. Text only; knows no Ray.

Nothing here holds a secret: what it makes can be read by whoever may ask the cluster for its jobs.
"""

from __future__ import annotations

import base64
import binascii
import shlex
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

SPEC_FILE = "hpo-study.yaml"
PREFIX, QUESTION = "hpo-", "hpo.question-"  # of ids: a study's, and that of a command which only asks something
# A home that does not begin at the root would be in the folder of the job, which Ray removes.
ON_HEAD = "HPO_ON_HEAD"  # set for what runs as a job: it finds studies in the head's home, and asks no cluster in its turn
HOME = 'case "${HPO_HOME:=$HOME/runs}" in /*) ;; *) HPO_HOME="$HOME/$HPO_HOME" ;; esac; export HPO_HOME HPO_ON_HEAD=1'
KEPT = ("study", "owner", "host", "trainer")  # of a job, as its metadata
NO_COMMAND = 127  # the shell's, for a command that it does not find
KILLED = {128 + signal.SIGKILL, -signal.SIGKILL}
ENDINGS = {  # of hpo's own exit codes
    0: "ended",
    1: "broke off",
    2: "was refused",
    3: "ended without a trial that succeeded",
    65: "found a damaged file",
    75: "was stopped",
    130: "was interrupted",
    NO_COMMAND: "did not start: the Ray of the head finds no `hpo` on its PATH",
}


class JobState(StrEnum):
    """Ray's states of a job."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"

    @property
    def over(self) -> bool:
        """Whether its process is gone."""
        return self not in (JobState.PENDING, JobState.RUNNING)


@dataclass(frozen=True, slots=True)
class Job:
    """A driver of a study on a cluster: whose, from which host, on which trainer, and how it stands. `message` is Ray's word on that."""

    id: str
    study: str
    owner: str
    state: JobState
    host: str = ""
    trainer: str = ""
    began: datetime | None = None
    exit_code: int | None = None
    message: str = ""

    @property
    def number(self) -> int:
        """Which of the study's drivers it is, from 1."""
        return int(self.id.rpartition("-")[2])

    @property
    def ending(self) -> str:
        """What became of it, in words that follow `its driver`."""
        if not self.state.over:
            return "starts" if self.state is JobState.PENDING else "runs"
        if self.exit_code in KILLED:
            return "was killed (SIGKILL: by hand, or for want of memory)"
        if self.exit_code is None:
            return "was stopped" if self.state is JobState.STOPPED else f"died: {self.message.strip().partition(chr(10))[0]}"
        if self.exit_code < 0 or self.exit_code > 128 + 2:
            return f"was ended by signal {-self.exit_code if self.exit_code < 0 else self.exit_code - 128}"
        return f"{ENDINGS.get(self.exit_code, 'ended')} (exit code {self.exit_code})"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command that was run on the head wrote, and its exit code."""

    out: str
    err: str
    code: int


def metadata(job: Job) -> dict[str, str]:
    """What the cluster keeps beside a job."""
    return {name: getattr(job, name) for name in KEPT}


def job_of(job: str, kept: Mapping[str, str] | None, **state: object) -> Job | None:
    """The job of a study, as `metadata` described it; None for a job that is none of ours."""
    kept = kept or {}
    study = kept.get("study", "")
    number = job.removeprefix(f"{PREFIX}{study}-")
    if not study or not job.startswith(PREFIX) or not (number.isascii() and number.isdecimal()):
        return None
    texts = {name: "".join(filter(str.isprintable, kept.get(name, ""))) for name in KEPT}
    return Job(id=job, **texts, **state)  # type: ignore[arg-type]  # who calls it has them from Ray


def next_id(study: str, jobs: Iterable[Job]) -> str:
    """The id of the study's next driver. Two that choose at the same time choose the same, and the cluster takes one of them."""
    return f"{PREFIX}{study}-{max((job.number for job in jobs if job.study == study), default=0) + 1}"


def latest(study: str, jobs: Iterable[Job]) -> Job | None:
    """The study's last driver."""
    return max((job for job in jobs if job.study == study), key=lambda job: job.number, default=None)


def free_name(name: str, taken: Iterable[str]) -> str:
    """`name`, or name-2, name-3 ... where that is taken."""
    names = set(taken)
    return next(each for each in (name, *(f"{name}-{i}" for i in range(2, len(names) + 3))) if each not in names)


def launch_words(study: str, trainer: str) -> list[str]:
    """The command that a launched study's driver is; run again it goes on with the study. A trainer that is declared stands in the spec."""
    words = ["hpo", "launch", SPEC_FILE, "--name", study, "--or-resume"]
    return [*words, "--trainer", trainer] if ":" in trainer else words


def driver(words: Sequence[str], owner: str, first: str = "") -> str:
    """The shell's line that becomes a study's driver, whose exit code is then the job's; `first` comes before that."""
    return f"{HOME} HPO_OWNER={shlex.quote(owner)} HPO_PROGRESS=lines; {first}exec {shlex.join(words)}"


def resuming_driver(study: str, options: Sequence[str], owner: str) -> str:
    """The same for one that goes on with a study: the code that came along is what its user wants to be run."""
    trusting = shlex.join(["hpo", "trust", "--yes", "--code", "--", study])
    return driver(["hpo", "resume", *options, "--", study], owner, f"{trusting} >/dev/null || exit $?; ")


def question(words: Sequence[str], mark: str) -> str:
    """The shell's line that runs `hpo WORDS` and writes what that wrote as one line, which other lines of the job's log cannot part."""
    written = "\"$(base64 <{} | tr -d '\\n')\""
    return (
        f'{HOME}; o=$(mktemp) e=$(mktemp); hpo {shlex.join(words)} >"$o" 2>"$e" </dev/null; c=$?; '
        f"printf '%s:%s:%s\\n' {mark} {written.format(chr(34) + '$o' + chr(34))} {written.format(chr(34) + '$e' + chr(34))}; "
        'rm -f "$o" "$e"; exit $c'
    )


def answer(log: str, mark: str, code: int) -> Answer | None:
    """What `question` wrote into the job's log; None where it did not come to that."""
    for line in reversed(log.splitlines()):
        parts = line.split(":")
        if len(parts) == 3 and parts[0] == mark:
            try:
                out, err = (base64.b64decode(part, validate=True).decode(errors="replace") for part in parts[1:])
            except binascii.Error:
                return None
            return Answer(out, err, code)
    return None
