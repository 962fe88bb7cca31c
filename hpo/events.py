"""What can happen to a study, as immutable records that fold into trials and fit one JSON line each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from hpo.space import Params, Value
from hpo.trial import Course, State


@dataclass(frozen=True, slots=True)
class Created:
    """The study exists: its spec as plain data, what it runs on, and its own folder in a `storage` of checkpoints, if it has one."""

    study: str
    spec: Mapping[str, Any]
    versions: Mapping[str, str]
    git_commit: str | None = None
    owner: str = ""  # unknown in journals from before owners
    storage: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """The sampler chose a new trial's parameters; the trial is RUNNING from here on and competes with those of its `ladder`.

    In the finals it has a number from FINALS_FROM on, and `replicates` a trial of the search with a fresh seed, or the trainer's
    defaults (DEFAULTS).
    """

    trial: int
    params: Params
    seed: int
    ladder: str = ""
    replicates: int | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """An epoch of a trial was trained and measured; `value` is the objective's metric in its own direction."""

    trial: int
    epoch: int
    value: float
    metrics: Mapping[str, float]
    seconds: float


@dataclass(frozen=True, slots=True)
class Paused:
    """A trial waits at the rung `epoch` for its promotion.

    `detail` holds how it compared there (value, rank, arrivals, quota, and cutoff unless so many diverged that there is none).
    """

    trial: int
    epoch: int
    detail: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Promoted:
    """A paused trial goes on behind the rung `epoch`, on `course`: to compete at the next, or to its end for a finished model."""

    trial: int
    epoch: int
    course: Course = Course.COMPETES


@dataclass(frozen=True, slots=True)
class Audited:
    """A trial that would end or wait at the rung `epoch` trains to its end, unjudged, so that it is known what such ends cost.

    `detail` holds how it compared (value, rank, arrivals, quota, cutoff).
    """

    trial: int
    epoch: int
    detail: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Retried:
    """A trial's worker died; the trial goes on from its checkpoint as attempt `attempt` (the first is 1).

    `counted` says whether it counts towards the limit; the preemption of a whole node does not.
    """

    trial: int
    attempt: int
    reason: str
    counted: bool = True


@dataclass(frozen=True, slots=True)
class Finished:
    """A trial ended for good: `state` is COMPLETE, PRUNED or FAILED, `reason` a sentence for people.

    `rule` names what ended it (asha, patience, gl, pq, up, max_epochs, trainer, error, metric, checkpoint, worker, timeout, time,
    budget, race: it could no longer win the finals, or paused: it still waited when the study ended);
    `detail` holds the numbers behind the decision (for asha: rung, value, rank, arrivals, quota, cutoff).
    """

    trial: int
    state: State
    rule: str
    reason: str
    detail: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resumed:
    """Another process goes on with the study, ended or not: what was RUNNING goes on from its checkpoint.

    `trials`, `time_s` and `epochs` are the new budget, in all, where it was changed; `process` runs on `host`.
    """

    host: str
    process: int
    versions: Mapping[str, str]
    trials: int | None = None
    time_s: float | None = None
    epochs: int | None = None


@dataclass(frozen=True, slots=True)
class Nominated:
    """The search is over, by `reason` (budget or time): the configurations of `trials`, the best first, are trained again.

    They get `seeds` runs each as far as `epochs`, of all runs together, suffice, and so do the trainer's own `defaults` if
    they are known and none of them.
    """

    reason: str
    trials: Sequence[int]
    seeds: int
    epochs: int
    defaults: Params | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The finals are over: the configuration of trial `winner` (or DEFAULTS) won, and its run `champion` is the model.

    `detail` holds what the choice rests on: runs, mean, sd, freedom, low, high, selected_on, gap, not_told_apart, beats_defaults;
    what is not known is left out.
    """

    winner: int
    champion: int
    detail: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unsealed:
    """The sealed test split is opened now, for the model of `trial`.

    `forced` if the user insisted: it had been opened before, or no finals chose that model.
    """

    trial: int
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Tested:
    """What the model of `trial` came to on the test split: each metric's mean over `examples`, with its 95 % interval.

    `note` says why there are no scores, where there are none.
    """

    trial: int
    examples: int = 0
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """The study's loop is over: `reason` is budget, time, interrupted or error; `best` the number of the trial that is its model.

    That is the champion of the finals, or the best trial of the search where there were none.
    """

    reason: str
    best: int | None = None


OfTrial = Asked | Measured | Paused | Promoted | Audited | Retried | Finished
OfStudy = Created | Resumed | Nominated | Chosen | Unsealed | Tested | Ended
Event = OfTrial | OfStudy
KINDS: dict[str, type[Event]] = {kind.__name__.lower(): kind for kind in get_args(Event)}


def to_json(event: Event) -> dict[str, Any]:
    """The event as JSON-ready data, its kind under `event`; a metric that is not finite becomes its name ("nan", "inf")."""
    fields = {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}
    if isinstance(event, Measured):
        fields["metrics"] = {name: v if math.isfinite(v) else str(v) for name, v in event.metrics.items()}
    return {"event": type(event).__name__.lower(), **fields}


def from_json(record: Mapping[str, Any]) -> Event:
    """The event that `to_json` wrote; fields of the line itself (crc, seq, at) are not its own and must be left out.

    Raises KeyError for an unknown kind and TypeError for missing or unknown fields.
    """
    fields = dict(record)
    kind = KINDS[fields.pop("event")]
    if kind is Measured:
        fields["metrics"] = {name: float(value) for name, value in fields["metrics"].items()}
    if kind is Finished:
        fields["state"] = State(fields["state"])
    if kind is Promoted:
        fields["course"] = Course(fields["course"])
    return kind(**fields)
