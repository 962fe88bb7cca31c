"""All studies side by side, those of a home and those of a cluster: whose, where, how they stand. Reads; starts nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hpo.capacity import HERE
from hpo.home import studies
from hpo.journal_format import JournalError
from hpo.problem import SpecError
from hpo.results import StoredStudy
from hpo.submissions import Job, latest

STARTING, FAILED, UNREADABLE = "starting", "failed", "unreadable"
OPEN = ("stopped", "interrupted", "error")  # states that a resume would change
WORDS = {"budget": "done", "time": "done (its time is spent)", "error": "broke off"}
MET = {0, 3, 75, 130}  # exit codes of drivers whose study had begun


@dataclass(frozen=True, slots=True)
class Listed:
    """A study as `hpo list` has it: `state` is a StoredStudy's, or one of the three above; `note` says more, and what to do.

    `done` of at most `most` trials have ended. `folder` is where its journal is, on `host`, since `began`. A driver that was submitted as a
    job is `job`.
    """

    study: str
    state: str
    owner: str = ""
    where: str = HERE
    host: str = ""
    folder: str = ""
    began: str = ""
    holder: str = ""
    done: int = 0
    most: int = 0
    metric: str = ""
    best: float | None = None
    trainer: str = ""
    job: str = ""
    note: str = ""

    @property
    def identity(self) -> tuple[str, str, str]:
        """What no other study has: hosts and folders of the same names are nothing rare."""
        return self.host, self.folder, self.began

    @property
    def runs(self) -> bool:
        """Whether a process works on it, or is about to."""
        return self.state in ("running", STARTING)

    @property
    def standing(self) -> str:
        """The state in words."""
        return WORDS.get(self.state, self.state)

    def to_json(self) -> dict[str, Any]:
        """As plain data that `from_json` reads."""
        return asdict(self)


def from_json(plain: Mapping[str, Any]) -> Listed:
    """What `to_json` made, by this or another version of hpo; TypeError, KeyError if it is nothing of that kind."""
    known = {name: plain[name] for name in Listed.__dataclass_fields__ if name in plain}
    return Listed(**known)


def here(home: Path) -> list[Listed]:
    """The studies of `home`, oldest first; one that cannot be read is listed as that."""
    return [_listed(folder) for folder in studies(home)]


def _listed(folder: Path) -> Listed:
    host, place = socket.gethostname(), str(folder.resolve())
    try:
        stored = StoredStudy.open(folder)
        best = stored.best
        return Listed(
            stored.name,
            stored.state,
            owner=stored.owner,
            host=host,
            folder=place,
            began=stored.records[0].at.isoformat(),
            holder=str(stored.holder or ""),
            done=sum(count for state, count in stored.counts.items() if state.finished),
            most=stored.study.rules.max_trials,
            metric=stored.spec.objective.metric,
            best=best.value if best else None,
            trainer=stored.spec.trainer.name,
            note=_way_on(stored.name) if stored.state in OPEN else "",
        )
    except (JournalError, SpecError) as error:
        return Listed(folder.name, UNREADABLE, host=host, folder=place, note=str(error))


def _way_on(study: str) -> str:
    return f"go on with it by `hpo resume {study}`"


def there(rows: Iterable[Listed], jobs: Sequence[Job], where: str) -> list[Listed]:
    """The studies of a cluster, from what its head lists and from its jobs: those too whose driver made no journal yet, or none at all."""
    listed = {row.study: replace(row, where=where) for row in rows}
    found = [_with_job(row, latest(name, jobs)) for name, row in listed.items()]
    for name in dict.fromkeys(job.study for job in jobs if job.study not in listed):
        job = latest(name, jobs)
        if job is not None and not (job.state.over and job.exit_code in MET):  # else it was there, and is deleted
            state = FAILED if job.state.over else STARTING
            note = f"its driver {job.ending}; see `hpo logs {name}`" if job.state.over else ""
            found.append(Listed(name, state, job.owner, where, trainer=job.trainer, job=job.id, note=note))
    return found


def _with_job(row: Listed, job: Job | None) -> Listed:
    if job is None:
        return row
    row = replace(row, job=job.id, owner=row.owner or job.owner)
    if row.state in OPEN and not job.state.over:
        return replace(row, state=STARTING, note="")
    if row.state == "stopped":  # nothing in the journal says why
        return replace(row, note=f"its driver {job.ending}; {_way_on(row.study)}")
    return row


def side_by_side(local: Sequence[Listed], *others: Sequence[Listed]) -> list[Listed]:
    """One list of all; a study of this home which the cluster's head has in the same folder, because it is this machine, once."""
    elsewhere = [row for rows in others for row in rows]
    places = {row.identity for row in local}
    known = {row.identity: row for row in elsewhere if row.folder}
    mine = [replace(known.get(row.identity, row), where=row.where) for row in local]
    return [*mine, *(row for row in elsewhere if row.identity not in places)]
