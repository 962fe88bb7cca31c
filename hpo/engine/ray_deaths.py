"""Why a worker died, from what Ray says of it and what the worker itself said last. Imports no ray."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from hpo.durable import make_folder
from hpo.redaction import hidden

LOG_BYTES = 32 * 1024  # of each of its two streams
LONGEST = 300  # characters of what is quoted in a reason
MARKS = (b":job_id:", b":actor_name:", b":task_name:")  # lines by which Ray's own tools tell whose output follows


# Ray's own texts (2.60: ray/exceptions.py, and gcs_server and raylet, which are binaries), what each means, and whether it
# is no fault of the trial's. A machine that just vanishes may have been brought down by the trial.
TEXTS = (
    (r"the actor's node was (?:preempted|terminated expectedly): *(.*)", "its machine was taken away: {found}", True),
    (r"^\tclass_name: *$", "its machine was preempted", True),  # all that the driver knows if that was announced
    (r"the actor's node was terminated\w*(?: unexpectedly)?: *(.*)", "its machine died: {found}", False),
    (r"low on memory\.\s+Memory on the node .*?\bwas (\S+ (?:used )?/ \S+)", "{worker} was killed because memory ran out: {found}", False),
    (r"The process receives a SIGTERM", "{worker} was ended by SIGTERM", False),
    (r"Worker exits with an exit code (-?\d+)", "{worker} ended with exit code {found}", False),
    (r"exits with a connection error|exceeded K8s pod memory", "{worker} was killed, perhaps for want of memory, or crashed", False),
    (r"^The actor \w+ is unavailable", "{worker} could not be reached any more", False),
)


@dataclass(frozen=True, slots=True)
class Death:
    """Why a worker died, in one line; `preempted` if its machine was taken away, which is no fault of the trial's."""

    reason: str
    process: int | None = None
    preempted: bool = False


def noted(error_file: str | None) -> str:
    """What Tune noted of a trial's end (text, no pickle); empty if it noted nothing."""
    try:
        return Path(error_file or "").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def death(said: str, process: int | None = None) -> Death:
    """What Ray said of a worker, as a reason for people and without secrets. `process` is the worker's number, if it is known already."""
    said = hidden(said)
    named = re.search(r"^\tpid: (\d+)$", said, re.MULTILINE)
    process = int(named[1]) if named else process
    worker = f"worker process {process}" if process else "its worker process"
    for text, meaning, preempted in TEXTS:
        if match := re.search(text, said, re.MULTILINE):
            found = " ".join(match.groups())[:LONGEST]
            return Death(meaning.format(worker=worker, found=found), process, preempted)
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return Death(f"{worker} died: {lines[-1][:LONGEST]}" if lines else f"{worker} died", process)


def with_log(found: Death, logs: Path, kept: Path) -> Death:
    """The same, with the crash that the worker's own output names; `kept` becomes a copy of the end of that output, without secrets.

    `logs` is Ray's folder of logs. Where the worker said nothing, or it cannot be kept, there is no copy. Nor is there where the
    study has secrets that this process does not know: the worker's output may show them.
    """
    said = b"".join(_tail(path) for path in sorted(logs.glob(f"worker-*-{found.process}.*")) if path.suffix in (".out", ".err"))
    if not said:
        return found
    if hidden.unknown:
        unknown = ", ".join(sorted(hidden.unknown))
        return replace(found, reason=f"{found.reason} (its log is not kept: it may show {unknown}, which is not known on this host)")
    said = hidden(said.decode(errors="surrogateescape")).encode(errors="surrogateescape")
    reason = found.reason
    if crash := re.search(rb"^Fatal Python error: ([^\n]+)", said, re.MULTILINE):
        reason = f"worker process {found.process} crashed: {crash[1].decode(errors='replace')[:LONGEST]}"
    try:
        make_folder(kept.parent)
        kept.write_bytes(said)
    except OSError as error:
        return Death(f"{reason} (its log could not be kept: {error.strerror})", found.process, found.preempted)
    return Death(f"{reason} (see {kept})", found.process, found.preempted)


def _tail(path: Path) -> bytes:
    """The end of a log, without Ray's own marks."""
    try:
        with path.open("rb") as file:
            start = file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_BYTES))
            content = file.read(LOG_BYTES)
    except OSError:
        return b""
    lines = content.splitlines(keepends=True)
    whole = lines[1:] if start and hidden else lines  # half a line may begin in a secret
    return b"".join(line for line in whole if not line.startswith(MARKS))
