"""A study's record in MLflow checked against its journal, and made again: where it is, or on another server."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TextIO

from hpo import lease
from hpo.comparing import Comparison, compare
from hpo.errors import EngineError
from hpo.journal import FILE_NAME
from hpo.mending import Mending, Tracked, expected
from hpo.opening import existing_store
from hpo.problem import Problem, SpecError, quoted
from hpo.projection import Projection
from hpo.redacted_output import redacted
from hpo.redaction import hidden
from hpo.references import SecretError
from hpo.sending import Patience, Refused
from hpo.store import FAILURES
from hpo.tracking import (
    LOG_FILE,
    PATIENCE_S,
    STATE_FILE,
    TrackingState,
    absolute,
    address,
    database_uri,
    environment,
    holds_password,
    in_short,
    public,
    read_state,
    surroundings,
    tracking_uri,
    uri_mistake,
    write_state,
)
from hpo.trust import doubted, mlflow, require, vouch

NOT_KEPT = (
    "the address holds a password and was not kept, so a later resume ships to the earlier one; give it with a reference in its place "
    "(http://USER:${env:NAME}@HOST), or without, and set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
)


class TrackingError(EngineError):
    """MLflow's record can't be read or written now; the journal has everything. See to the server, and try again."""


def check(folder: Path, patience_s: float = PATIENCE_S) -> Comparison:
    """Compare the record of the study in `folder` with its journal; changes nothing. The record of a study that runs is behind.

    Raises TrackingError when the server has given no answer for `patience_s`, and JournalError.
    """
    projection, state = expected(folder), read_state(folder)
    uri = _where(folder, projection, state)
    patience = Patience(patience_s, FAILURES)
    with _talking(uri, io.StringIO()):
        return compare(projection, patience(partial(existing_store, address(uri), projection.experiment)), patience)


def _where(folder: Path, projection: Projection, state: TrackingState | None) -> str:
    """The store that the record is in, though MLFLOW_TRACKING_URI may be another here than where the study ran."""
    # What holds a password was not written down as it is: that address is in the spec or the environment.
    known = state.uri if state and state.experiment_id and "***" not in state.uri else ""
    if known and doubted([mlflow(known)]):  # no more than a hint, and not this user's: the home was moved, or is a stranger's
        known = ""
    uri = tracking_uri(folder.parent, projection.uri or known, state.moved_to if state else "")
    if absolute(uri) == database_uri(folder.parent):
        return uri
    is_users = uri == os.environ.get("MLFLOW_TRACKING_URI")
    if mistake := uri_mistake(uri):
        place = "MLFLOW_TRACKING_URI" if is_users else str(folder / FILE_NAME)
        raise SpecError([Problem(place, 0, 0, "", f"{quoted(public(uri))} {mistake}")])
    if not is_users:
        require([mlflow(uri)], folder.name)
    return uri


def track(folder: Path, uri: str | None = None, patience_s: float = PATIENCE_S) -> Tracked:
    """Make the record of the study in `folder` what its journal says, at `uri` from now on if one is given.

    A run with rows that do not belong is deleted (MLflow can't delete rows) and made again. The best trial is registered,
    of an interrupted study too. What was recorded elsewhere stays there. Done twice, the second changes nothing.

    Raises SpecError for an address that can't be one, TrackingError while the study's own shipper is at work or when the
    server has given no answer for `patience_s`, JournalError, and Untrusted where the study alone says where its record is.
    """
    if uri and (mistake := uri_mistake(uri)):
        raise SpecError([Problem("--uri", 0, 0, "", f"{quoted(public(uri))} {mistake}")])
    vouch([mlflow(uri)] if uri else [])
    with _turn(folder), (folder / LOG_FILE).open("a") as log:
        projection, before = expected(folder), read_state(folder)
        where = absolute(uri) if uri else _where(folder, projection, before)
        state = before if before and before.uri == public(where) else TrackingState(public(where))
        kept = where if uri and not holds_password(where) else before.moved_to if before else ""
        with _talking(where, log):
            tracker = Mending(folder, where, patience_s, projection)
            state = replace(state, moved_to=kept, done=False, experiment_id=tracker.store.experiment_id)
            write_state(folder, state)  # from here on, since the server is there
            return tracker.run(state, NOT_KEPT if uri and holds_password(where) else "")


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    """Keep other writers of the record away."""
    try:
        held = lease.take(folder / STATE_FILE)
    except lease.LeaseHeld:
        who = lease.holder(folder / STATE_FILE) or "another process"
        raise TrackingError(f"the record of {folder.name} is being written by {who}; wait until it has ended") from None
    try:
        yield
    finally:
        os.close(held)


@contextmanager
def _talking(uri: str, log: TextIO) -> Iterator[None]:
    """MLflow's surroundings, its chatter kept in `log`; what it raises is a TrackingError outside."""
    hidden.add_environment(os.environ)
    with surroundings(environment()), redacted(log):
        try:
            yield
        except SecretError as error:
            raise TrackingError(f"MLflow's record can't be used: {error}; the journal has everything") from None
        except (Refused, *FAILURES) as error:
            raise TrackingError(f"MLflow's record can't be used: {in_short(str(error), uri)}; the journal has everything") from error
