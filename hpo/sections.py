"""The sections of a spec as types, and the rules that concern one value alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from hpo import names
from hpo.problem import bare, shown
from hpo.schema import AtLeastOne, AtLeastTwo, NotNegative, Positive, Rule, Seconds, Text
from hpo.space import Value
from hpo.stopping import GeneralisationLoss, NoStopper, Patience, ProgressQuotient, Rises, Stopper
from hpo.storage import checked as checked_storage
from hpo.tracking import public, uri_mistake
from hpo.trial import Direction

RAYS_OWN = ("cpu", "gpu", "memory", "object_store_memory")


def _tracking_uri(uri: str) -> str:
    if mistake := uri_mistake(uri):
        raise ValueError(f"found {shown(public(uri))}, which {mistake}")
    return uri


def _gpus(gpus: float | Literal["auto"]) -> float | Literal["auto"]:
    if isinstance(gpus, float) and (gpus < 0 or (gpus > 1 and not gpus.is_integer())):
        raise ValueError(f"found {bare(gpus)}; 0, a fraction below 1, a whole number or auto is needed")
    return gpus


def _custom(custom: dict[str, float]) -> dict[str, float]:
    for name, amount in custom.items():
        if name.lower() in RAYS_OWN:
            raise ValueError(f"found {shown(name)}; {', '.join(RAYS_OWN)} are no custom resources: use resources.cpus and resources.gpus")
        if amount > 1 and not amount.is_integer():
            raise ValueError(f"found {bare(amount)} of {name}; a fraction below 1 or a whole number is needed")
    return custom


def _share(share: float) -> float:
    if not 0 <= share < 1:
        raise ValueError(f"found {bare(share)}; a share from 0 to below 1 is needed")
    return share


DEFAULT_FACTOR = {"stop": 3, "promote": 4}  # what search.md compares: promotion spends exactly 1/eta, which 4 suits
StudyName = Annotated[str, Rule(names.study)]


@dataclass(frozen=True, slots=True)
class TrainerChoice:
    """Which trainer, and what it is given in every trial alike; `settings` always holds max_epochs."""

    name: str
    settings: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Objective:
    """The metric that is compared, and which way it is better."""

    metric: Text
    direction: Direction


@dataclass(frozen=True, slots=True)
class SamplerChoice:
    """Who chooses the next trial's parameters; `auto` is ladders. `shuffle` visits a grid in an order drawn by the seed."""

    name: Literal["auto", "ladders", "grid", "sweep", "random", "qmc", "tpe", "gp", "cmaes"] = "auto"
    shuffle: bool = False


@dataclass(frozen=True, slots=True)
class Asha:
    """Asynchronous successive halving: rungs at grace_epochs times powers of reduction_factor, the lowest skipped in some `brackets`.

    Trials `stop` at a rung, or wait there for their promotion; None stands for the sampler's own rule. `audit` is the share of
    those outside the best at a rung that trains on to its end, so that it is known what pruning costs.
    """

    name: Literal["asha"] = "asha"
    rule: Literal["stop", "promote"] | None = None
    grace_epochs: AtLeastOne = 1
    reduction_factor: AtLeastTwo | None = None
    brackets: AtLeastOne = 1
    audit: Annotated[float, Rule(_share)] = 0.0

    @property
    def factor(self) -> int:
        """The reduction factor, which a checked spec holds."""
        assert self.reduction_factor is not None
        return self.reduction_factor


@dataclass(frozen=True, slots=True)
class NoPruner:
    """No trial is compared with others while it runs."""

    name: Literal["none"] = "none"


@dataclass(frozen=True, slots=True)
class Budget:
    """When the search is over: after so many trials, so many seconds, or so many epochs of all trials together (None: no limit)."""

    trials: AtLeastOne
    time_s: Seconds | None = None
    epochs: AtLeastOne | None = None


@dataclass(frozen=True, slots=True)
class Resources:
    """What each trial gets; `auto` takes a GPU only where there is one, `custom` resources are those that nodes were given.

    At most `max_concurrent` trials run at a time (None: as many as fit).
    """

    cpus: Positive = 1.0
    gpus: Annotated[float | Literal["auto"], Rule(_gpus)] = "auto"
    custom: Annotated[dict[Text, Positive], Rule(_custom)] = field(default_factory=dict)
    max_concurrent: AtLeastOne | None = None


@dataclass(frozen=True, slots=True)
class Tracking:
    """Where MLflow is (None: MLFLOW_TRACKING_URI, else the study home) and under which names; these default to the study's.

    `patience_s` is how long a finished search waits for a server that does not answer.
    """

    uri: Annotated[Text, Rule(_tracking_uri)] | None = None
    experiment: Annotated[Text, Rule(names.experiment)] | None = None
    registered_model: Annotated[Text, Rule(names.model)] | None = None
    patience_s: Seconds = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """When a trial is given up: after `trial_timeout_s` (None: never), or when its worker died more than `retries` times.

    A trial that still trains then is cut short and keeps its best value; one that has finished no epoch for as long
    hangs, and is FAILED.
    """

    trial_timeout_s: Seconds | None = None
    retries: NotNegative = 3


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """How often a running trial's state is written, and of how many of the best trials it is kept.

    Of the trials that wait for their promotion the `paused` that came furthest keep theirs; the others begin again if promoted. They
    are in a `storage` that all nodes of a cluster reach, or, without one, in the study's own folder.
    """

    every_s: Seconds = 30.0
    keep: AtLeastOne = 3
    paused: NotNegative = 100
    storage: Annotated[Text, Rule(checked_storage)] | None = None


@dataclass(frozen=True, slots=True)
class Finals:
    """After the search the `top` configurations are trained again with `seeds` fresh seeds each; the best on average is chosen.

    Then the sealed test split is opened once, for the chosen model, unless `test` is false.
    """

    top: AtLeastOne = 3
    seeds: AtLeastOne = 2
    test: bool = True


def meant(sampler: SamplerChoice) -> SamplerChoice:
    """The sampler that a choice stands for."""
    return replace(sampler, name="ladders") if sampler.name == "auto" else sampler


def suited(pruner: Asha | NoPruner, sampler: str) -> Asha | NoPruner:
    """The pruner with its defaults filled in: under ladders trials are promoted, under other samplers they stop."""
    return suited_asha(pruner, sampler) if isinstance(pruner, Asha) else pruner


def suited_asha(pruner: Asha, sampler: str) -> Asha:
    """ASHA with its defaults filled in."""
    rule = pruner.rule or ("promote" if sampler == "ladders" else "stop")
    return replace(pruner, rule=rule, reduction_factor=pruner.reduction_factor or DEFAULT_FACTOR[rule])


PRUNERS: dict[str, type[Asha | NoPruner]] = {"asha": Asha, "none": NoPruner}
STOPPERS: dict[str, type[Stopper]] = {
    "patience": Patience,
    "gl": GeneralisationLoss,
    "pq": ProgressQuotient,
    "up": Rises,
    "none": NoStopper,
}
