"""The process that brings a study's journal into MLflow: `python -m hpo.shipper STUDY_FOLDER`. Decides nothing.

It follows the journal, sends what MLflow lacks, waits out a server that is away, and ends when the study has.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from hpo.ahead import Ahead
from hpo.attachments import Attachments
from hpo.comparing import CROWNED
from hpo.crowning import crowned
from hpo.events import Ended
from hpo.journal import FILE_NAME
from hpo.journal_format import Follower, JournalError, Record
from hpo.mlflow_runs import STUDY
from hpo.opening import open_store
from hpo.overdue import CALL_S, CROWN_S, Overdue
from hpo.projection import Projection, milliseconds
from hpo.redacted_output import redacted
from hpo.redaction import hidden
from hpo.sending import recognise, send
from hpo.store import MlflowStore
from hpo.tracking import (
    GAVE_UP,
    PATIENCE_S,
    TrackingState,
    absolute,
    address,
    environment,
    in_short,
    is_remote,
    public,
    read_state,
    tracking_uri,
    without_secrets,
    write_state,
)
from hpo.turns import POLL_S, Parent, take_turn

RUNNING_TRIALS_S = 5.0
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 30.0  # after an error: from a server that takes some of it to one that is away
LATE_S = 3.0  # by when a server does what its caller gave up waiting for


class Shipper:
    """One study on its way into MLflow. `wait(seconds)` pauses and says whether the study's process is gone."""

    def __init__(self, folder: Path, wait: Callable[[float], bool], patience_s: float = PATIENCE_S) -> None:
        self.folder, self.patience_s, self._wait = folder, patience_s, wait
        self.projection = Projection()
        before = read_state(folder) or TrackingState("", done=True)
        self.state = TrackingState(before.uri, before.experiment_id, moved_to=before.moved_to)
        self._follower = Follower(folder / FILE_NAME)
        self._last: Record | None = None
        self._uri = self._address = self._refused = ""  # the first is to be shown, and may refer to secrets that are in the second
        self._store: MlflowStore | None = None
        self._recognised = False
        # Until when a run may come that was asked for by a shipper that died, and one that this one asked for in vain.
        self._orphan_until = -math.inf if before.done else time.monotonic() + LATE_S
        self._late_until = -math.inf
        self._in_doubt = self._orphan_until > -math.inf
        self._sent_all_at = -math.inf
        self._attachments = Attachments(self._log, wait)
        self._ahead = Ahead(folder, partial(self._attachments.prepare, folder))
        self._crowned: Ended | None = None
        self._rounds = 0

    def run(self) -> bool:
        """Ship until the study has ended or its process is gone; whether MLflow then has everything."""
        with closing(self._attachments):
            return self._run()

    def _run(self) -> bool:
        gone, pause, patient_until = False, POLL_S, math.inf
        while True:
            self._rounds += 1
            last_look = gone  # known before the journal is read, so that its last line is not missed
            self._follow()
            over = last_look or self.projection.ended is not None
            patient_until = min(patient_until, time.monotonic() + self.patience_s) if over else math.inf
            before, longest = self._writes, math.inf
            try:
                if self._ship(over):
                    return self.state.done
                pause = 0.0 if not over and self._prepare() else POLL_S
            except Exception as error:  # the border of this process: whatever the server does, no study is harmed
                self._in_doubt = True
                if any(run.creates and not run.run_id for run in self.projection.runs.values()):
                    self._late_until = time.monotonic() + LATE_S
                self.say(f"{type(error).__name__}: {error}")
                if self._writes > before:  # a server that takes some of it is not away
                    pause, patient_until = SHORTEST_PAUSE_S, math.inf
                elif time.monotonic() > patient_until:
                    return False
                else:
                    pause = min(2 * pause, LONGEST_PAUSE_S)
                longest = max(0.0, patient_until - time.monotonic())
            gone = self._wait(min(pause, longest)) or gone

    @property
    def progress(self) -> tuple[int, int]:
        """Changes with every round and every row that MLflow took."""
        return self._rounds, self._writes

    @property
    def limit_s(self) -> float:
        """How long a call may keep it waiting once the study's process is gone."""
        return CROWN_S if self._is_to_be_crowned and not self.projection.behind else self.patience_s + CALL_S

    @property
    def _writes(self) -> int:
        return self._store.writes if self._store else 0

    def _follow(self) -> None:
        for record in self._follower.read():
            self.projection.apply(record)
            self._last = record

    def _ship(self, over: bool) -> bool:
        """Bring MLflow up to date; whether nothing more can come."""
        if self._last is None:
            return over
        if over:
            self.projection.interrupt(milliseconds(self._last))
        if self._is_to_be_crowned:
            self._attachments.begin(self.projection, self.folder)  # beside the last rows and the model
        store = self._opened()
        if not self._recognised:
            recognise(self.projection, store)
            self._recognised = True
        everything = over or time.monotonic() - self._sent_all_at >= RUNNING_TRIALS_S
        for refusal in send(self.projection, store, everything=everything):
            self._refused = f"MLflow refused {refusal}"
            self.say(self._refused)
        if everything:
            self._sent_all_at = time.monotonic()
            self._attachments.view(store, self.projection)
            self._attachments.spec(store, self.projection)
            parent = self.projection.runs[STUDY].run_id
            self._show(replace(self.state, parent_run_id=parent, shipped=self.projection.seq, error=self._refused))
        if not over or self.projection.behind:
            return False
        self._crown(store)
        if not self._is_settled(store):
            return False
        self._show(replace(self.state, done=not self._refused))
        return True

    def _prepare(self) -> bool:
        """Make something ready for the end, now that all is sent; whether there was anything."""
        return self._last is not None and self._ahead.step(self.projection, milliseconds(self._last))

    def _opened(self) -> MlflowStore:
        if self._store is None:
            self._uri = absolute(tracking_uri(self.folder.parent, self.projection.uri, self.state.moved_to))
            elsewhere = TrackingState(public(self._uri), moved_to=self.state.moved_to)
            self._show(self.state if self.state.uri == elsewhere.uri else elsewhere)  # not done, whatever it was before
            self._address = address(self._uri)
            self._store = open_store(self._address, self.projection.experiment, self.folder.parent)
            self.state = replace(self.state, experiment_id=self._store.experiment_id)
        return self._store

    def _is_settled(self, store: MlflowStore) -> bool:
        """Whether nothing done late stands in MLflow any more, nor is to be expected. A copy of a run is removed here."""
        if not self._in_doubt:
            return True
        asked_again = any(run.creates > 1 for run in self.projection.runs.values())
        if is_remote(self._uri) and time.monotonic() < max(self._orphan_until, self._late_until if asked_again else -math.inf):
            return False
        recognise(self.projection, store)  # a status that was overtaken is sent again, too
        return not self.projection.behind

    @property
    def _is_to_be_crowned(self) -> bool:
        ended = self.projection.ended
        return ended is not None and ended.reason in CROWNED and ended != self._crowned

    def _crown(self, store: MlflowStore) -> None:
        """What comes once, when all of a study's rows are there: its model, and its report, which names that."""
        if self._is_to_be_crowned:
            self._show(crowned(self.state, self.projection, self.folder, self._address))
            self._crowned = self.projection.ended
            self._attachments.report(store, self.projection, self.folder)

    def say(self, what: str) -> None:
        """Into the log, and into the state as the last error."""
        self._log(what)
        self._show(replace(self.state, error=in_short(what, self._uri)))

    def _log(self, what: str) -> None:
        with suppress(OSError):  # a full disk
            os.write(1, f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {without_secrets(what, self._uri)[:500]}\n".encode())

    def _show(self, state: TrackingState) -> None:
        self.state = state
        with suppress(OSError):  # a view: the next one, or the next shipper, makes up for it
            write_state(self.folder, state)


def main(arguments: Sequence[str] | None = None) -> int:
    """Ship one study; 0 when MLflow has everything, GAVE_UP when it does not."""
    parser = argparse.ArgumentParser(prog="python -m hpo.shipper", description=__doc__)
    parser.add_argument("folder", type=Path, help="the study's folder")
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds to go on trying after the study's end")
    options = parser.parse_args(arguments)
    os.environ.update(environment())
    os.nice(10)  # trials come first
    parent = Parent()
    hidden.add_environment(os.environ)
    with redacted():
        try:
            if not take_turn(options.folder, parent.wait, options.patience):
                return GAVE_UP
            shipper = Shipper(options.folder, parent.wait, options.patience)
            Overdue(lambda: shipper.progress, lambda: shipper.limit_s, shipper.say).start()
            return 0 if shipper.run() else GAVE_UP
        except JournalError as error:
            print(error, flush=True)
            return GAVE_UP


if __name__ == "__main__":
    sys.exit(main())
