"""A record in MLflow made what its study's journal says: compared, mended, and looked at again. Whose turn that is, `recording` says."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from hpo import lease, own_code
from hpo.attachments import ATTEMPTS, SPEC, Attachments
from hpo.comparing import CROWNED, Comparison, Gap, compare
from hpo.crowning import crowned
from hpo.journal import FILE_NAME
from hpo.journal_format import JournalError, read
from hpo.mlflow_runs import STUDY
from hpo.opening import open_store
from hpo.projection import Projection, milliseconds
from hpo.sending import Patience, Refused, send
from hpo.shipper import LATE_S
from hpo.store import FAILURES, MlflowStore
from hpo.tracking import TrackingState, address, in_short, is_remote, public, write_state
from hpo.trust import code, doubted

ROUNDS = 3  # of mending and looking again: what one makes, as a new parent, others have to be told in the next


@dataclass(frozen=True, slots=True)
class Tracked:
    """What `track` did to the record at `uri`, and how it compares now.

    `deleted` runs were copies, or held rows that did not belong and were made again; `ends_set` counts statuses. `champion`
    is the model that was registered, `note` what else there is to know.
    """

    uri: str
    after: Comparison
    runs_made: int
    points_sent: int
    texts_sent: int
    ends_set: int
    deleted: int
    champion: str
    note: str

    @property
    def changed(self) -> bool:
        """Whether there was anything to do."""
        return any((self.runs_made, self.points_sent, self.texts_sent, self.ends_set, self.deleted, self.champion))


def expected(folder: Path) -> Projection:
    """All that MLflow must show of the study in `folder`, and of one that nobody runs nothing as running.

    Raises JournalError for a journal that is damaged or empty.
    """
    running = lease.is_held(folder / FILE_NAME)  # asked first: what a writer wrote before it ended is read then
    records = read(folder / FILE_NAME)
    if not records:
        raise JournalError(f"{folder / FILE_NAME} is empty: its launch died at once, and there is nothing to record")
    projection = Projection()
    for record in records:
        projection.apply(record)
    if not running:
        projection.interrupt(milliseconds(records[-1]))
    return projection


class Mending:
    """One `track` at work, on a store that has answered."""

    def __init__(self, folder: Path, uri: str, patience_s: float, projection: Projection) -> None:
        self._folder, self._uri, self._address = folder, uri, address(uri)
        trainer = str(projection.spec["trainer"]["name"])
        self._untrusted = doubted([code(trainer)] if own_code.is_code(trainer) else [])  # what builds the model's network
        self._patience = Patience(patience_s, FAILURES)
        self.store: MlflowStore = self._patience(partial(open_store, self._address, projection.experiment, folder.parent))
        self._patience.progress = lambda: self.store.writes
        self._counts = Counter[str]()
        self._refusals: list[str] = []
        self._champion = ""
        self._attachments = Attachments(self._log, time.sleep)

    def run(self, state: TrackingState, note: str) -> Tracked:
        """Compare and mend until nothing differs, or mending does not help."""
        for _ in range(ROUNDS):
            projection, found = self._compared()
            if not found.differences:
                break
            self._mend(projection, found)
            if found.uncrowned and not self._untrusted:
                state = self._patience(partial(crowned, state, projection, self._folder, self._address))
                self._champion = state.champion_uri or state.champion_note
        else:
            projection, found = self._compared()
        if found.champion and not (state.champion_uri or state.champion_note):
            state = _with_champion(state, found.champion)
        if found.uncrowned and self._untrusted:
            self._refusals.append(f"no model is registered, for that would {self._untrusted[0]}; `hpo trust {self._folder.name}` allows it")
        note = "; ".join(filter(None, [note, *self._refusals]))
        parent = projection.runs[STUDY].run_id
        done = not found.differences
        write_state(self._folder, replace(state, parent_run_id=parent, shipped=projection.seq, done=done, error="" if done else note))
        if projection.ended is not None and projection.ended.reason in CROWNED:
            self._attachments.report(self.store, projection, self._folder, again=False)
        counts = {name: self._counts[name] for name in ("runs_made", "points_sent", "texts_sent", "ends_set", "deleted")}
        return Tracked(public(self._uri), found, **counts, champion=self._champion, note=note)

    def _compared(self) -> tuple[Projection, Comparison]:
        projection = expected(self._folder)
        return projection, compare(projection, self.store, self._patience, always_crowned=True)

    def _mend(self, projection: Projection, found: Comparison) -> None:
        for stray in found.strays:
            self._delete(stray.run_id)
        parent_stays = any(gap.run.key == STUDY and gap.stored and not gap.foreign for gap in found.gaps)
        for gap in found.gaps:
            self._prepare(gap)
            if not parent_stays and gap.run.run_id:
                gap.run.tags.pop("mlflow.parentRunId", None)  # told in the next round
        while projection.behind:
            self._refusals += self._patience(partial(send, projection, self.store, everything=True))
        if not parent_stays:
            self._attach_spec(projection)
            self._attachments.view(self.store, projection)
        if is_remote(self._uri) and any(run.creates > 1 for run in projection.runs.values()):
            time.sleep(max(0.0, self._patience.failed_at + LATE_S - time.monotonic()))  # a copy may still come

    def _prepare(self, gap: Gap) -> None:
        """Leave in the run what is to be sent, and count it."""
        run, stored = gap.run, gap.stored
        if stored is not None and not gap.foreign:
            run.run_id, run.shown, run.shown_ms = stored.run_id, stored.status, stored.ended_ms
            run.params, run.tags, run.points = gap.params, gap.tags, gap.points
        else:
            run.run_id = ""
            if stored is not None:
                run.tags |= {name: stored.tags[name] for name in run.offered if run.is_theirs(name, stored.tags.get(name))}
                self._delete(stored.run_id)
            self._counts["runs_made"] += 1
        self._counts.update(points_sent=len(run.points), texts_sent=len(run.params) + len(run.tags), ends_set=not run.end_is_shown)

    def _log(self, what: str) -> None:
        print(in_short(what, self._uri), flush=True)  # into the log: what is printed while MLflow is talked to goes there

    def _delete(self, run_id: str) -> None:
        with suppress(Refused):  # it is gone already: the answer to the first call was lost
            self._patience(partial(self.store.delete, run_id))
        self._counts["deleted"] += 1

    def _attach_spec(self, projection: Projection) -> None:
        for _ in range(ATTEMPTS):
            with suppress(*FAILURES):
                self.store.attach(projection.runs[STUDY].run_id, projection.spec, SPEC)
                return
        self._refusals.append(f"{SPEC} could not be stored as an artifact")


def _with_champion(state: TrackingState, told: str) -> TrackingState:
    name, slash, version = told.rpartition("/")
    if not (slash and version.isdecimal()):
        return replace(state, champion_note=told)
    return replace(state, champion_name=name, champion_version=version, champion_uri=f"models:/{told}")
