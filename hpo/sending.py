"""Bringing a store up to date with a projection: each call once if it can be helped, and harmless if made twice. No mlflow.

A lost answer leaves open whether a call took effect. All calls but one may simply be made again; a repeated `create` would
make a second run, so `send` looks for the first before it repeats one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

from hpo.mlflow_runs import NOTE_TAG, STUDY, Point, Run, Status
from hpo.projection import Projection

POINTS_A_CALL = 800  # MLflow takes 1000 points, parameters and tags together, of the latter two at most 100 each
TEXTS_A_CALL = 90
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 5.0
REFUSALS = 3  # of the same call: two identical requests at once, as after a freeze, make MLflow refuse one of them


class KnownRun(NamedTuple):
    """A run that the store has already; `state` is its hpo.state tag, one of its `tags`, `ended_ms` 0 while it is open."""

    run_id: str
    status: Status
    state: str
    ended_ms: int
    tags: Mapping[str, str]


class StoredRun(NamedTuple):
    """What a store has of a run, its points apart; `key` is its hpo.trial tag, `metrics` the names of what it has points of."""

    run_id: str
    key: str
    name: str
    status: Status
    started_ms: int
    ended_ms: int
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Sequence[str]


class StoredModel(NamedTuple):
    """A version of a registered model; `is_champion` says whether the alias is on it or on a later one."""

    version: int
    run_id: str
    tags: Mapping[str, str]
    is_champion: bool


class Refused(Exception):
    """The store will not take this; what else there is can still be sent."""


class Store(Protocol):
    """Where runs are kept. A call that raises anything but Refused is made again later."""

    def find(self, study_id: str, key: str | None = None) -> Mapping[str, KnownRun]:
        """The runs of a study by key, one each; with `key` that one alone."""

    def create(self, name: str, started_ms: int, tags: Mapping[str, str]) -> str:
        """A new run's id."""

    def log(self, run_id: str, params: Mapping[str, str], points: Sequence[Point], tags: Mapping[str, str]) -> None:
        """Add to a run; what it has already stays as it is."""

    def close(self, run_id: str, status: Status, ended_ms: int) -> None:
        """Set a run's status; RUNNING opens it again."""


class Record(Store, Protocol):
    """A store that can be read back and mended."""

    def runs(self, study_id: str) -> Sequence[StoredRun]:
        """All active runs of a study, copies too."""

    def history(self, run_id: str, metric: str) -> Sequence[Point]:
        """Every point of a run's metric, as often as the store has it."""

    def delete(self, run_id: str) -> None:
        """Take a run out of sight."""

    def models(self, name: str) -> Sequence[StoredModel]:
        """The versions of a registered model, oldest first."""


T = TypeVar("T")


class Patience:
    """Makes calls again that fail with one of `failures`, for `seconds` without progress; then raises what they raised last.

    `progress` counts what was reached; `failed_at` is the monotonic clock's time of the last failure.
    """

    def __init__(self, seconds: float, failures: tuple[type[Exception], ...], progress: Callable[[], int] = lambda: 0) -> None:
        self.seconds, self.progress = seconds, progress
        self.failed_at = -math.inf
        self._failures = failures

    def __call__(self, call: Callable[[], T]) -> T:
        """What `call` returns in the end."""
        until, pause, reached = time.monotonic() + self.seconds, SHORTEST_PAUSE_S, self.progress()
        while True:
            try:
                return call()
            except self._failures:
                self.failed_at = time.monotonic()
                if self.progress() > reached:
                    until, pause, reached = self.failed_at + self.seconds, SHORTEST_PAUSE_S, self.progress()
                elif self.failed_at >= until:
                    raise
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)


def recognise(projection: Projection, store: Store) -> None:
    """Learn which runs the store has and how they ended, as at the start, and when something late may have changed that."""
    for key, known in store.find(projection.study_id).items():
        if run := projection.runs.get(key):
            _recognise(run, known)


def _recognise(run: Run, known: KnownRun) -> None:
    run.run_id, run.shown, run.shown_ms = known.run_id, known.status, known.ended_ms
    run.leave(known.tags)
    if run.is_trusted and run.end_is_shown and run.state == known.state:
        run.params, run.tags, run.points = {}, {}, []
    elif known.state and known.state != run.state:
        run.tags["hpo.state"] = run.state


def send(projection: Projection, store: Store, *, everything: bool) -> list[str]:
    """Bring the store up to date: finished trials, and with `everything` the running ones too; the study's end last.

    What was sent is no longer pending, so after an error the next call goes on where this one broke off. What the store
    refuses stays pending until it has refused it `REFUSALS` times; returns what is given up so.
    """
    given_up = []
    parent = projection.runs[STUDY]
    if not parent.run_id:
        _bring(store, projection, parent, close=False)
    for run in projection.trials:
        if run.behind and (everything or run.status is not Status.RUNNING):
            try:
                _bring(store, projection, run)
                run.refusals = 0
            except Refused as error:
                run.refusals += 1
                if run.refusals >= REFUSALS:
                    given_up.append(f"{run.name}: {error}")
                    _give_up(run)
    if everything:
        _bring(store, projection, parent)
    return given_up


def _give_up(run: Run) -> None:
    run.params, run.tags, run.points = {}, {}, []
    run.shown, run.shown_ms = run.status, run.ended_ms
    run.run_id = run.run_id or "refused"


def _bring(store: Store, projection: Projection, run: Run, *, close: bool = True) -> None:
    if not run.run_id:
        _open(store, projection, run)
    elif NOTE_TAG in run.tags and (known := store.find(projection.study_id, run.key).get(run.key)):
        run.leave(known.tags)  # somebody may have described it while it ran
    while run.params or run.tags or run.points:
        params, tags = dict(islice(run.params.items(), TEXTS_A_CALL)), dict(islice(run.tags.items(), TEXTS_A_CALL))
        store.log(run.run_id, params, run.points[:POINTS_A_CALL], tags)
        run.params = dict(islice(run.params.items(), TEXTS_A_CALL, None))
        run.tags = dict(islice(run.tags.items(), TEXTS_A_CALL, None))
        run.points = run.points[POINTS_A_CALL:]
    if close and not run.end_is_shown:
        store.close(run.run_id, run.status, run.ended_ms)
        run.shown, run.shown_ms = run.status, run.ended_ms


def _open(store: Store, projection: Projection, run: Run) -> None:
    if run.creates and (known := store.find(projection.study_id, run.key).get(run.key)):
        _recognise(run, known)
        return
    run.creates += 1  # before the call: if its answer is lost, the next attempt must look first
    own = identity(projection, run)
    tags = dict(islice(run.tags.items(), TEXTS_A_CALL - len(own)))
    try:
        run.run_id = store.create(run.name, run.started_ms, tags | own)
    except Refused:  # it may be one of the tags that can wait: the run itself is not to be lost with it
        run.run_id = store.create(run.name, run.started_ms, own)
    else:
        run.tags = dict(islice(run.tags.items(), len(tags), None))


def identity(projection: Projection, run: Run) -> dict[str, str]:
    """The tags that a run is made with: whose it is, and in MLflow's own words what it is part of."""
    parent = projection.runs[STUDY]
    link = {} if run is parent else {"mlflow.parentRunId": parent.run_id}
    return {"hpo.study": parent.name, "hpo.study_id": projection.study_id, "hpo.trial": run.key} | link
