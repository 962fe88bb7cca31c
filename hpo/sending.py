"""Bringing a store up to date with a projection: each call once if it can be helped, and harmless if made twice. No mlflow.

A lost answer leaves open whether a call took effect, and a repeated `create` would make a second run: so whoever calls
`send` again after an error calls `recognise` first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from hpo.projection import STUDY, Point, Projection, Run, Status

POINTS_A_CALL = 800  # MLflow takes 1000 points, parameters and tags together, of the latter two at most 100 each
TEXTS_A_CALL = 90


class KnownRun(NamedTuple):
    """A run that the store has already; `state` is its hpo.state tag."""

    run_id: str
    status: Status
    state: str


class Refused(Exception):
    """The store will never take this; what else there is can still be sent."""


class Store(Protocol):
    """Where runs are kept. A call that raises anything but Refused is made again later."""

    def find(self, study_id: str) -> Mapping[str, KnownRun]:
        """The runs of a study by key, one each."""

    def create(self, name: str, started_ms: int, tags: Mapping[str, str]) -> str:
        """A new run's id."""

    def log(self, run_id: str, params: Mapping[str, str], points: Sequence[Point], tags: Mapping[str, str]) -> None:
        """Add to a run; what it has already stays as it is."""

    def close(self, run_id: str, status: Status, ended_ms: int) -> None:
        """Set a run's status; RUNNING opens it again."""


def recognise(projection: Projection, store: Store) -> None:
    """Learn which runs the store has, as at the start and after a call whose outcome is unknown."""
    for key, known in store.find(projection.study_id).items():
        if run := projection.runs.get(key):
            run.run_id, run.shown = known.run_id, known.status
            if run.is_trusted and (run.state, run.status) == (known.state, known.status):
                run.params, run.tags, run.points = {}, {}, []


def send(projection: Projection, store: Store, *, everything: bool) -> list[str]:
    """Bring the store up to date: finished trials, and with `everything` the running ones too; the study's end last.

    What was sent is no longer pending, so after an error the next call goes on where this one broke off. Returns what
    the store refused for good.
    """
    refusals = []
    parent = projection.runs[STUDY]
    if not parent.run_id:
        _bring(store, projection, parent, close=False)
    for run in projection.runs.values():
        if run is not parent and run.behind and (everything or run.status is not Status.RUNNING):
            try:
                _bring(store, projection, run)
            except Refused as error:
                refusals.append(f"{run.name}: {error}")
                run.params, run.tags, run.points, run.shown = {}, {}, [], run.status
                run.run_id = run.run_id or "refused"
    if everything:
        _bring(store, projection, parent)
    return refusals


def _bring(store: Store, projection: Projection, run: Run, *, close: bool = True) -> None:
    if not run.run_id:
        parent = projection.runs[STUDY]
        link = {} if run is parent else {"mlflow.parentRunId": parent.run_id}
        identity = {"hpo.study": parent.name, "hpo.study_id": projection.study_id, "hpo.trial": run.key}
        run.run_id = store.create(run.name, run.started_ms, identity | link)
    while run.params or run.tags or run.points:
        params, tags = dict(islice(run.params.items(), TEXTS_A_CALL)), dict(islice(run.tags.items(), TEXTS_A_CALL))
        store.log(run.run_id, params, run.points[:POINTS_A_CALL], tags)
        run.params = dict(islice(run.params.items(), TEXTS_A_CALL, None))
        run.tags = dict(islice(run.tags.items(), TEXTS_A_CALL, None))
        run.points = run.points[POINTS_A_CALL:]
    if close and run.status is not run.shown:
        store.close(run.run_id, run.status, run.ended_ms)
        run.shown = run.status
