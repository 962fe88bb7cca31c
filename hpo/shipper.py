"""The process that brings a study's journal into MLflow: `python -m hpo.shipper STUDY_FOLDER`. Decides nothing.

It follows the journal, sends what MLflow lacks, waits out a server that is away, and ends when the study has.
"""

from __future__ import annotations

import argparse
import math
import os
import select
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from hpo.events import Ended
from hpo.journal import FILE_NAME, JournalError, Record, tail
from hpo.projection import STUDY, Projection, milliseconds
from hpo.sending import recognise, send
from hpo.store import MlflowStore, alone, open_store
from hpo.tracking import PATIENCE_S, TrackingState, environment, public, tracking_uri, without_secrets, write_state

POLL_S = 0.5
RUNNING_TRIALS_S = 5.0
LONGEST_PAUSE_S = 30.0
ATTEMPTS = 5  # at storing spec.json


class Shipper:
    """One study on its way into MLflow. `wait(seconds)` pauses and says whether the study's process is gone."""

    def __init__(self, folder: Path, wait: Callable[[float], bool], patience_s: float = PATIENCE_S) -> None:
        self.folder, self.patience_s = folder, patience_s
        self.projection = Projection()
        self.state = TrackingState(uri="")
        self._wait = wait
        self._offset = 0
        self._last: Record | None = None
        self._uri = ""
        self._store: MlflowStore | None = None
        self._in_doubt = True  # whether MLflow may hold what the projection does not know of
        self._was_in_doubt = False
        self._sent_all_at = -math.inf
        self._refused = ""
        self._attempts = ATTEMPTS
        self._crowned: Ended | None = None

    def run(self) -> bool:
        """Ship until the study has ended or its process is gone; whether MLflow then has everything."""
        gone, pause, patient_until, behind = False, POLL_S, math.inf, 0
        while True:
            closing = gone  # known before the journal is read, so that its last line is not missed
            self._follow()
            over = closing or self.projection.ended is not None
            patient_until = min(patient_until, time.monotonic() + self.patience_s) if over else math.inf
            try:
                if self._ship(over):
                    return True
                pause = POLL_S
            except Exception as error:  # the border of this process: whatever the server does, no study is harmed
                self._say(f"{type(error).__name__}: {error}")
                self._in_doubt = self._was_in_doubt = True
                was, behind = behind, self.projection.behind
                if behind < was:  # a server that takes some of it is not away
                    pause, patient_until = POLL_S, math.inf
                elif time.monotonic() > patient_until:
                    return False
                pause = min(2 * pause, LONGEST_PAUSE_S)
            gone = self._wait(min(pause, max(0.0, patient_until - time.monotonic()))) or gone

    def _follow(self) -> None:
        records, self._offset = tail(self.folder / FILE_NAME, self._offset)
        for record in records:
            self.projection.apply(record)
            self._last = record

    def _ship(self, over: bool) -> bool:
        if self._last is None:
            return over
        if over:
            self.projection.interrupt(milliseconds(self._last))
        if self._store is None:
            wanted, home = self.projection.spec.get("tracking") or {}, self.folder.parent
            self._uri = tracking_uri(home, wanted.get("uri"))
            self.state = replace(self.state, uri=public(self._uri))
            self._store = open_store(self._uri, wanted.get("experiment") or self.projection.runs[STUDY].name, home)
            self.state = replace(self.state, experiment_id=self._store.experiment_id)
        if self._in_doubt:
            recognise(self.projection, self._store)
            self._in_doubt = False
        everything = over or time.monotonic() - self._sent_all_at >= RUNNING_TRIALS_S
        for refusal in send(self.projection, self._store, everything=everything):
            self._refused = f"MLflow refused {refusal}"
            self._say(self._refused)
        if everything:
            self._sent_all_at = time.monotonic()
            self._attach_spec(self._store)
            parent = self.projection.runs[STUDY].run_id
            self._show(replace(self.state, parent_run_id=parent, shipped=self.projection.seq, error=self._refused))
        if over:
            self._crown()
            if self._was_in_doubt:  # a server that froze may have done late what it was asked for twice
                recognise(self.projection, self._store)
            self._show(replace(self.state, done=True))
        return over

    def _attach_spec(self, store: MlflowStore) -> None:
        if not self._attempts:
            return
        try:
            store.attach(self.projection.runs[STUDY].run_id, self.projection.spec, "spec.json")
            self._attempts = 0
        except Exception as error:  # artifacts may be kept elsewhere than runs, and must not hold these back for ever
            self._attempts -= 1
            if self._attempts:
                raise
            self._say(f"spec.json could not be stored as an artifact: {type(error).__name__}: {error}")

    def _crown(self) -> None:
        ended = self.projection.ended
        if ended is None or ended.best is None or ended == self._crowned:
            return
        from hpo import champion  # and with it torch: a second of work that the trials need until now

        candidate = champion.candidate(self.projection, ended.best, self.folder)
        crowned = champion.register(self._uri, candidate)
        self.state = replace(
            self.state,
            champion_name=crowned.name,
            champion_version=crowned.version,
            champion_uri=crowned.uri,
            champion_note=crowned.note,
        )
        self._crowned = ended

    def _say(self, what: str) -> None:
        what = without_secrets(what, self._uri)[:500]
        print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {what}", flush=True)
        self._show(replace(self.state, error=what))

    def _show(self, state: TrackingState) -> None:
        self.state = state
        with suppress(OSError):  # a view: the next one, or the next shipper, makes up for it
            write_state(self.folder, state)


class Parent:
    """The process at the other end of stdin."""

    def __init__(self) -> None:
        self.gone = False

    def wait(self, seconds: float) -> bool:
        """Pause, at most until the parent goes; whether it is gone."""
        if self.gone:
            time.sleep(seconds)
        elif select.select([0], [], [], seconds)[0]:
            self.gone = not os.read(0, 4096)
        return self.gone


def main(arguments: Sequence[str] | None = None) -> int:
    """Ship one study; 0 when MLflow has everything, 1 when it does not."""
    parser = argparse.ArgumentParser(prog="python -m hpo.shipper", description=__doc__)
    parser.add_argument("folder", type=Path, help="the study's folder")
    parser.add_argument("--patience", type=float, default=PATIENCE_S, help="seconds to go on trying after the study's end")
    options = parser.parse_args(arguments)
    os.environ.update(environment())
    os.nice(10)  # trials come first
    sys.path.append(str(Path.cwd()))  # for the `build` of a trainer there; last, so that nothing there hides a package of ours
    with alone(options.folder / "tracking.lock"):
        try:
            return 0 if Shipper(options.folder, Parent().wait, options.patience).run() else 1
        except JournalError as error:
            print(error, flush=True)
            return 1


if __name__ == "__main__":
    sys.exit(main())
