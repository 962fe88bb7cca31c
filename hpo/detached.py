"""Studies that run as jobs of a cluster, on its head: found again from anywhere, asked about, stopped.

The study's home is the head's, its journal is on the head's disk; what is here is a client.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpo import listing, pointers
from hpo.errors import ClusterError
from hpo.home import HomeError, is_running, studies
from hpo.listing import Listed
from hpo.problem import hint
from hpo.site import jobs_address, site
from hpo.submissions import ON_HEAD, Answer, Job, latest

if TYPE_CHECKING:
    from hpo.engine.ray_jobs import Jobs

SERVER = "RAY_API_SERVER_ADDRESS"  # Ray's own variable
STOP_WAIT_S = 30.0
LOOK_S = 0.2


class DetachError(HomeError):
    """This study cannot be sent to the cluster, or is not to be found there; the text says what can be done."""


def server(option: str | None, home: Path, study: str | None = None) -> str | None:
    """The address of the job server: the option's, Ray's variable's, the operator's, or where the study was sent from here.

    None if none is known, and for what runs on a cluster's head already.
    """
    if option is None and os.environ.get(ON_HEAD):
        return None
    for name, given in (("--jobs", option), (SERVER, os.environ.get(SERVER))):
        if given:
            return jobs_address(given, name)
    known = pointers.read(home).get(study or "")
    return site().cluster.jobs or (known.jobs if known else None)


def servers(option: str | None, home: Path) -> list[str]:
    """The addresses of all job servers that may have studies: the one that `server` finds, or all that studies were sent to from here."""
    one = server(option, home)
    return [one] if one else list(dict.fromkeys(pointer.jobs for pointer in pointers.read(home).values()))


def connected(address: str) -> Jobs:
    """The jobs there; ClusterError where nobody answers, TokenError without a token."""
    try:
        from hpo.engine.ray_jobs import Jobs
    except ImportError as error:
        raise ClusterError(f"Ray's client for jobs is not installed ({error.name}): pip install 'hpo[cluster]'") from None
    return Jobs(address)


def is_here(home: Path, study: str) -> bool:
    """Whether the study is one of this home."""
    return study in [folder.name for folder in studies(home)]


def was_sent(home: Path, study: str) -> bool:
    """Whether the study was sent to a cluster from here."""
    return study in pointers.read(home)


def rows_of(jobs: Jobs) -> list[Listed]:
    """The studies in the head's home, as the head lists them."""
    said = jobs.ask(["list", "--here", "--json"])
    try:
        return [listing.from_json(row) for row in json.loads(said.out)]
    except (ValueError, TypeError, KeyError):
        what = said.err.strip() or said.out.strip() or "nothing"
        raise ClusterError(f"the head of {jobs.where} does not list its studies, but says (exit code {said.code}): {what}") from None


def studies_of(jobs: Jobs) -> list[Listed]:
    """All studies of a cluster."""
    return listing.there(rows_of(jobs), jobs.all(), jobs.where)


def found(study: str, rows: Sequence[Listed], known: Sequence[Job], where: str) -> Listed:
    """The study among those of a cluster; DetachError if it is none of them."""
    there = {row.study: row for row in listing.there(rows, known, where)}
    if study not in there:
        raise DetachError(f"no study is called {study!r} on {where} either; {hint(study, there) if there else 'there are none'}")
    return there[study]


def ask(jobs: Jobs, study: str, words: Sequence[str], *, as_json: bool) -> Answer:  # noqa: ARG001  # as `status` and `stop` are called
    """What a command says on the head."""
    said = jobs.ask(words)
    return said if said.code == 0 or not said.err else Answer(said.out, f"on {jobs.where}: {said.err}", said.code)


def status(jobs: Jobs, study: str, words: Sequence[str], *, as_json: bool) -> Answer:
    """What `hpo status` says on the head, and how the study's last driver stands."""
    known, said = jobs.all(), ask(jobs, study, words, as_json=as_json)
    job = latest(study, known)
    if job is None:
        return said
    facts = {"where": jobs.where, "job": job.id, "job_state": job.state.value, "job_exit_code": job.exit_code}
    if as_json:
        rows = json.loads(said.out) if said.code == 0 else [{"study": study, "owner": job.owner, "state": _before_journal(job)}]
        return Answer(json.dumps([row | facts for row in rows], indent=1) + "\n", "", 0)
    way = f"; go on with it by `hpo resume {study}`" if job.state.over and job.exit_code not in (0, 2) else ""
    line = f"job {job.id} on {jobs.where}, from {job.host or 'somewhere'}: its driver {job.ending}"
    if said.code == 0:
        return Answer(f"{said.out}{line}{way}\n", said.err, 0)
    return Answer(f"{study} ({job.owner}): {_before_journal(job)}\n{line}; `hpo logs {study}` has what it wrote\n", "", 0)


def stop(jobs: Jobs, study: str, words: Sequence[str], *, as_json: bool) -> Answer:
    """Have the head stop the study; a driver that has not come to its journal yet is stopped through Ray."""
    said = ask(jobs, study, words, as_json=as_json)
    job = latest(study, jobs.all())
    if said.code == 0 or job is None or job.state.over:
        return said
    jobs.stop(job.id)
    until = time.monotonic() + STOP_WAIT_S
    while not jobs.job(job.id).state.over:
        if time.monotonic() >= until:
            raise ClusterError(f"{job.id} on {jobs.where} still runs {STOP_WAIT_S:g} s after it was asked to end: `hpo status {study}`")
        time.sleep(LOOK_S)
    text = f"stopped {job.id} on {jobs.where}; go on with the study by `hpo resume {study}`, if it had begun"
    return Answer(json.dumps({"study": study, "job": job.id}) + "\n" if as_json else f"{text}\n", "", 0)


def log(jobs: Jobs, study: str, *, follow: bool) -> tuple[str, Iterator[str]]:
    """The study's last driver, and what it writes, part by part."""
    job = latest(study, jobs.all())
    if job is None:
        row = found(study, rows_of(jobs), (), jobs.where)
        raise DetachError(
            f"study {study} on {row.where} is no job that the cluster remembers; its folder on the head, {row.folder}, has ray.log"
        )
    return job.id, jobs.follow(job.id) if follow else iter([jobs.log(job.id)])


def local_log(folder: Path, *, follow: bool) -> Iterator[str]:
    """What Ray and the search wrote of a study here, part by part; with `follow` until nothing runs it."""
    path = folder / "ray.log"
    if not path.exists():
        raise DetachError(f"study {folder.name} has no {path}: it began no search on Ray yet, or ran with --local")
    with path.open(encoding="utf-8", errors="replace") as file:
        while True:
            runs = follow and is_running(folder)
            yield file.read()
            if not runs:
                return
            time.sleep(LOOK_S)


def _before_journal(job: Job) -> str:
    return listing.FAILED if job.state.over else listing.STARTING
