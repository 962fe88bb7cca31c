"""The searches that are compared, by name: through `hpo.simulate`, or as other tools wire Optuna."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from optuna.pruners import HyperbandPruner
from optuna.samplers import RandomSampler, TPESampler

import hpo
from benchmarks.curves import Table, plain_space
from benchmarks.search_quality.emulated import NoRule, OptunaPruner, RayAsha, emulate
from benchmarks.search_quality.progress import Epoch
from hpo.spec import Spec, spec_from_dict

Search = Callable[[Table, int, int, int], list[Epoch]]
"""(table, workers, seed, epochs) -> every epoch that was trained, about as many as asked for."""

ETA = 4
STOP = {"name": "asha", "rule": "stop", "reduction_factor": ETA}
PROMOTE = {"name": "asha", "rule": "promote", "reduction_factor": ETA}
NONE = {"name": "none"}


@dataclass(frozen=True, slots=True)
class Arm:
    """A search: what it is called in tables and figures, what it is in a few words, and itself."""

    label: str
    says: str
    search: Search


def spec_of(table: Table, sampler: str, pruner: dict[str, Any], epochs: int) -> Spec:
    """The spec of a simulated study over the table's space, for so many epochs in all."""
    return spec_from_dict(
        {
            "name": "search-quality",
            "trainer": {"name": "simulated", "settings": {"max_epochs": table.max_epochs}},
            "objective": {"metric": "value", "direction": table.direction.value},
            "space": plain_space(table.space),
            "sampler": {"name": sampler},
            "pruner": pruner,
            "budget": {"trials": 100_000, "epochs": epochs},
        }
    )


def simulated(sampler: str, pruner: dict[str, Any]) -> Search:
    """A study of this project on its virtual clock, an epoch a virtual second."""

    def search(table: Table, workers: int, seed: int, epochs: int) -> list[Epoch]:
        study = hpo.simulate(spec_of(table, sampler, pruner, epochs), table.curve, workers=workers, seed=seed)
        return [Epoch(m.at or 0.0, trial.number, m.epoch, m.value) for trial in study.trials for m in trial.measurements]

    return search


def _tpe(seed: int) -> TPESampler:
    """Optuna's TPE, one parameter at a time: on recorded curves far better than the joint one, which Optuna 5 defaults to."""
    return TPESampler(seed=seed, multivariate=False)


def _random(seed: int) -> RandomSampler:
    return RandomSampler(seed=seed)


def _ray_asha(table: Table) -> RayAsha:
    return RayAsha(table.direction, table.max_epochs, ETA)


def _hyperband(table: Table) -> HyperbandPruner:
    return HyperbandPruner(min_resource=1, max_resource=table.max_epochs)


RANDOM_RAY = emulate(_random, _ray_asha, pending=1)
TPE_RAY = emulate(_tpe, _ray_asha, pending=1)
TPE_HYPERBAND = emulate(_tpe, lambda _: OptunaPruner(), _hyperband)
TPE = emulate(_tpe, lambda _: NoRule())

ARMS = {
    "random": Arm("random", "random points, each trained to its end", simulated("random", NONE)),
    "random+asha": Arm("random + ASHA", "random points, the stopping form", simulated("random", STOP)),
    "random+asha-ray": Arm("random + ASHA (Ray)", "random points, Ray's stopping rule (emulated)", RANDOM_RAY),
    "random+promote": Arm("random + promotion", "random points, the promotion form", simulated("random", PROMOTE)),
    "tpe": Arm("TPE", "`sampler: {name: tpe}`, each trained to its end", simulated("tpe", NONE)),
    "tpe-optuna": Arm("TPE (Optuna)", "Optuna's univariate TPE, each trained to its end (emulated)", TPE),
    "tpe+promote": Arm("TPE + promotion", "`sampler: {name: tpe}`, the promotion form", simulated("tpe", PROMOTE)),
    "tpe+asha-ray": Arm("TPE + ASHA (Ray)", "Optuna's univariate TPE under Ray's rule, wired as `OptunaSearch` does (emulated)", TPE_RAY),
    "tpe+hyperband": Arm("TPE + Hyperband", "Optuna's univariate TPE with its `HyperbandPruner`, eta 3 (emulated)", TPE_HYPERBAND),
    "gp": Arm("GP", "`sampler: {name: gp}`, Optuna's GPSampler, each trained to its end", simulated("gp", NONE)),
    "ours": Arm("ladders (auto)", "`sampler: {name: auto}`, the promotion form", simulated("auto", PROMOTE)),
}
