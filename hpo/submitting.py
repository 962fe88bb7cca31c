"""Sends studies to a cluster, to run there as jobs: a new one, or one that is gone on with. Waits for no study's end."""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpo import listing, pointers
from hpo.detached import DetachError, found, rows_of
from hpo.listing import Listed
from hpo.packing import Package
from hpo.sendable import code_of, refuse_local_files, text_of
from hpo.site import owner
from hpo.spec import Spec
from hpo.submissions import SPEC_FILE, Job, JobState, driver, free_name, launch_words, metadata, next_id, resuming_driver

if TYPE_CHECKING:
    from hpo.engine.ray_jobs import Jobs

TRIES = 10  # at a name that others take at the same moment


@dataclass(frozen=True, slots=True)
class Sent:
    """A study went to the job server at `jobs`, as the job `job`, with the files of `packed`."""

    study: str
    job: str
    jobs: str
    owner: str
    packed: Package


def checked(spec: Spec, home: Path) -> Package:
    """What goes along with a study of this spec: its trainer's code, if that lies in the current folder.

    SpecError where the trainer does not fit or the spec names what only this machine has, PackingError.
    """
    from hpo.preparing import completed, trainer_of

    completed(spec, trainer_of(spec))  # for what it complains of
    refuse_local_files(spec)
    return code_of(spec.trainer.name, home)


def launch(spec: Spec, packed: Package, jobs: Jobs, home: Path, *, exactly: bool) -> Sent:
    """Send a study with what goes along, under a name that is free there; DetachError for one that is demanded and taken."""
    for _ in range(TRIES):
        known, rows = jobs.all(), rows_of(jobs)
        name = _name(spec.name, listing.there(rows, known, jobs.where), exactly=exactly)
        job = _job(next_id(name, known), name, owner(), spec.trainer.name)
        if _sent(jobs, job, driver(launch_words(name, spec.trainer.name), job.owner), packed, text_of(spec, name)):
            return _kept(Sent(name, job.id, jobs.address, job.owner, packed), home)
    raise DetachError(f"others send studies called {spec.name} at the same moment, again and again; choose another --name")


def resume(study: str, options: Sequence[str], jobs: Jobs, home: Path) -> Sent:
    """Send a driver that goes on with a study of the cluster, with the trainer's code as it is here now.

    DetachError where there is no such study, or while it runs.
    """
    known = jobs.all()
    row = found(study, rows_of(jobs), known, jobs.where)
    if row.runs:
        raise DetachError(
            f"study {study} runs on {jobs.where} already: {row.holder or f'its driver {row.job} starts'}; `hpo stop {study}` stops it"
        )
    if row.state == listing.FAILED:
        raise DetachError(f"study {study} never began: {row.note}; send it again by `hpo launch --detach`")
    packed = code_of(row.trainer, home)
    job = _job(next_id(study, known), study, row.owner or owner(), row.trainer)
    if not _sent(jobs, job, resuming_driver(study, options, job.owner), packed):
        raise DetachError(f"study {study} was resumed by somebody else this moment: `hpo status {study}`")
    return _kept(Sent(study, job.id, jobs.address, job.owner, packed), home)


def _job(job: str, study: str, whose: str, trainer: str) -> Job:
    return Job(job, study, whose, JobState.PENDING, socket.gethostname(), trainer)


def _kept(sent: Sent, home: Path) -> Sent:
    pointers.write(home, pointers.Pointer(sent.study, sent.jobs, sent.job))
    return sent


def _name(wanted: str, there: Sequence[Listed], *, exactly: bool) -> str:
    taken = {row.study: row for row in there if row.state != listing.FAILED}
    if exactly and wanted in taken:
        row = taken[wanted]
        whose = f" ({row.owner}'s)" if row.owner else ""
        raise DetachError(
            f"study {wanted} exists on {row.where} already{whose}: {row.standing}; go on with it by `hpo resume {wanted}`, or choose "
            "another name with --name (without --name you get a free one)"
        )
    return free_name(wanted, taken)


def _sent(jobs: Jobs, job: Job, line: str, packed: Package, spec: str | None = None) -> bool:
    """Whether the cluster took the job; not if there is one of that id."""
    from hpo.engine.ray_jobs import IdTaken

    with tempfile.TemporaryDirectory(prefix="hpo-package-") as name:
        folder = Path(name)
        packed.copy_to(folder)
        if spec is not None:
            (folder / SPEC_FILE).write_text(spec, encoding="utf-8")
        try:
            jobs.submit(job.id, line, metadata(job), folder)
        except IdTaken:
            return False
    return True
