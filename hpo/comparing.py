"""A study's record in MLflow beside its journal, row by row: what is missing, doubled, extra or wrong. Reads, changes nothing.

Rows are runs, parameters, our own tags, and points with value, step and time. Names and other tags are the user's to change,
and so is what was offered of these: a description, a colour.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

from hpo.mlflow_runs import CHAMPION_TAG, STUDY, Point, Run, Status
from hpo.projection import Projection
from hpo.sending import Patience, Record, StoredModel, StoredRun, identity
from hpo.trial import key_of

OURS = ("hpo.", "mlflow.parentRunId")
CROWNED = ("budget", "time")  # the ends after which the best trial is registered; an interruption leaves no time for it


class Kind(StrEnum):
    """How a row differs."""

    MISSING = "missing"
    DOUBLED = "doubled"
    EXTRA = "extra"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Difference:
    """A row in which MLflow differs from the journal: of which run or model, how, and what it is."""

    where: str
    kind: Kind
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.kind} {self.what}"


@dataclass(slots=True)
class Gap:
    """A run as it must be and as it is: what is to be sent, and what is `foreign` and can only go with the whole run."""

    run: Run
    stored: StoredRun | None
    params: dict[str, str]
    tags: dict[str, str]
    points: list[Point]
    foreign: list[Difference] = field(default_factory=list)

    @property
    def end_is_wrong(self) -> bool:
        """Whether the status differs, or the time from which on it holds."""
        run, stored = self.run, self.stored
        if stored is None or run.status is Status.RUNNING:
            return stored is not None and stored.status is not Status.RUNNING
        return (stored.status, stored.ended_ms) != (run.status, run.ended_ms)

    def differences(self) -> Iterator[Difference]:
        """Each row that differs; a run that is missing is one."""
        run, stored = self.run, self.stored
        if stored is None:
            yield Difference(run.name, Kind.MISSING, "run")
            return
        yield from self.foreign
        yield from (Difference(run.name, Kind.MISSING, f"parameter {name}") for name in self.params)
        for name, value in self.tags.items():
            found = stored.tags.get(name)
            what = f"tag {name}" if found is None else f"tag {name}: {found!r}, by the journal {value!r}"
            yield Difference(run.name, Kind.MISSING if found is None else Kind.WRONG, what)
        yield from (Difference(run.name, Kind.MISSING, _shown(point)) for point in self.points)
        if self.end_is_wrong:
            yield Difference(
                run.name, Kind.WRONG, f"end: {stored.status} at {stored.ended_ms}, by the journal {run.status} at {run.ended_ms}"
            )


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many rows the journal asks for, and every row in which the store differs.

    `gaps` has each run, whether it differs or not; `strays` the stored runs that should not be, copies among them.
    `champion` is what the study's run says of its best model, `uncrowned` whether that is not so.
    """

    runs: int
    params: int
    tags: int
    points: int
    models: int
    differences: Sequence[Difference]
    champion: str
    uncrowned: bool
    gaps: Sequence[Gap] = field(repr=False)
    strays: Sequence[StoredRun] = field(repr=False)

    def count(self, kind: Kind) -> int:
        """How many rows differ so."""
        return sum(difference.kind is kind for difference in self.differences)


def compare(projection: Projection, store: Record | None, patience: Patience, *, always_crowned: bool = False) -> Comparison:
    """The record in `store` (None: there is none) beside a projection of which nothing was sent.

    The best trial must be a registered model where the study's end asks for it, or with `always_crowned` at any end.
    """
    stored, strays = _by_key(patience(partial(store.runs, projection.study_id)) if store else [], projection)
    projection.runs[STUDY].run_id = stored[STUDY].run_id if STUDY in stored else ""
    rows, differences, gaps = Counter[str](), [_stray(stray, projection) for stray in strays], []
    for key, run in projection.runs.items():
        known, own = stored.get(key), identity(projection, run)
        points = _points(store, known, patience) if store and known else []
        gaps.append(_gap(run, own | run.tags, known, points))
        differences += gaps[-1].differences()
        rows.update(runs=1, params=len(run.params), tags=len(own | run.tags), points=len(set(run.points)))
    told = stored[STUDY].tags.get(CHAMPION_TAG, "") if STUDY in stored else ""
    ended, uncrowned = projection.ended, []
    if ended is not None and ended.best is not None and (always_crowned or ended.reason in CROWNED):
        rows.update(models=1)
        models = patience(partial(store.models, projection.model)) if store else []
        uncrowned = list(_uncrowned(projection, key_of(ended.best), told, stored, models))
    found = [*differences, *uncrowned]
    rows_of = {name: rows[name] for name in ("runs", "params", "tags", "points", "models")}
    return Comparison(**rows_of, differences=found, champion=told, uncrowned=bool(uncrowned), gaps=gaps, strays=strays)


def _by_key(runs: Sequence[StoredRun], projection: Projection) -> tuple[dict[str, StoredRun], list[StoredRun]]:
    """The fullest run of each key, and all others."""
    chosen: dict[str, StoredRun] = {}
    strays = []
    for run in sorted(runs, key=lambda run: -len(run.metrics) - len(run.params) - len(run.tags)):
        if run.key in projection.runs and run.key not in chosen:
            chosen[run.key] = run
        else:
            strays.append(run)
    return chosen, strays


def _stray(run: StoredRun, projection: Projection) -> Difference:
    if run.key in projection.runs:
        return Difference(projection.runs[run.key].name, Kind.DOUBLED, f"run {run.run_id}")
    return Difference(run.name, Kind.EXTRA, f"run {run.run_id}, of trial {run.key or 'no trial'}")


def _points(store: Record, run: StoredRun, patience: Patience) -> list[Point]:
    return [point for metric in run.metrics for point in patience(partial(store.history, run.run_id, metric))]


def _gap(run: Run, tags: Mapping[str, str], stored: StoredRun | None, points: Sequence[Point]) -> Gap:
    if stored is None:
        return Gap(run, None, dict(run.params), dict(tags), list(run.points))
    gap = Gap(
        run,
        stored,
        params={name: value for name, value in run.params.items() if name not in stored.params},
        tags={name: value for name, value in tags.items() if (found := stored.tags.get(name)) != value and not run.is_theirs(name, found)},
        points=list((Counter(set(run.points)) - Counter(points)).elements()),
    )
    foreign = []
    if stored.started_ms != run.started_ms:
        foreign.append((Kind.WRONG, f"start: {stored.started_ms}, by the journal {run.started_ms}"))
    for name, value in stored.params.items():
        if value != run.params.get(name, value):
            foreign.append((Kind.WRONG, f"parameter {name}: {value!r}, by the journal {run.params[name]!r}"))
        elif name not in run.params:
            foreign.append((Kind.EXTRA, f"parameter {name}"))
    foreign += [(Kind.EXTRA, f"tag {name}") for name in stored.tags if name.startswith(OURS) and name not in {*tags, CHAMPION_TAG}]
    for point in (Counter(points) - Counter(set(run.points))).elements():
        foreign.append((Kind.DOUBLED if point in run.points else Kind.EXTRA, _shown(point)))
    gap.foreign = [Difference(run.name, kind, what) for kind, what in foreign]
    return gap


def _uncrowned(
    projection: Projection, best: str, told: str, stored: Mapping[str, StoredRun], models: Sequence[StoredModel]
) -> Iterator[Difference]:
    if told.startswith(f"no model of trial {best}:"):
        return
    owner = {"hpo.study_id": projection.study_id, "hpo.trial": best}.items()
    mine = [model for model in models if best in stored and model.run_id == stored[best].run_id and owner <= model.tags.items()]
    champion = next((model for model in mine if f"{projection.model}/{model.version}" == told), None)
    if champion is None:
        yield Difference(projection.model, Kind.MISSING, f"model of trial {best}, the best")
        return
    if not champion.is_champion:
        yield Difference(projection.model, Kind.WRONG, f"champion: neither version {champion.version} nor a later one")
    for model in mine:
        if model is not champion and model.tags == champion.tags:
            yield Difference(projection.model, Kind.DOUBLED, f"model of trial {best}: version {model.version}")


def _shown(point: Point) -> str:
    return f"point {point.name} = {point.value:.6g} at step {point.step}"
